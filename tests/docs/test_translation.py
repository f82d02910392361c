"""The translation example: its grammar is what the page says, and its script trains, resumes and translates."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "translation"


@pytest.fixture(scope="module")
def grammar():
    return loaded("grammar")


@pytest.fixture
def script(grammar, monkeypatch):
    monkeypatch.setitem(sys.modules, "grammar", grammar)
    return loaded("train")


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"translation_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def some(grammar: Any, count: int = 4000, seed: int = 0, test: bool = False) -> list[tuple[str, str]]:
    return list(itertools.islice(grammar.pairs(seed, test), count))


# The grammar


def test_a_seed_gives_the_same_sentences(grammar):
    assert some(grammar, 100) == some(grammar, 100)
    assert some(grammar, 100) != some(grammar, 100, seed=1)


def check_split(grammar: Any) -> None:
    learned, unseen = ({pair[0] for seed in (0, 1) for pair in some(grammar, 1000, seed, test)} for test in (False, True))
    assert not learned & unseen


def test_no_sentence_of_the_test_is_learned(monkeypatch, grammar):
    check_split(grammar)
    drawn = {grammar.sentence(grammar.random.Random(seed))[0] for seed in range(4000)}
    share = sum(map(grammar.held_out, drawn)) / len(drawn)
    assert 0.08 < share < 0.12
    monkeypatch.setattr(grammar, "held_out", lambda english: len(english) % 2 == 0)
    check_split(grammar)  # any rule about the sentence alone will do
    flips = itertools.cycle([True, False, False])
    monkeypatch.setattr(grammar, "held_out", lambda _: next(flips))
    with pytest.raises(AssertionError):
        check_split(grammar)


def check_one_translation(grammar: Any) -> None:
    draw, known = grammar.random.Random(0), {}
    for _ in range(20_000):
        english, other = grammar.sentence(draw)
        assert known.setdefault(english, other) == other


def test_a_sentence_has_one_translation(monkeypatch, grammar):
    check_one_translation(grammar)
    ending = grammar.ending
    wrong = grammar.random.Random(1)
    monkeypatch.setattr(grammar, "ending", lambda stem, _, *rest: ending(stem, wrong.random() < 0.5, *rest))
    with pytest.raises(AssertionError):
        check_one_translation(grammar)


def test_lengths_vary(grammar):
    pairs = some(grammar)
    for side in (0, 1):
        lengths = {len(pair[side].split()) for pair in pairs}
        assert min(lengths) <= 4
        assert max(lengths) >= 20
    assert sum(len(one.split()) != len(other.split()) for one, other in pairs) > 0.7 * len(pairs)


def check_order(grammar: Any) -> None:
    """The verb comes last, and prepositions behind their places."""
    for english, other in some(grammar, 1000):
        last = other.split()[-2:]
        assert last[-1] in ("hai", "hain") or last[-1].endswith(("ga", "ge", "gi"))
        assert english.split().count("in") == other.split().count("mein")
        assert english.split().count("not") == other.split().count("nahin")
        assert english.split().count("who") == other.split().count("jo")
        for place, postposition in re.findall(r"\b(?:in|from|near) (?:\w+ )*?(garden|river)s?\b()", english):
            assert not postposition
            stem = {"garden": "bagich", "river": "nad"}[place]
            assert re.search(rf"\b{stem}(?:e|i|on|iyon) (?:mein|se|ke-pas)\b", other), (english, other)


def test_words_change_places(monkeypatch, grammar):
    check_order(grammar)
    monkeypatch.setattr(grammar, "noun_form", lambda word, *_: word)
    with pytest.raises(AssertionError):
        check_order(grammar)


def test_verbs_agree_with_their_subjects(grammar):
    draw, found = grammar.random.Random(0), {}
    for many, feminine in itertools.product((False, True), repeat=2):
        subject = grammar.Noun("", "", "", many, feminine)
        found[many, feminine] = {grammar.verb(draw, "run", "daur", subject) for _ in range(200)}
    assert found == {
        (False, False): four("runs", "does not run", "daurta hai", "daurega"),
        (False, True): four("runs", "does not run", "daurti hai", "dauregi"),
        (True, False): four("run", "do not run", "daurte hain", "daurenge"),
        (True, True): four("run", "do not run", "daurti hain", "daurengi"),
    }


def four(yes: str, no: str, present: str, future: str) -> set[tuple[str, str]]:
    return {(yes, present), (no, f"nahin {present}"), ("will run", future), ("will not run", f"nahin {future}")}


def test_nouns_and_adjectives_change_before_a_postposition(grammar):
    cases = list(itertools.product((False, True), repeat=2))  # many, oblique
    assert [grammar.noun_form("larka", *one) for one in cases] == ["larka", "larke", "larke", "larkon"]
    assert [grammar.noun_form("rani", *one) for one in cases] == ["rani", "rani", "raniyan", "raniyon"]
    assert [grammar.ending("bar", many, False, oblique) for many, oblique in cases] == ["bara", "bare", "bare", "bare"]
    assert {grammar.ending("bar", many, True, oblique) for many, oblique in cases} == {"bari"}


def test_the_example_of_the_page_is_drawn(grammar):
    english, other = re.findall(r"^    (\S.*)$", grammar.__doc__, re.M)
    assert (english, other) in some(grammar, 3000)


# The page

PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_sentences_of_the_page_are_the_first_of_the_test(grammar):
    rows = re.findall(r"^\| ([a-z ]+) \| ([a-z -]+) \|$", PAGE.partition("table: sentences")[2].partition("\n\n")[0], re.M)
    assert rows == some(grammar, len(rows), test=True)
    assert len(rows) == 3


def test_links_of_the_page_lead_somewhere():
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (FOLDER / link).is_file(), link


def test_runs_of_the_page_are_what_the_script_printed(grammar):
    """run-N.txt is its output with seed N."""
    printed = [(FOLDER / f"run-{seed}.txt").read_text() for seed in range(3)]
    assert PAGE.partition("<!-- output of a run -->\n```text\n")[2].startswith(printed[0] + "```")
    rows = re.findall(r"^\| (\d) \| (\d+) \| (\d+) s \| (\d+) \|$", PAGE, re.M)
    for seed, text in enumerate(printed):
        took = re.match(r"(\d+) steps in (\d+) s on 2 threads\n", text)
        exact = re.search(r"^(\d+) of 1000 unseen sentences are translated exactly", text, re.M)
        assert took
        assert exact
        assert rows[seed] == (str(seed), took[1], took[2], exact[1])
        assert int(exact[1]) >= 990
    lines = printed[0].splitlines()
    for (english, other), line, below in zip(some(grammar, 3, test=True), lines[1::2], lines[2::2], strict=False):
        assert (english, f"  {other}") == (line, below)


# The script


def test_the_script_is_short():
    assert len((FOLDER / "train.py").read_text().splitlines()) < 100


def test_batches_have_little_padding(script, grammar):
    pairs = [tuple([3] * len(one.split()) for one in pair) for pair in some(grammar)]
    stream = script.batches(pairs, 0, 0, sentences=48)
    steps = list(itertools.islice(stream, 20))
    words = torch.cat([words.flatten() for parts in steps for _, words in parts])
    assert (words != script.PADDING).float().mean() > 0.9
    assert all(len(parts) == 2 for parts in steps)
    later = next(script.batches(pairs, 0, 19, sentences=48))
    for (source, target), (again, also) in zip(steps[19], later, strict=True):
        assert torch.equal(source, again)  # of a step alone: a resumed run sees what it would have seen
        assert torch.equal(target, also)


def run(monkeypatch: Any, script: Any, capsys: Any, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["train.py", "--pairs", "300", "--test", "5", *arguments])
    code = script.main()
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_exit_code_says_whether_enough_is_exact(monkeypatch, script, grammar, capsys):
    code, out, _ = run(monkeypatch, script, capsys, "--steps", "2")
    assert code == 1
    assert out.splitlines()[-1].startswith("0 of 5 unseen sentences")
    wanted = iter([other for _, other in some(grammar, 5, test=True)])
    words = script.SPECIAL + sorted({word for pair in some(grammar, 300) for one in pair for word in one.split()})
    monkeypatch.setattr(script, "translate", lambda _, sources: [[*map(words.index, next(wanted).split())] for _ in sources])
    code, out, _ = run(monkeypatch, script, capsys, "--steps", "2")
    assert code == 0
    assert out.splitlines()[-1] == "5 of 5 unseen sentences are translated exactly: 100.0%"


def test_the_script_goes_on_from_its_checkpoint(monkeypatch, script, capsys, tmp_path):
    train = script.train
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(monkeypatch, script, capsys, "--steps", "4", "--save", str(whole))
    with monkeypatch.context() as patch:
        patch.setattr(script, "train", lambda *args, **options: train(*args, **options | {"steps": 2}))
        run(monkeypatch, script, capsys, "--steps", "4", "--save", str(parts))
    run(monkeypatch, script, capsys, "--steps", "4", "--save", str(parts))
    one, other = (script.checkpoint.read_model(path).state_dict() for path in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_runs_to_its_end():
    command = [sys.executable, str(FOLDER / "train.py"), "--steps", "12", "--pairs", "300", "--test", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    losses = [float(one) for one in re.findall(r"loss (\S+)", done.stderr)]
    assert losses[-1] < losses[0] - 0.3  # the rate has hardly begun to rise
    assert re.search(r"^12 steps in \d+ s on \d+ threads$", done.stdout, re.M)
    assert re.search(r"^\d of 5 unseen sentences are translated exactly: \d+\.\d%$", done.stdout, re.M)
