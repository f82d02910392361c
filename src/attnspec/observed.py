"""Claims without cases of their own: decided by probing, and by what was seen while the other claims ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attnspec.function import INTERNAL
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim
from attnspec.properties.subject import Profile
from attnspec.properties.verdict import Evidence, Level, Observation, Record, Verdict
from attnspec.refusals import EDGE, UNEVEN

Records = Sequence[Record]
Finding = tuple[Evidence, Case | None]
Observer = Callable[[Records, Profile], Finding | None]

# Errors that come from inside a function rather than from a check of its arguments (engine 6).
FROM_INSIDE = {e.__name__ for e in INTERNAL} | {"UnboundLocalError"}


# Conventions that say nothing of a subject that neither declares nor promises them.
ABOUT = {
    "convention.mask": "mask",
    "convention.causal": "causal",
    "convention.scale": "scale",
    "convention.group-order": "group_order",
}


def decide(claim: Claim, records: Records, profile: Profile, record: Record) -> None:
    """Fills in the verdict of a claim without cases."""
    exercised = any(r.verdict in (Verdict.HOLDS, Verdict.VIOLATED) for r in records)
    if claim.id == "convention.consistent":
        record.level = consistent_level(profile)
    if (reason := claim.lacking(profile)) is not None:
        record.verdict, record.reason = Verdict.NOT_APPLICABLE, reason
    elif (name := ABOUT.get(claim.id)) is not None and not profile.promises(name):
        record.verdict, record.reason = Verdict.NOT_APPLICABLE, "nothing is declared or promised about it"
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
            if c.convention == name and not c.where:
                what = f"{name.replace('_', ' ')} ({profile.settings[name].origin})" if name in profile.settings else name
                why = "what is declared or promised is kept"
                return Evidence(what, got=f"{c.got}, by probing", expected=c.expected, why=why), None
        return None

    return find


def _inconsistent(records: Records, profile: Profile) -> Finding | None:
    """A convention that is not the same everywhere: first one that is promised, since the level depends on it."""
    del records
    found = sorted((c for c in profile.contradictions if c.where), key=lambda c: not profile.promises(c.convention))
    for c in found:
        what = f"{c.convention.replace('_', ' ')} {c.where}"
        others = [f"{o.convention.replace('_', ' ')} is {o.got} {o.where}" for o in found if o is not c]
        why = "; ".join(["a convention is the same everywhere", *others])
        return Evidence(what, got=c.got, expected=f"{c.expected}, as probed in float32 at T = S", why=why), None
    return None


def consistent_level(profile: Profile) -> Level:
    """must where what differs is declared or promised (engine 2)."""
    return "must" if any(c.where and profile.promises(c.convention) for c in profile.contradictions) else "should"


def _dropout(records: Records, profile: Profile) -> Finding | None:
    if (found := _contradiction("dropout")(records, profile)) is not None:
        return found
    if "without effect" not in str(profile.lacks("dropout")):
        return None
    return Evidence(
        "a dropout rate of 0.5", got="accepted without effect", expected="weights are dropped", why="worth knowing"
    ), None


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
    found = _seen(records, lambda o: o.kind == "refusal" and o.type in FROM_INSIDE and o.condition not in EDGE, wanted)
    for feature, reason in profile.refusals.items():
        if found is None and feature != "grouped" and reason.removeprefix("refuses: ").partition(":")[0] in FROM_INSIDE:
            found = (
                Evidence(feature, got=reason.removeprefix("refuses: "), expected=wanted, why="none is allowed"),
                None,
            )
    return found


def _uneven_refusal(records: Records, profile: Profile) -> Finding | None:
    """A refusal that depends on sizes, batch, gradients or storage; not one of a dtype, or of two features together."""
    del profile
    wanted = "an output: the same features work otherwise"
    for record in records:
        for o in record.observations:
            if o.kind == "refusal" and o.condition in UNEVEN:
                what = f"{o.feature} (while checking {record.claim})"
                return Evidence(what, got=o.error, expected=wanted, why=f"the refusal depends on {o.condition}"), o.case
    return None


def promised(profile: Profile) -> list[str]:
    """The features that the subject declares or promises to offer."""
    kinds = profile.get("mask", ()) if profile.promises("mask") else ()
    wanted = [feature for feature, kind in (("mask", "bool"), ("bias", "bias")) if kind in kinds]
    wanted += ["grouped"] if profile.promises("grouped") and profile["grouped"] else []
    wanted += ["causal"] if profile.promises("causal") and profile["causal"] != "never" else []
    wanted += [d for d in profile["dtypes"] if d != "float32"] if profile.promises("dtypes") else []
    wanted += ["dropout"] if profile.promises("dropout") and profile["dropout"] == "argument" else []
    wanted += ["gradients"] if profile.promises("gradients") and profile["gradients"] == "vjp" else []
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
    "convention.mask": _contradiction("mask"),
    "convention.causal": _contradiction("causal"),
    "convention.scale": _contradiction("scale"),
    "convention.group-order": _contradiction("group_order"),
    "convention.dropout": _dropout,
    "convention.consistent": _inconsistent,
    "convention.output-dtype": _output_dtype,
    "contract.promised": _broken_promise,
    "robust.no-exception": _exception,
    "robust.clear-refusal": _unclear_refusal,
    "robust.uniform-refusal": _uneven_refusal,
}
