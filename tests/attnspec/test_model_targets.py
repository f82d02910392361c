"""Language models as targets: what they are taken for, what they offer, what an audit prints of a broken one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import attnspec
from attnspec.conventions import subject_of
from attnspec.errors import UsageError
from attnspec.impl.checkpoint import save
from attnspec.impl.config import TransformerConfig
from attnspec.impl.training import Trainer
from attnspec.impl.transformer import CausalLM
from attnspec.known_subjects import MODELS
from attnspec.properties import model_variants
from attnspec.properties.claim import claims
from attnspec.properties.model_mutants.cross import Translator
from attnspec.properties.model_mutants.offering import Offering
from attnspec.properties.model_mutants.variants import VARIANTS
from attnspec.properties.verdict import Verdict
from attnspec.small_models import MODELS as SMALL
from attnspec.small_models import NAMES, RECURRENT, TINY
from attnspec.small_models import model as small_model
from attnspec.target import declarations, load

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# A bag of words in NumPy: the logits are a function of the counts of the tokens so far.
MODEL = """
import numpy as np

TABLE = np.cos(np.arange(7)[:, None] * np.arange(1, 8))


class Bag:
    vocab_size, max_length = 7, 20

    def logits(self, ids, attention_mask=None):
        return self.extend(ids, self.start(len(ids)), attention_mask)[0]

    def start(self, batch):
        return np.zeros((batch, 7))

    def extend(self, ids, state, attention_mask=None):
        words = np.eye(7)[ids] * (1 if attention_mask is None else attention_mask[..., None])
        counts = state[:, None] + words.cumsum(1)
        if counts.sum(-1).max() > self.max_length:
            raise ValueError("more than max_length tokens")
        return np.tanh(counts) @ TABLE, counts[:, -1]

    def reorder(self, state, index):
        return state[index]

    def fork(self, state):
        return state.copy()


class Forgets(Bag):
    def reorder(self, state, index):
        return state


class OnlyLogits:
    vocab_size = 7

    def logits(self, ids):
        return Bag().logits(ids)


class LooksAhead(OnlyLogits):
    def logits(self, ids):
        return Bag().logits(ids) + 0.001 * TABLE[ids[:, -1:]]


class NoWords:
    def logits(self, ids):
        return None


class Half(OnlyLogits):
    def start(self, batch):
        return None


class Raises(OnlyLogits):
    def logits(self, ids):
        raise RuntimeError("no luck")


class Narrow(OnlyLogits):
    def logits(self, ids):
        return Bag().logits(ids)[..., :3]


class Translates:
    vocab_size, max_length = 7, 20

    def encode(self, source, source_mask=None):
        words = np.eye(7)[source]
        return words.sum(1) if source_mask is None else (words * source_mask[..., None]).sum(1)

    def logits(self, source, target, source_mask=None, target_mask=None):
        return self.extend(target, self.start(self.encode(source, source_mask)), target_mask)[0]

    def start(self, memory, source_mask=None):
        return memory, Bag().start(len(memory))

    def extend(self, target, state, target_mask=None):
        out, counts = Bag().extend(target, state[1], target_mask)
        return out + np.sin(state[0] @ TABLE)[:, None], (state[0], counts)

    def reorder(self, state, index):
        return state[0][index], state[1][index]


class Confuses(Translates):
    def reorder(self, state, index):
        return state[0][np.arange(len(index)) % len(state[0])], state[1][index]


class ReadsPadding(Translates):
    def encode(self, source, source_mask=None):
        return super().encode(source)
"""


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "bag.py").write_text(MODEL)
    monkeypatch.chdir(folder)
    return folder


# Claims on what a model may offer beside logits and a state, of which the models below offer nothing.
MORE = {
    "embed.words-renamed",
    "softmax.attention-rows",
    "mask.attention-skips-padding",
    "mask.generated-beside-padding",
    "mask.logits-jacobian",
    "mask.routes-agree-on-padding",
    "cache.beams-are-rescored",
    "cache.generated-is-greedy",
    "cache.kinds-agree",
    "cache.kinds-are-filled",
    "cache.kinds-fork",
    "cache.kinds-reorder",
    "cache.second-turn",
    "layer.halves-make-the-whole",
    "grad.checkpointing",
    "grad.finite-differences",
    "grad.micro-batches",
    "train.loss-is-nll",
    "train.loss-leaves-padding-out",
    "robust.half-precision",
    "robust.routes-agree",
    "robust.save-and-load",
}


def words(report: attnspec.Report) -> dict[str, str]:
    return {r.claim: r.verdict.value for r in report.records}


def test_a_model_is_known_by_its_methods(here: Path) -> None:
    report = attnspec.audit("bag.py::Bag")
    assert report.exit_code == 0
    assert report.profile is not None
    assert report.profile["arrays"] == "numpy"
    assert report.profile.lacks("crop") == "not offered: no method crop"
    assert {c for c, word in words(report).items() if word != "HOLDS"} == {"cache.crop"} | MORE
    assert set(words(report)) == {c.id for c in claims().values() if c.of == "lm"}


def test_a_model_without_a_cache_has_the_claims_that_need_none(here: Path) -> None:
    found = words(attnspec.audit("bag.py::OnlyLogits"))
    holding = {claim for claim, word in found.items() if word == "HOLDS"}
    assert holding == {
        "mask.logits-causal",
        "mask.prefix-alone",
        "batch.row-alone",
        "batch.other-rows",
        "robust.ids-unchanged",
        "robust.same-logits-twice",
        "robust.surroundings-of-models",
    }


def test_a_translator_is_a_language_model_with_sources(here: Path) -> None:
    found = words(attnspec.audit("bag.py::Translates"))
    without_a_method = {"cache.crop", "cache.fork"}
    assert {c for c, word in found.items() if word != "HOLDS"} == without_a_method | MORE
    assert set(found) == {c.id for c in claims().values() if c.of in ("lm", "seq2seq")}


def test_the_translator_from_which_defects_are_made_is_right() -> None:
    report = attnspec.audit(Translator())
    assert {c for c, word in words(report).items() if word != "HOLDS"} == MORE - {"mask.logits-jacobian"}
    assert report.exit_code == 0


def test_what_offers_everything_is_right() -> None:
    report = attnspec.audit(Offering())
    assert {r.verdict for r in report.records} == {Verdict.HOLDS}
    assert {r.claim for r in report.records} >= MORE


def test_rows_that_lose_their_source(here: Path) -> None:
    assert {r.claim for r in attnspec.audit("bag.py::Confuses").violations} == {"cross.rows-keep-their-source"}
    assert {r.claim for r in attnspec.audit("bag.py::ReadsPadding").violations} == {"cross.source-padding"}


def test_a_small_leak_is_a_violation(here: Path) -> None:
    report = attnspec.audit("bag.py::LooksAhead")
    assert {r.claim for r in report.violations} == {"mask.logits-causal", "mask.prefix-alone"}


LAYERS = """
import torch


class Mixes(torch.nn.Module):
    def forward(self, x):
        return x.cumsum(1) / torch.arange(1, 1 + x.shape[1])[:, None]


class Leaks(Mixes):
    def forward(self, x):
        return super().forward(x) + 1e-3 * torch.roll(x, -1, dims=1)


class Stack(torch.nn.Module):
    vocab_size = 7

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.embedding = torch.nn.Embedding.from_pretrained(torch.randn(7, 5, generator=generator, dtype=torch.float64))
        self.first, self.second, self.third = Mixes(), Leaks(), Mixes()

    def logits(self, ids):
        return self.third(self.second(self.first(self.embedding(ids)).tanh()).tanh()) @ self.embedding.weight.T
"""


def test_a_leak_is_localised(here: Path, cli: Run) -> None:
    """Which token reaches which position, how far, and the first module in which the future reaches the past."""
    (here / "layers.py").write_text(LAYERS)
    done = cli("audit", "layers.py::Stack", "--select", "mask.logits-causal", "--json", "out.ndjson")
    assert done.returncode == 1
    assert "First in   second" in done.stdout
    lines = map(json.loads, (here / "out.ndjson").read_text().splitlines())
    (found,) = (line["leak"] for line in lines if line["format"] == "attnspec-result/1")
    influence = np.array(found["influence"])
    below = np.tril(np.ones_like(influence), -1) > 0
    reached = np.diag(np.ones(len(influence) - 1), -1) > 0  # the roll: each token reaches the position before it
    assert ((influence > 0) & below == reached).all()
    assert 0 < influence[below].max() < 0.01
    assert (influence[~below] > 0).all()
    shown = [line.split()[2:] for line in done.stdout.splitlines() if line.startswith("  token")]
    assert shown == [[".ox"[1 + below[t, s]] if x else "." for s, x in enumerate(row)] for t, row in enumerate(influence)]


def test_a_run_goes_on_where_it_was_interrupted(here: Path, cli: Run) -> None:
    """Targets that were finished are left out, what was broken off is done again, and the exit code is that of all."""
    few = ("--select", "batch", "--json", "run.ndjson")
    first = cli("audit", "bag.py::ReadsPadding", *few, "--select", "cross")
    assert first.returncode == 1
    whole = (here / "run.ndjson").read_text()
    half = cli("audit", "bag.py::Bag", "--select", "batch", "--json", "half.ndjson")
    assert half.returncode == 0
    broken = "".join(line + "\n" for line in (here / "half.ndjson").read_text().splitlines()[:2]) + '{"format": "attns'
    (here / "run.ndjson").write_text(whole + broken)
    second = cli("audit", "bag.py::ReadsPadding", "bag.py::Bag", *few, "--resume")
    assert second.returncode == 1
    assert "bag.py::ReadsPadding: done before, exit 1" in second.stdout
    assert "target bag.py::Bag" in second.stdout
    lines = [json.loads(line) for line in (here / "run.ndjson").read_text().splitlines()]
    assert [line["target"] for line in lines if "spec" in line and "claim" not in line] == [
        "bag.py::ReadsPadding",
        "bag.py::Bag",
    ]
    assert sum("summary" in line for line in lines) == 2
    third = cli("audit", "bag.py::ReadsPadding", "bag.py::Bag", *few, "--resume")
    assert third.returncode == 1
    assert "target bag.py" not in third.stdout
    other = cli("audit", "bag.py::Bag", "--seed", "1", *few, "--resume")  # another seed is another run
    assert "target bag.py::Bag" in other.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--resume",), "name that file too"), (("--resume", "--json", "bag.py"), "bag.py:1: not a line of a run")],
)
def test_a_run_that_cannot_go_on(here: Path, cli: Run, arguments: tuple[str, ...], said: str) -> None:
    done = cli("audit", "bag.py::Bag", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert (here / "bag.py").read_text() == MODEL  # nothing was lost


def test_a_slip_loses_no_results(here: Path, cli: Run) -> None:
    (here / "run.ndjson").write_text("what an earlier run found\n")
    assert cli("audit", "bag.py::Bug", "--json", "run.ndjson").returncode == 2
    assert (here / "run.ndjson").read_text() == "what an earlier run found\n"


def test_the_program_is_short_and_the_script_stands_alone(here: Path, cli: Run) -> None:
    done = cli("audit", "bag.py::Forgets", "--select", "cache")
    assert done.returncode == 1
    assert "reorder" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "rows: " in line and "seed" in line][:1]
    assert line.count(",") <= 4, line
    prefix = done.stdout.partition("attnspec replay ")[2][:4]
    replayed = cli("replay", prefix)
    assert replayed.returncode == 1
    assert "cache.reorder" in replayed.stdout
    (script,) = sorted((here / ".attnspec" / "cases").glob(f"{prefix}*.py"))
    text = script.read_text()
    assert "attnspec" not in "".join(line for line in text.splitlines() if "import" in line)
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=here)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NoWords", "has no 'vocab_size'"),
        ("Half", "come together"),
    ],
)
def test_what_no_language_model_lacks(here: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(f"bag.py::{name}", {})


@pytest.mark.parametrize(("name", "said"), [("Raises", "no luck"), ("Narrow", "expected [1, 5, 7]")])
def test_a_model_that_cannot_read_cannot_be_audited(here: Path, cli: Run, name: str, said: str) -> None:
    done = cli("audit", f"bag.py::{name}")
    assert done.returncode == 3
    assert said in done.stdout


# A search needs the word that ends it, and whoever wants another path through attention says so at each call.
OURS_HAS_NO = {
    "beams",
    "caches",
    "converse",
    "forked-caches",
    "generate",
    "generate-padded",
    "generate-padded-right",
    "reordered-caches",
    "routes",
}
RECURRENT_HAS_NO = {"attentions", "checkpointing", "crop", "grafted", "loss", "overflow", "padded-loss", "padded-loss-left"}


def test_our_own_models_offer_everything() -> None:
    for name in NAMES:
        profile = subject_of(load(f"impl:{name}", {})).profile
        missing = {f for f, reason in profile.features.items() if reason and "source" not in f}
        assert missing - OURS_HAS_NO == (RECURRENT_HAS_NO if name in RECURRENT else set()), name


def test_the_names_of_the_variants() -> None:
    assert list(model_variants.VARIANTS) == list(VARIANTS)


CORRECT = [target for target, _ in MODELS]
TURNS = 3  # each is looked at with every third commit, and at many seeds by `make alarms`


@pytest.mark.parametrize("target", CORRECT)
def test_no_alarm_on_a_correct_model(target: str, commit_seed: int) -> None:
    if (CORRECT.index(target) + commit_seed) % TURNS:
        pytest.skip("its turn comes with another commit")
    report = attnspec.audit(target, seed=commit_seed, profile="drawn", in_process=True)
    assert report.exit_code == 0
    assert {r.verdict for r in report.records} <= {Verdict.HOLDS, Verdict.NOT_APPLICABLE}


def test_a_checkpoint_of_ours_is_a_target(here: Path, cli: Run) -> None:
    """As it was trained, in a file of its own; a file that is none is the user's error."""
    plain = CausalLM(TransformerConfig(**TINY | SMALL["lm-rotary"])).double()
    plain.load_state_dict(small_model("lm-rotary").state_dict())
    save(here / "own.safetensors", Trainer(plain, lambda _: 1e-3, start_id=0))
    report = attnspec.audit("impl:own.safetensors", in_process=True)
    assert report.exit_code == 0
    assert words(report)["robust.save-and-load"] == "HOLDS"
    for name in ("none.safetensors", "bag.safetensors"):
        (here / "bag.safetensors").write_text(MODEL)
        done = cli("audit", f"impl:{name}")
        assert done.returncode == 2
        assert name in done.stderr


def test_fields_are_for_configurations(here: Path, cli: Run) -> None:
    done = cli("audit", "bag.py::Bag", "-o", "config.width=3")
    assert done.returncode == 2
    assert "config.width=3: bag.py::Bag is not made from a configuration" in done.stderr
    declared = declarations({"config.use_cache": "false", "config.rates": "[1, 2]", "config.hidden_act": "gelu"})
    assert declared == {"config.use_cache": False, "config.rates": [1, 2], "config.hidden_act": "gelu"}
