"""Models that are unusual, careless or broken in odd ways: a verdict with a reason or a message, and no false alarm."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import attnspec
from attnspec.errors import UsageError
from attnspec.properties.verdict import Record, Verdict

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# `given` is what the model gives of the right logits; `later` is how far it looks ahead.
MODELS = """
import math
import numpy as np


class Bag:
    vocab_size, max_length, later = 7, 20, 0.0

    def given(self, out):
        return out

    def logits(self, ids, attention_mask=None):
        return self.extend(ids, self.start(len(ids)), attention_mask)[0]

    def start(self, batch):
        return np.zeros((batch, int(self.vocab_size)))

    def extend(self, ids, state, attention_mask=None):
        V = int(self.vocab_size)
        words = np.eye(V)[ids] * (1 if attention_mask is None else attention_mask[..., None])
        counts = state[:, None] + words.cumsum(1)
        self.check(counts.sum(-1).max())
        table = np.cos(np.arange(V)[:, None] * np.arange(1, V + 1))
        out = np.tanh(counts) @ table
        if self.later:
            out[:, :-1] += self.later * table[ids[:, 1:]]
        return self.given(out), counts[:, -1]

    def check(self, length):
        if self.max_length and length > self.max_length:
            raise ValueError("more than max_length tokens")

    def reorder(self, state, index):
        return state[index]

    def fork(self, state):
        return state.copy()


class Only:
    '''Neither padding nor a state.'''

    vocab_size = 7

    def logits(self, ids):
        return np.array(Bag.logits(Unlimited(), ids))


class Unlimited(Bag):
    max_length = 0


# Right, in an odd way.

class TwoWords(Bag): vocab_size = 2
class ThreeWords(Bag): vocab_size = 3
class OneWord(Bag): vocab_size = 1
class TwoTokens(Bag): tokens = (3, 5)
class OneToken(Bag): tokens = (3, 4)
class FiveTokens(Bag): max_length = 5
class NumpyNumbers(Bag): vocab_size, max_length = np.int32(7), 1e30

class Huge(Bag):
    def given(self, out): return out * 1e300

class NearTheLargest(Bag):
    def given(self, out): return out / 20 * 1.7e308

class Tiny(Bag):
    def given(self, out): return out * 1e-300

class AWordIsNaN(Bag):
    def given(self, out): return np.where(np.arange(7) == 2, np.nan, out)

class AWordIsNever(Bag):
    def given(self, out): return np.where(np.arange(7) == 2, -np.inf, out)

class NaNAfterAWord(Only):
    def logits(self, ids): return np.where((ids == 3)[..., None], np.nan, super().logits(ids))

class OneBuffer(Bag):
    '''What it gave is overwritten by the next call of that shape.'''
    buffers = {}
    def given(self, out):
        kept = self.buffers.setdefault(out.shape, np.empty(out.shape))
        kept[:] = out
        return kept

class Transposed(Bag):
    def given(self, out): return np.asfortranarray(out)

class ReadOnly(Bag):
    def given(self, out): out.setflags(write=False); return out

class WritesIds(Only):
    def logits(self, ids):
        out = super().logits(ids)
        ids[:] = 0
        return out

class ViewOfIds(Only):
    '''The bits of the ids read as numbers, in their memory.'''
    def logits(self, ids): return np.broadcast_to(ids.view(np.float64)[..., None], (*ids.shape, 7))

class OneRow(Only):
    def logits(self, ids):
        if len(ids) > 1: raise ValueError("one row at a time")
        return super().logits(ids)

class FirstRow(Only):
    def logits(self, ids): return super().logits(ids)[:1]

class Prints(Only):
    def logits(self, ids): print("x" * 1000); return super().logits(ids)


# Without a limit although there is one.

class Lax(Bag):
    def check(self, length): pass

class Lax1(Lax): max_length = 1
class Lax2(Lax): max_length = 2
class Lax3(Lax): max_length = 3
class Lax4(Lax): max_length = 4


# Wrong, behind an odd way.

class LeaksTwoWords(TwoWords): later = 0.001
class LeaksHuge(Huge): later = 0.001
class LeaksTiny(Tiny): later = 0.001
class LeaksBesideNaN(AWordIsNaN): later = 0.001
class LeaksBesideNever(AWordIsNever): later = 0.001
class LeaksFromOneBuffer(OneBuffer): later = 0.001

class LeaksNaN(Only):
    bad = np.nan
    def logits(self, ids):
        out = super().logits(ids)
        out[:, :-1][ids[:, 1:] == 3] = self.bad
        return out

class LeaksInfinity(LeaksNaN): bad = np.inf

class LeaksInOneRow(OneRow):
    def logits(self, ids): return super().logits(ids) + 0.001 * ids[:, -1:, None]

class FirstRowForAll(Only):
    def logits(self, ids): return np.repeat(super().logits(ids)[:1], len(ids), axis=0)

class Noise(Only):
    rng = np.random.default_rng(3)
    def logits(self, ids): return super().logits(ids) + self.rng.normal(size=(*ids.shape, 7))


# Cannot be audited.

class AllNaN(Bag):
    def given(self, out): return out * np.nan

class AllInfinite(Bag):
    def given(self, out): return np.full_like(out, np.inf)

class Zeros(Bag):
    def given(self, out): return out * 0

class Ids(Only):
    def logits(self, ids): return np.broadcast_to(ids[..., None], (*ids.shape, 7))

class Complex(Only):
    def logits(self, ids): return super().logits(ids) * 1j

class Objects(Only):
    def logits(self, ids): return super().logits(ids).astype(object)

class Lists(Only):
    def logits(self, ids): return super().logits(ids).tolist()

class Nothing(Only):
    def logits(self, ids): pass

class ForEver(Only):
    def logits(self, ids): return self.logits(ids)

class Exits(Only):
    def logits(self, ids): raise SystemExit(0)

class OneTokenLong(Bag): max_length = 1
class TwoTokensLong(Bag): max_length = 2


# What they say of themselves cannot be.

class NoWords(Bag): vocab_size = 0
class FewerWords(Bag): vocab_size = -3
class InWords(Bag): vocab_size = "7"
class HalfAWord(Bag): vocab_size = 7.5
class Unknown(Bag): vocab_size = None
class Below(Bag): max_length = -1
class Long(Bag): max_length = "long"
class Endless(Bag): max_length = math.inf
class NoTokens(Bag): tokens = (3, 3)
class Backwards(Bag): tokens = (5, 3)
class TooMany(Bag): tokens = (0, 8)
class NoRange(Bag): tokens = 5
class Anything:
    def __getattr__(self, name): return lambda *ids: None
class Raises(Only):
    @property
    def vocab_size(self): raise RuntimeError("no configuration")
class NoMethod:
    vocab_size, logits = 7, 5
"""

RIGHT = [
    "TwoWords",
    "ThreeWords",
    "TwoTokens",
    "FiveTokens",
    "NumpyNumbers",
    "Huge",
    "NearTheLargest",
    "Tiny",
    "AWordIsNaN",
    "AWordIsNever",
    "NaNAfterAWord",
    "OneBuffer",
    "Transposed",
    "ReadOnly",
    "ViewOfIds",
    "OneRow",
    "FirstRow",
    "Prints",
]


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "hostile.py").write_text(MODELS)
    monkeypatch.chdir(folder)
    return folder


def audited(name: str) -> attnspec.Report:
    """In this process, where a warning is an error; whatever the verdicts, none may be owed to an error of ours."""
    report = attnspec.audit(f"hostile.py::{name}", in_process=True)
    for record in report.records:
        assert record.exception is None, record.exception
        assert record.verdict in (Verdict.HOLDS, Verdict.VIOLATED) or record.reason
        assert not str(record.reason).startswith(("error", "flaky")), record.reason
    return report


def found(report: attnspec.Report) -> dict[str, Record]:
    return {record.claim: record for record in report.records}


@pytest.mark.parametrize("name", RIGHT)
def test_no_false_alarm(name: str) -> None:
    report = audited(name)
    assert not report.violations
    assert report.exit_code == 0
    assert found(report)["mask.prefix-alone"].verdict == "HOLDS"  # not vacuous: what was compared could have differed
    assert {str(r.reason)[:7] for r in report.records if r.verdict == "UNKNOWN"} <= {"vacuous"}


@pytest.mark.parametrize("name", ["OneWord", "OneToken"])
def test_of_one_word_no_token_can_be_another(name: str) -> None:
    records = found(audited(name))
    for claim in ("mask.logits-causal", "mask.padding-content"):
        assert records[claim].verdict == "NOT APPLICABLE"
        assert records[claim].reason == "the model takes one word only, and no token can be another"
    assert records["cache.step-by-step"].verdict == "HOLDS"
    assert records["batch.other-rows"].verdict == "UNKNOWN"


def test_short_limits() -> None:
    for most in (1, 2):
        record = found(audited(f"Lax{most}"))["cache.overflow-raises"]
        assert record.verdict == "NOT APPLICABLE"
        assert str(record.reason).startswith(f"max_length is {most}: ")
    for most in (3, 4):
        report = audited(f"Lax{most}")
        assert [r.claim for r in report.violations] == ["cache.overflow-raises"]
        assert report.exit_code == 0  # a should
    assert found(audited("Lax1"))["cache.room-for-every-row"].verdict == "NOT APPLICABLE"


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("LeaksTwoWords", "mask.logits-causal"),
        ("LeaksHuge", "mask.logits-causal"),
        ("LeaksTiny", "mask.logits-causal"),
        ("LeaksBesideNaN", "mask.logits-causal"),
        ("LeaksBesideNever", "mask.logits-causal"),
        ("LeaksFromOneBuffer", "mask.logits-causal"),
        ("LeaksNaN", "mask.logits-causal"),
        ("LeaksInfinity", "mask.logits-causal"),
        ("LeaksInOneRow", "mask.prefix-alone"),
        ("FirstRowForAll", "batch.row-alone"),
        ("Noise", "robust.same-logits-twice"),
    ],
)
def test_what_is_wrong_is_found_all_the_same(name: str, claim: str) -> None:
    assert claim in {r.claim for r in audited(name).violations}


@pytest.mark.parametrize("name", ["LeaksNaN", "LeaksInfinity", "LeaksHuge", "LeaksBesideNever"])
def test_a_leak_that_is_no_number_is_mapped_and_drawn(here: Path, cli: Run, name: str) -> None:
    done = cli("audit", f"hostile.py::{name}", "--select", "mask.logits-causal", "--json", "run.ndjson", "--report", "report")
    assert done.returncode == 1
    assert "  token" in done.stdout
    assert len(list(here.glob(f".attnspec/cases/*{name}-leak.png"))) == 1
    assert "<svg" in (here / "report" / "index.html").read_text()
    assert ('"inf"' in (here / "run.ndjson").read_text()) == (name in ("LeaksNaN", "LeaksInfinity"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("AllNaN", "no logit is a finite number; the first is nan"),
        ("AllInfinite", "no logit is a finite number; the first is inf"),
        ("Zeros", "the logits are the same whatever was read"),
        ("Ids", "the logits are int64, expected one of float64, float32, float16, bfloat16"),
        ("Complex", "the logits are complex128, expected one of"),
        ("Objects", "the logits are object, expected one of"),
        ("Lists", "the logits are list, not an array of numpy"),
        ("Nothing", "the logits are NoneType, not an array of numpy"),
        ("ForEver", "RecursionError"),
        ("Exits", "SystemExit"),
        ("OneTokenLong", "more than max_length tokens"),
        ("TwoTokensLong", "more than max_length tokens"),
    ],
)
def test_what_cannot_be_audited_says_why(name: str, said: str) -> None:
    report = audited(name)
    assert report.exit_code == 3
    assert said in str(report.cannot_run)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NoWords", "vocab_size=0 is not 1 or more"),
        ("FewerWords", "vocab_size=-3 is not 1 or more"),
        ("InWords", "vocab_size='7' (str) is not a whole number, 1 or more"),
        ("HalfAWord", "vocab_size=7.5 (float) is not a whole number"),
        ("Unknown", "vocab_size=None (NoneType) is not a whole number"),
        ("Below", "max_length=-1 is not 0 or more; where there is no limit, leave it out"),
        ("Long", "max_length='long' (str) is not a whole number, 0 or more"),
        ("Endless", "max_length=inf (float) is not a whole number"),
        ("NoTokens", "tokens=(3, 3) is no range (low, high) of ids with 0 <= low < high <= vocab_size=7"),
        ("Backwards", "tokens=(5, 3) is no range"),
        ("TooMany", "tokens=(0, 8) is no range"),
        ("NoRange", "tokens=5 is no range"),
        ("Anything", "(function) is not a whole number"),
        ("Raises", "vocab_size raises RuntimeError: no configuration"),
        ("NoMethod", "is a NoMethod, not callable"),
    ],
)
def test_what_cannot_be_is_a_message(name: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        attnspec.audit(f"hostile.py::{name}", in_process=True)
    assert f"target 'hostile.py::{name}'" in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(("name", "code"), [("Raises", 2), ("Complex", 3), ("AWordIsNaN", 0), ("Exits", 3), ("LeaksNaN", 1)])
def test_the_command_says_it_without_a_warning(cli: Run, name: str, code: int) -> None:
    done = cli("audit", f"hostile.py::{name}")
    assert done.returncode == code
    assert "Warning" not in done.stdout + done.stderr
    assert "error of attnspec" not in done.stdout + done.stderr


def test_ids_that_a_call_writes_to() -> None:
    """The caller's ids are not the model's to write to; all else is right."""
    report = audited("WritesIds")
    assert {record.claim for record in report.violations} == {"robust.ids-unchanged"}
