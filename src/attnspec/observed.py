"""Claims without cases of their own: decided by probing, and by what was seen while the other claims ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from attnspec.function import INTERNAL
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim
from attnspec.properties.subject import Profile
from attnspec.properties.verdict import Evidence, Observation, Record, Verdict

Records = Sequence[Record]
Finding = tuple[Evidence, Case | None]
Observer = Callable[[Records, Profile], Finding | None]

# Errors that come from inside a function rather than from a check of its arguments (engine 6).
FROM_INSIDE = {e.__name__ for e in INTERNAL} | {"UnboundLocalError"}


def decide(claim: Claim, records: Records, profile: Profile, record: Record) -> None:
    """Fills in the verdict of a claim without cases."""
    exercised = any(r.verdict in (Verdict.HOLDS, Verdict.VIOLATED) for r in records)
    if (reason := claim.lacking(profile)) is not None:
        record.verdict, record.reason = Verdict.NOT_APPLICABLE, reason
    elif (found := OBSERVERS[claim.id](records, profile)) is not None:
        record.verdict, (record.evidence, record.case) = Verdict.VIOLATED, found
    elif claim.id == "contract.promised" and not promised(profile):
        record.verdict, record.reason = Verdict.NOT_APPLICABLE, "nothing is declared or promised"
    elif (claim.family == "robust" or claim.id == "convention.output-dtype") and not exercised:
        record.verdict, record.reason = Verdict.NOT_APPLICABLE, "nothing else was exercised"
    else:
        record.verdict, record.decided_by, record.cases = Verdict.HOLDS, "exact", sum(r.cases for r in records)


def _seen(records: Records, keep: Callable[[Observation], bool], expected: str) -> Finding | None:
    """The first observation of that kind, as evidence."""
    for record in records:
        for o in record.observations:
            if keep(o):
                what = f"{o.feature} (while checking {record.claim})"
                return Evidence(what, got=o.error, expected=expected, why="none is allowed here"), o.case
    return None


def _contradiction(name: str) -> Observer:
    def find(records: Records, profile: Profile) -> Finding | None:
        del records
        for c in profile.contradictions:
            if c.convention == name:
                what = f"{name.replace('_', ' ')} ({profile.settings[name].origin})" if name in profile.settings else name
                why = "what is declared or promised is kept"
                return Evidence(what, got=f"{c.got}, by probing", expected=c.expected, why=why), None
        return None

    return find


def _polarity(records: Records, profile: Profile) -> Finding | None:
    if (found := _contradiction("polarity")(records, profile)) is not None:
        return found
    if profile.get("polarity") != "masked" or profile.promises("polarity"):
        return None
    return Evidence(
        "a boolean mask", got="True = masked out", expected="True = may attend", why="a convention worth knowing"
    ), None


def _output_dtype(records: Records, profile: Profile) -> Finding | None:
    del profile
    return _seen(records, lambda o: o.kind == "dtype", "the dtype of the queries")


def _exception(records: Records, profile: Profile) -> Finding | None:
    del profile
    return _seen(records, lambda o: o.kind == "exception", "an output: zeros of the same shapes give one")


def _unclear_refusal(records: Records, profile: Profile) -> Finding | None:
    wanted = "an error that says what is not offered"
    found = _seen(records, lambda o: o.kind == "refusal" and o.type in FROM_INSIDE, wanted)
    for feature, reason in profile.refusals.items():
        if found is None and feature != "grouped" and reason.removeprefix("refuses: ").partition(":")[0] in FROM_INSIDE:
            found = (
                Evidence(feature, got=reason.removeprefix("refuses: "), expected=wanted, why="none is allowed"),
                None,
            )
    return found


def _uneven_refusal(records: Records, profile: Profile) -> Finding | None:
    """A refusal met where probing had found the feature to work."""
    del profile
    found = _seen(records, lambda o: o.kind == "refusal", "an output: the same features work at other sizes")
    return None if found is None else (replace(found[0], why="a refusal should not depend on sizes"), found[1])


def promised(profile: Profile) -> list[str]:
    """The features that the subject declares or promises to offer."""
    kinds = profile.get("mask", ()) if profile.promises("mask") else ()
    wanted = [feature for feature, kind in (("mask", "bool"), ("bias", "bias")) if kind in kinds]
    wanted += ["grouped"] if profile.promises("grouped") and profile["grouped"] else []
    wanted += ["causal"] if profile.promises("causal") and profile["causal"] != "never" else []
    wanted += ["float64"] if profile.promises("dtypes") and "float64" in profile["dtypes"] else []
    return wanted


def _broken_promise(records: Records, profile: Profile) -> Finding | None:
    del records
    for feature in promised(profile):
        if (reason := profile.lacks(feature)) is not None:
            return Evidence(f"{feature}, promised", got=reason, expected="offered", why="what is promised is kept"), None
    return None


OBSERVERS: dict[str, Observer] = {
    "convention.layout": _contradiction("layout"),
    "convention.alignment": _contradiction("alignment"),
    "convention.empty-row": _contradiction("empty_row"),
    "convention.window": _contradiction("window"),
    "convention.precision": _contradiction("precision"),
    "convention.polarity": _polarity,
    "convention.output-dtype": _output_dtype,
    "contract.promised": _broken_promise,
    "robust.no-exception": _exception,
    "robust.clear-refusal": _unclear_refusal,
    "robust.uniform-refusal": _uneven_refusal,
}
