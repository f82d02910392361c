"""`attnspec.suite`: a pytest class with one item per claim and dtype, or per claim on a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from attnspec.auditor import DEFAULT_SEED, Report, explained
from attnspec.errors import CannotRun, UsageError
from attnspec.kept_cases import keep_cases
from attnspec.properties.claim import Claim
from attnspec.properties.claim import select as chosen_claims
from attnspec.properties.verdict import Level, Record, Verdict, failing_levels
from attnspec.report.terminal import failure
from attnspec.target import DECLARATIONS, declarations, kind_of, wrap
from attnspec.worker import InProcess


class _Suite:
    """The function of one suite; it is loaded and probed at the first item that runs, once a process."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], fail_on: Level) -> None:
        self.function, self.options, self.fail_on = function, options, fail_on

    @cached_property
    def runner(self) -> InProcess:
        loaded = wrap(self.function, self.options)
        return InProcess(loaded.name, self.options, loaded)

    def run(self, claim: Claim, dtype: str, profile: str, seed: int) -> None:
        """Runs one item. A must is failed, a should is expected to fail, what does not apply is skipped."""
        try:
            report = Report(self.runner.target, self.options, profile, seed, profile=self.runner.profile())
        except CannotRun as error:
            pytest.fail(f"UNKNOWN {claim.id}: {error}", pytrace=False)
        record = explained(report, claim, dtype or self.runner.profile()["dtypes"][0], self.runner)
        keep_cases(report, Path.cwd())
        self._judge(record, report)

    def _judge(self, record: Record, report: Report) -> None:
        match record.verdict:
            case Verdict.NOT_APPLICABLE:
                pytest.skip(str(record.reason))
            case Verdict.UNKNOWN if str(record.reason).startswith("vacuous"):
                pytest.skip(str(record.reason))  # a defect of the claim, not of the function
            case Verdict.UNKNOWN:
                pytest.fail(f"UNKNOWN {record.claim}: {record.reason}", pytrace=False)
            case Verdict.VIOLATED:
                text = failure([record], report) or str(record.evidence)
                if record.level in failing_levels(self.fail_on):
                    pytest.fail(text, pytrace=False)
                pytest.xfail(f"{record.level}: {text}")


def suite(
    function: Callable[..., Any],
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    expected: Mapping[str, str] | None = None,
    fail_on: Level = "must",
    **options: Any,
) -> type:
    """A test class for an attention function or a language model: `TestMine = attnspec.suite(my_attention, layout="bthd")`.

    One item per claim and dtype, `TestMine::test[mask.causal-float32]`; one per claim for a model, an object with `logits` or
    a class of such, which has a dtype of its own: `TestMine::test[cache.crop]`. `expected` maps a claim to the reason why it
    is known to fail: its items are strict xfails. `options` are declarations as on the command line (`docs/conventions.md`).

    Errors: UsageError for an unknown option or value; UnknownClaim for a claim that does not exist.
    """
    declared = declarations(options)
    expected = expected or {}
    for known in expected:
        chosen_claims((known,), ())
    subject = _Suite(function, options, fail_on)
    dtypes = declared.get("dtypes", DECLARATIONS["dtypes"])
    items = []
    kind = declared.get("kind") or kind_of(function)
    for claim in (c for c in chosen_claims(tuple(select), tuple(ignore)) if c.applies_to(kind)):
        marks = [pytest.mark.attnspec]
        if (reason := expected.get(claim.id, expected.get(claim.family))) is not None:
            marks.append(pytest.mark.xfail(reason=reason, strict=claim.id in expected))
        offered = claim.dtypes_of(dtypes) if kind == "attention" else ("",)
        for dtype in offered if claim.given is not None else offered[-1:]:  # observed once, whatever the dtype
            items.append(pytest.param(claim, dtype, id="-".join(filter(None, (claim.id, dtype))), marks=marks))
    if not items:
        raise UsageError(f"suite(select={list(select)}, ignore={list(ignore)}): no claim is left")

    class TestSuite:
        @pytest.mark.parametrize(("claim", "dtype"), items)
        def test(self, claim: Claim, dtype: str, request: pytest.FixtureRequest) -> None:
            option = request.config.getoption
            wanted = option("--attnspec-select")
            if wanted and claim.id not in {c.id for c in chosen_claims(tuple(wanted), ())}:
                pytest.skip("not selected by --attnspec-select")
            seed = option("--attnspec-seed")
            subject.run(claim, dtype, option("--attnspec-profile") or "quick", DEFAULT_SEED if seed is None else seed)

    TestSuite.__doc__ = f"Claims on {getattr(function, '__name__', function)}."
    return TestSuite
