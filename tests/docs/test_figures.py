"""The notes' figures: the page is current, each verdict is what a reader finds by hand, and a wrong figure is found."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from attnspec.properties.verdict import Verdict
from attnspec.reference.attention import attention

ROOT = Path(__file__).resolve().parents[2]

# By hand, from the pages themselves.
VERDICTS = {
    "softmax_of_4_and_5": "right",
    "softmax_of_1_and_10": "right",
    "variance_of_tens": "right, as population variance",
    "variance_of_tenths": "wrong as read",
    "dot_product_of_two": "illegible in part",
    "scores_of_three_words": "right",
    "query_of_money": "wrong",
    "query_of_bank": "wrong",
    "key_of_money": "right",
    "key_of_bank": "right",
    "value_of_money": "right, as 4 in the corner of W_v",
    "value_of_bank": "wrong",
    "score_of_bank_by_hand": "illegible in part",
    "scores_of_both_words": "wrong",
    "first_scaled_score": "wrong",
    "second_scaled_score": "wrong",
    "weights_of_both_scores": "wrong",
    "row_of_you": "not attention weights",
    "row_in_per_cent": "attention weights, as fractions",
    "row_of_bank_1": "not attention weights",
    "row_of_bank_2": "attention weights",
    "row_of_money": "attention weights",
    "row_of_bank_3": "attention weights",
    "row_of_grows": "not attention weights",
    "row_of_river": "attention weights",
    "row_of_bank_4": "attention weights",
    "row_of_flows": "attention weights",
    "row_of_now": "attention weights",
    "row_of_are": "attention weights",
    "row_of_you_2": "not attention weights",
    "number_of_alphas": "right, as the product",
    "sizes_of_additive_attention": "right",
    "runs_for_3_words": "right",
    "runs_for_300_words": "right",
    "loss_of_third_step": "illegible in part",
    "total_loss": "illegible in part",
    "average_loss": "wrong",
    "embedding_of_apple": "not their average",
    "weights_without_exp": "false as stated",
    "all_are_autoregressive": "false as stated",
    "training_is_sequential": "false as stated",
    "inference_is_one_at_a_time": "true of the dependencies, not of the runs",
    "summaries_fail": "not measured",
}
TRUTHS = {  # what the page must show, calculated on paper
    "variance_of_tens": "population variance: 400; sample variance: 466.667",
    "variance_of_tenths": "population variance: 4; sample variance: 4.66667",
    "query_of_money": "11, 16",
    "query_of_bank": "21, 15",
    "value_of_bank": "42, 12",
    "first_scaled_score": "7.07107; without a root: 5",
    "second_scaled_score": "22.6274",
    "row_of_you": "sum 0.91",
    "row_in_per_cent": "sum 0.01; fractions: sum 1",
    "row_of_bank_1": "sum 1.1",
    "row_of_grows": "sum 0.1",
    "row_of_you_2": "sum 1.1",
    "runs_for_300_words": "301",
    "average_loss": "0.796667",
    "embedding_of_apple": "0.725, 0.05",
}
ROWS = [name for name in VERDICTS if name.startswith("row_")]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate_figures", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures(generate: ModuleType) -> ModuleType:
    module = generate.beside("figures")
    assert isinstance(module, ModuleType)
    return module


@pytest.fixture(scope="module")
def kinds(generate: ModuleType) -> ModuleType:
    module = generate.beside("figure_kinds")
    assert isinstance(module, ModuleType)
    return module


def test_page_is_current(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "figures.md").read_text(encoding="utf-8") == generate.figures_page()


def test_every_figure_has_its_verdict(figures: ModuleType) -> None:
    assert {name: it.found().verdict for name, it in figures.FIGURES.items()} == VERDICTS


@pytest.mark.parametrize("name", TRUTHS)
def test_recomputed(figures: ModuleType, name: str) -> None:
    assert figures.FIGURES[name].found().recomputed == TRUTHS[name]


def test_all_scores_of_the_worked_example(figures: ModuleType) -> None:
    assert "[[691, 1086], [1086, 1467]]" in figures.FIGURES["scores_of_both_words"].found().why


@pytest.mark.parametrize("name", [n for n, verdict in VERDICTS.items() if verdict.startswith("right")])
def test_one_digit_more_or_less_is_not_right(figures: ModuleType, name: str) -> None:
    it = figures.FIGURES[name]
    for i, number in enumerate(it.numbers):
        for off in (-1, 1):
            wrong = Decimal(number) + off * Decimal(1).scaleb(int(Decimal(number).as_tuple().exponent))
            planted = replace(it, says=" ".join([*it.numbers[:i], str(wrong), *it.numbers[i + 1 :]]))
            assert not planted.found().verdict.startswith("right"), planted.says


@pytest.mark.parametrize("name", [n for n in ROWS if VERDICTS[n] == "attention weights"])
def test_a_row_that_is_off_by_a_hundredth_is_caught(figures: ModuleType, name: str) -> None:
    it = figures.FIGURES[name]
    wrong = [str(Decimal(it.numbers[0]) + Decimal("0.01")), *it.numbers[1:]]
    found = replace(it, says=" ".join(wrong)).found()
    assert found.verdict == "not attention weights"
    assert [r.claim for audit in found.audits for r in audit.violations] == ["softmax.rows-sum-to-one"]


def test_a_row_that_is_put_right_passes(figures: ModuleType) -> None:
    assert replace(figures.FIGURES["row_of_you"], says="15 75 10").found().verdict == "attention weights"


def test_negative_weights_are_caught_though_they_sum_to_one(figures: ModuleType) -> None:
    assert replace(figures.FIGURES["row_of_now"], says="-0.2 0.5 0.7").found().verdict == "not attention weights"


def test_the_finding_names_the_sum(figures: ModuleType, kinds: ModuleType) -> None:
    (audit,) = figures.FIGURES["row_of_you"].found().audits
    against = kinds.evidence(audit)
    assert (against.what, against.got, against.expected) == ("sum of a row's weights", 0.91, 1.0)
    assert audit.violations[0].case.sizes.S == 3
    assert "got       0.91" in figures.page()


def test_a_row_that_no_case_reaches_is_not_passed(kinds: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="no case with 40 keys was drawn"):
        kinds.audited((1 / 40,) * 40)


def test_what_is_not_decided_is_no_verdict(kinds: ModuleType) -> None:
    report = kinds.audited((0.7, 0.2, 0.1))
    record = msgspec.structs.replace(report.records[0], verdict=Verdict.UNKNOWN, reason="crashed")
    with pytest.raises(RuntimeError, match="UNKNOWN"):
        kinds.evidence(replace(report, records=[record]))


def test_a_figure_is_listed_once(kinds: ModuleType) -> None:
    with pytest.raises(ValueError, match="'row_of_you': it is listed twice; give another name"):
        kinds.weights("row_of_you", "N0", "", "1")


def test_rounding_is_to_the_notes_digits(kinds: ModuleType) -> None:
    assert kinds.agrees(["0.8", "22.63"], [0.7967, 22.6274])
    assert not kinds.agrees(["0.7"], [0.7967])
    assert not kinds.agrees(["22.630"], [22.6274])
    assert not kinds.agrees(["1"], [1, 2])


def leaking(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    return attention(q, k, v).astype(q.dtype)


def test_statements_need_their_counterexample(figures: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    reverse: Callable[..., list[int]] = figures.reversed_in_parallel
    monkeypatch.setattr(figures, "reversed_in_parallel", lambda words, V: [*reverse(words, V)[:-1], 0])
    monkeypatch.setattr(figures, "masked", leaking)
    monkeypatch.setattr(figures, "language_model", lambda: (lambda t: [(w + 1) % 9 for w in t], list))  # no guess is right
    monkeypatch.setattr(figures, "normalised_by_the_sum", lambda q, k, v: attention(q, k, v).astype(q.dtype))
    for name in ("all_are_autoregressive", "training_is_sequential", "inference_is_one_at_a_time", "weights_without_exp"):
        assert figures.FIGURES[name].found().verdict == "not refuted", name


@pytest.mark.parametrize("words", [1, 2, 7, 30])
def test_a_decoder_runs_once_a_word_and_once_for_the_end(figures: ModuleType, words: int) -> None:
    assert figures.decoder_runs(words) == words + 1


@pytest.mark.parametrize("ahead", range(6))
def test_guessing_ahead_changes_no_word(figures: ModuleType, ahead: int) -> None:
    model, draft = figures.language_model()
    one, runs = figures.one_at_a_time(model, 30)
    assert runs == 30
    several, fewer = figures.speculative(model, draft, 30, ahead)
    assert several == one
    assert (fewer < runs) == (ahead > 0)
