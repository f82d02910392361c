"""What a terminal shows: header, one line a claim, one block a distinct failure, the summary."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from attnspec import __version__
from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Claim, claims
from attnspec.properties.proofs.proof import proofs
from attnspec.properties.subject import Profile
from attnspec.properties.verdict import Leak, Record, Verdict
from attnspec.report.leakage import HOW

if TYPE_CHECKING:
    from attnspec.auditor import Report

INLINE = 64  # numbers of an array that are printed; a larger one is in the script
CAUSES = 3  # of the planted defects that fit equally well
WIDTH = 110  # of lines that are filled with words
BITS = {"float64": 53, "float32": 24, "bfloat16": 8, "float16": 11}
FAIL = {"must": "FAIL", "should": "WARN", "may": "NOTE"}
SHOWN = {Verdict.HOLDS: "OK", Verdict.UNKNOWN: "????", Verdict.NOT_APPLICABLE: "N/A"}


def render(report: Report, *, verbose: bool = False) -> str:
    """The whole report as plain text."""
    parts = [header(report)]
    if report.cannot_run is not None:
        return "\n".join([*parts, f"???? {report.cannot_run}", "exit 3"])
    if verbose and report.profile is not None:
        parts += [*profile_lines(report.profile), ""]
    parts += [line for i, records in report.by_claim().items() if (line := claim_line(i, records, verbose=verbose))]
    parts += [block for records in report.by_claim().values() if (block := failure(records, report))]
    notes = [f"note: {note}" for note in (report.profile.notes if report.profile else ())]
    return "\n".join([*parts, "", *notes, summary(report)])


def header(report: Report) -> str:
    options = "".join(f" -o {k}={v}" for k, v in report.options.items())
    kind = ""
    if report.profile is not None:
        lost = report.profile.refusals
        kind = f" ({report.profile.get('arrays')}, {report.profile.get('layout', 'language model')})"
        kind += f" | refuses {len(lost)} of {len(report.profile.features)} features" if lost else ""
    dtypes = "+".join(report.profile["dtypes"]) if report.profile else "?"
    target = f"{report.target}{options}{kind}"
    device = report.profile.get("device", "cpu") if report.profile else "cpu"
    return f"attnspec {__version__} | target {target} | profile {report.budget} | seed {report.seed} | {device} {dtypes}"


def profile_lines(profile: Profile) -> list[str]:
    """Each convention with its origin, then what is not offered or refused."""
    lines = [f"  {name:<18} {_plain(s.value):<34} {s.origin}" for name, s in sorted(profile.settings.items())]
    lines += [f"  {feature:<18} {reason}" for feature, reason in sorted(profile.features.items()) if reason]
    return lines


def _plain(value: object) -> str:
    if isinstance(value, dict):
        value = [f"{k}:{v}" for k, v in value.items()]
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def status(records: list[Record]) -> str:
    verdict = Verdict.merge(r.verdict for r in records)
    return FAIL[records[0].level] if verdict is Verdict.VIOLATED else SHOWN[verdict]


def claim_line(claim: str, records: list[Record], *, verbose: bool) -> str | None:
    """`mask.causal  FAIL  3 cases, shrunk to 2 tokens`; nothing for what is not applicable, unless verbose."""
    word = status(records)
    if word == "N/A" and not verbose:
        return None
    done = [r for r in records if r.verdict is not Verdict.NOT_APPLICABLE] or records
    observed = claims()[claim].given is None
    text = "by probing and while the others ran" if observed else f"{sum(r.cases for r in done)} cases"
    ratios = [r.ratio for r in done if r.ratio is not None]
    if word == "OK":
        text += f", error at most {max(float(x) for x in ratios):.2g} of the bound" if ratios else ""
        text += f" ({done[0].decided_by})" if verbose else ""
    elif word in FAIL.values():
        worst = next(r for r in done if r.verdict is Verdict.VIOLATED)
        text = f"implied by {worst.implied_by}" if worst.implied_by else text + _shrunk(worst)
    else:
        text = next((r.reason for r in done if r.reason), "")
    return f"  {claim:<30} {word:<5} {text}"


def _shrunk(record: Record) -> str:
    if record.case is None:
        return ""
    tokens = max(record.case.sizes.T, record.case.sizes.S)
    if steps := record.case.schedule:
        return f", shrunk to {len(steps)} step{'s' if len(steps) != 1 else ''}"
    return f", shrunk to {tokens} token{'s' if tokens != 1 else ''}"


def failure(records: list[Record], report: Report) -> str | None:
    """The block of one violated claim; nothing for one that holds or is implied by another."""
    worst = next((r for r in records if r.verdict is Verdict.VIOLATED), None)
    if worst is None or worst.implied_by or worst.evidence is None:
        return None
    claim = claims()[worst.claim]
    title = f" {claim.id}  ({worst.target}, {worst.dtype}) "
    lines = [
        "",
        title.center(96, "_"),
        f"Claim      {claim.statement}",
        f"Source     {claim.source}   (docs/claims.md, {claim.handle})",
        f"Verdict    VIOLATED ({worst.level})" + (f", minimal case {worst.case.id} below" if worst.case else ""),
        "",
    ]
    if worst.case is not None:
        lines += minimal_case(worst.case)
    e = worst.evidence
    where = f" at {list(e.at)}" if e.at else ""
    lines += [
        f"  {e.what}{where}",
        f"  got       {e.got}",
        f"  expected  {e.expected}",
        f"  allowed   {e.allowed}   ({e.why})",
        "",
    ]
    also = [r.dtype for r in records if r is not worst and r.verdict is Verdict.VIOLATED]
    if also:
        lines.append(f"Also fails {', '.join(also)}")
    lines += leakage(worst.leak)
    if worst.case is not None and worst.case.id in report.pictures:
        lines.append(f"Picture    {report.pictures[worst.case.id] or HOW}")
    lines += precision(worst)
    lines += dependence(worst, {f"in {dtype}" for dtype in also})
    lines += _filled("Implies", sorted({r.claim for r in report.records if r.implied_by == worst.claim}))
    lines += causes(worst)
    if worst.case is not None:
        lines += reproduce(worst.case, report)
    lines.append(f"Learn      attnspec explain {claim.id}")
    return "\n".join(lines)


def leakage(leak: Leak | None) -> list[str]:
    """The map of which token reaches which position, and where in the model the future first reaches the past."""
    if leak is None:
        return []
    size = len(leak.influence)
    signs = [
        "".join(" ." if not seen else " x" if s < t else " o" for s, seen in enumerate(row))
        for t, row in enumerate(leak.influence)
    ]
    worst = max((float(row[s]) for t, row in enumerate(leak.influence) for s in range(t)), default=0.0)
    rows = [f"  token {t:>3} {line}" for t, line in enumerate(signs)] if size <= 24 else []
    where = f"First in   {leak.module}" if leak.module else None
    head = f"Leak       {worst:.2g} of the largest logit; each row says which positions a token reaches (x: before it)"
    return [line for line in (head, *rows, where) if line]


def precision(record: Record) -> list[str]:
    """How far beyond a bound the error is, and how precise a computation it would fit."""
    if record.decided_by != "bound" or record.ratio is None:
        return []
    text = f"{float(record.ratio):.2g} of the bound"
    if record.equivalent_precision is not None:
        text += f"; plain calls are as if computed with {record.equivalent_precision:.0f} bits"
        text += f" ({record.dtype} has {BITS[record.dtype]})" if record.dtype in BITS else ""
        text += f": {record.fits}?" if record.fits else ""
    return [f"Error      {text}"]


def dependence(record: Record, told: Collection[str] = ()) -> list[str]:
    """With which changes of the minimal case the failure stays, and with which it goes; without what is told already."""
    if record.depends is None:
        return []
    return _filled("Fails too", [t for t in record.depends.not_on if t not in told]) + _filled("Holds", record.depends.on)


def _filled(word: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    lines = textwrap.wrap(", ".join(items), WIDTH - 11, break_long_words=False, break_on_hyphens=False)
    return [f"{word:<10} {lines[0]}", *(f"{'':<10} {line}" for line in lines[1:])]


def causes(record: Record) -> list[str]:
    from attnspec.properties.planted import describe

    if not record.causes:
        return []
    best = [row for row in record.causes if row[1] == record.causes[0][1]]
    shown = record.causes[:CAUSES] if len(best) > 1 else record.causes
    pattern = "exactly this pattern" if best[0][1] == best[0][2] else "the nearest pattern"
    count = f"{CAUSES} of {len(best)} planted defects" if len(best) > CAUSES else "planted defects"
    lines = [f"Likely cause ({count} with {pattern} of held and violated claims)"]
    for rank, (mutant, agreeing, of) in enumerate(shown, start=1):
        lines.append(f"  {rank}. {describe(mutant).imitates}   [{mutant}, {agreeing}/{of} claims agree]")
    return lines


def reproduce(case: Case, report: Report) -> list[str]:
    from attnspec.kept_cases import script_path

    lines = [f"Reproduce  attnspec replay {case.id[:4]}   (.attnspec/cases/{case.id}.json)"]
    text = report.scripts.get(case.id)
    if text is not None and len(text.splitlines()) <= 20 and max(map(len, text.splitlines())) <= 160:
        lines += ["           python - <<'PY'", *(f"           {line}" for line in text.splitlines()), "           PY"]
    elif text is not None:
        lines.append(f"           python {script_path(case, report.target)}")
    return lines


def minimal_case(case: Case) -> list[str]:
    """The case as small arrays and options, or as the program that a model went through."""
    if "ids" in case.values:
        padded = {"padding": "right", "left-padding": "left", "random": "anywhere"}
        side = f", padding {padded.get(case.mask.pattern, case.mask.pattern)}" if case.mask else ""
        few = ", few different tokens" if case.values["ids"].kind == "ties" else ""
        what = ", ".join(f"{op} {n}" for op, n in case.schedule) if case.schedule else f"{case.sizes.T} tokens at once"
        return [f"  {case.sizes.B} row{'s' if case.sizes.B != 1 else ''}: {what}{side}{few}, seed {case.seed}"]
    x = case.build()
    z = case.sizes
    stored = "" if case.storage == "plain" else f"  storage={case.storage}"
    lines = [f"  B={z.B} H={z.H} G={z.G} T={z.T} S={z.S} D={z.D} E={z.E}  {case.dtype}{stored}" + _options(x)]
    for name in ("q", "k", "v", "mask", "bias", "sinks"):
        array = getattr(x, name)
        if array is not None:
            lines.append(f"  {name} = {small(array)}")
    for plant in case.plant:
        where = {"after": f"after position {plant.t}", "other-rows": f"in batch rows other than {plant.t}"}.get(
            plant.where, plant.where
        )
        lines.append(f"  then {plant.array} changes {where}: {plant.value}")
    return lines


def _options(x: Inputs) -> str:
    chosen = {"causal": x.causal or None, "scale": x.scale, "window": x.window, "softcap": x.softcap}
    chosen |= {"dropout": x.dropout or None, "seed": x.seed if x.dropout else None}
    return "".join(f"  {k}={v}" for k, v in chosen.items() if v is not None)


def small(array: npt.NDArray[Any]) -> str:
    """An array with its leading axes of size one dropped, or its shape if it is large."""
    if array.size > INLINE:
        return f"{list(array.shape)} numbers, in the script"
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    values = array.astype(int) if array.dtype == bool else array
    return _row(values) if values.ndim else repr(values.item())


def _row(x: npt.NDArray[Any]) -> str:
    return "[" + ", ".join(_row(a) if a.ndim else f"{a:.6g}" for a in x) + "]"


def summary(report: Report) -> str:
    """How many claims apply, hold and do not."""
    words = [status(records) for records in report.by_claim().values()]
    implied = sum(
        status(records) == "FAIL" and any(r.implied_by for r in records if r.verdict is Verdict.VIOLATED)
        for records in report.by_claim().values()
    )
    counts = {w: words.count(w) for w in ("OK", "FAIL", "WARN", "NOTE", "????", "N/A")}
    applied = len(words) - counts["N/A"]
    text = f"{applied} claims apply: {counts['OK']} hold, {counts['FAIL']} violated"
    text += f" ({implied} of them implied by others)" if implied else ""
    for word, meaning in (("WARN", "should-level warnings"), ("NOTE", "notes"), ("????", "unknown")):
        text += f", {counts[word]} {meaning}" if counts[word] else ""
    text += f", {counts['N/A']} not applicable (see -v)" if counts["N/A"] else ""
    text += " | interrupted: what is printed is valid" if report.interrupted else ""
    return f"{text} | {report.seconds:.1f} s | exit {report.exit_code}"


def describe_claim(claim: Claim) -> list[str]:
    """A claim for `attnspec explain`."""
    lines = [f"{claim.id}   {claim.level}   {claim.handle}, idea {claim.idea}", "", claim.statement]
    if claim.explanation:
        lines += ["", claim.explanation]
    lines += [
        "",
        f"source     {claim.source}",
        f"decided by {claim.within}",
        f"needs      {', '.join(claim.needs) or 'nothing beyond a plain call'}",
        f"mutants    {', '.join(claim.mutants) or 'none'}",
    ]
    return lines + [f"proof      {p.id}, {p.holds}: {p.statement}" for p in (proofs()[i] for i in claim.proof)]
