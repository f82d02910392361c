"""What `attnspec compare` shows: both targets, a table of errors, the verdicts, a block a failure; and the same as NDJSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from attnspec import __version__
from attnspec.properties.spec import SPEC
from attnspec.properties.verdict import number
from attnspec.report.terminal import minimal_case

if TYPE_CHECKING:
    from attnspec.comparison import Comparison, Failure, Row
    from attnspec.side_by_side import Side, Subject

CONVERTED = ("arrays", "layout", "polarity")  # differences that the tool translates
HEADS = ("dtype", "cases", "number", "A", "B", "A against B", "equal bits")


def render(found: Comparison, *, verbose: bool = False) -> str:
    """The whole comparison as plain text."""
    dtypes = "+".join(found.dtypes) or "?"
    device = found.a.profile.get("device", "cpu")
    parts = [f"attnspec {__version__} | compare | profile {found.budget} | seed {found.seed} | {device} {dtypes}"]
    parts += [_side(letter, subject) for letter, subject in (("A", found.a), ("B", found.b))]
    if found.cannot_run is not None:
        return "\n".join([*parts, f"???? {found.cannot_run}", "exit 3"])
    parts += _differences(found)
    if found.rows:
        parts += ["", "error at most, in units of the bound:", *_table(found.rows), "", *_verdicts(found)]
        parts += [] if found.failures else _furthest(found)
    for failure in shown(found):
        parts += _block(failure, found)
    if verbose:
        parts += [f"left out: {n} cases: {why}" for why, n in found.left_out.items()]
    return "\n".join([*parts, "", _summary(found)])


def _side(letter: str, subject: Subject) -> str:
    p = subject.profile
    kind = f" ({p.get('arrays')}, {p.get('layout')})" if p.settings else ""
    return f"  {letter}  {subject.shown}{kind}"


def _differences(found: Comparison) -> list[str]:
    """What the two do not share: conventions, features, and how cases that only one of them takes are treated."""
    a, b = found.a.profile, found.b.profile
    lines = []
    if differ := found.conventions:
        shown = "; ".join(f"{n.replace('_', ' ')} {of_a}, {of_b}" for n, (of_a, of_b) in differ.items())
        apart = sum(r.apart for r in found.rows if r.group in ("all", "gradients"))
        lines.append(f"  differ by convention: {shown} ({apart} cases held against each one's own reading only)")
    converted = [f"{n} {a.get(n)}, {b.get(n)}" for n in CONVERTED if n in a.settings and a.get(n) != b.get(n, a.get(n))]
    lines += [f"  converted: {'; '.join(converted)}"] if converted else []
    for letter, one, other in (("A", a, b), ("B", b, a)):
        lacking = [f for f in one.features if one.lacks(f) and other.offers(f)]
        lines += [f"  not compared, since {letter} does not offer it: {', '.join(lacking)}"] if lacking else []
    return lines


def _table(rows: list[Row]) -> list[str]:
    cells: list[tuple[str, ...]] = [HEADS]
    for row in rows:
        equal = "" if row.equal_bits is None else f"{100 * row.equal_bits:.0f} %"
        ratios = (_ratio(row.worst[side]) for side in row.worst)  # A, B, A against B
        cells.append((row.dtype, row.group, str(row.cases), *ratios, equal))
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADS))]
    return [
        "  " + "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]


def _ratio(x: float) -> str:
    return f"{x:.2g}"


def _verdicts(found: Comparison) -> list[str]:
    """One line for each side: does it hold, and if not, how often it does not."""
    texts: dict[Side, str] = {
        "A": "A is within its bound",
        "B": "B is within its bound",
        "A against B": "A and B are within the sum of their bounds of each other",
    }
    totals = [r for r in found.rows if r.group in ("all", "gradients")]
    lines = []
    for side, text in texts.items():
        beyond = sum(r.beyond[side] for r in totals)
        cases = sum(r.cases - (r.apart if side == "A against B" else 0) for r in totals)
        lines.append(f"  {text:<58} " + (f"FAIL  not on {beyond} of {cases} cases" if beyond else f"OK    {cases} cases"))
    for letter, subject in (("A", found.a), ("B", found.b)):
        lines += [f"  {f'{letter} answered each time':<58} ????  {subject.lost[-1]}"] if subject.lost else []
    return lines


def _furthest(found: Comparison) -> list[str]:
    """Where the two differ most."""
    rows = [r for r in found.rows if r.place is not None]
    if not rows:
        return []
    row = max(rows, key=lambda r: r.worst["A against B"])
    p = row.place
    assert p is not None
    z = p.case.sizes
    sizes = " ".join(f"{n}={v}" for n, v in msgspec.to_builtins(z).items())
    return [
        f"  they differ most, {_ratio(row.worst['A against B'])} of the sum of both bounds, in {row.dtype}: {p.what}"
        f" at {list(p.at)} of {sizes}:",
        f"    A {p.a}, B {p.b}, right {p.right}, allowed {p.allowed}",
    ]


def shown(found: Comparison) -> list[Failure]:
    """The failures that get a block: those of one side are in the block of the difference that they make.

    One of the gradients has its own only where the output is right, since a wrong output has wrong gradients.
    """
    kept: list[Failure] = []
    for failure in found.failures:  # differences first, forward before gradients
        told = [f for f in kept if f.side == failure.side or not f.seen.ratio.get(failure.side, 0.0) <= 1.0]
        if not told:
            kept.append(failure)
    return kept


def _block(failure: Failure, found: Comparison) -> list[str]:
    seen = failure.seen
    title = (
        "A and B differ by more than both bounds" if failure.side == "A against B" else f"{failure.side} exceeds its bound"
    )
    what = "gradients" if seen.case.claim == "grad.reference" else "forward"
    evidence = seen.evidence[failure.side]
    where = f" at {list(evidence.at)}" if evidence.at else ""
    lines = ["", f" {title}  ({what}, {seen.case.dtype}) ".center(96, "_"), *minimal_case(seen.case)]
    lines.append(f"  {evidence.what}{where}")
    if failure.side == "A against B":
        lines += [f"  A         {evidence.got}", f"  B         {evidence.expected}"]
        lines += [f"  right     {seen.place.right}"] if seen.place and seen.place.at == evidence.at else []
    else:
        lines += [f"  got       {evidence.got}", f"  expected  {evidence.expected}"]
    lines += [f"  allowed   {evidence.allowed}   ({evidence.why})", ""]
    lines.append(f"Error      of A {_of_bound(seen.ratio['A'])}, of B {_of_bound(seen.ratio['B'])}")
    if len(failure.dtypes) > 1:
        lines.append(f"Also       {', '.join(d for d in failure.dtypes if d != seen.case.dtype)}")
    folded = [f for f in found.failures if f.seen.case.claim != seen.case.claim and f.side == failure.side]
    lines += [f"Also       its gradients, in case {f.seen.case.id}" for f in folded]
    for subject, ratio in ((found.a, seen.ratio["A"]), (found.b, seen.ratio["B"])):
        if not ratio <= 1.0:
            lines.append(f"Reproduce  attnspec replay {seen.case.id[:4]} --target {subject.shown}")
    return lines


def _of_bound(ratio: float) -> str:
    return f"{_ratio(ratio)} of its bound" + ("" if ratio <= 1.0 else ", too large")


def _summary(found: Comparison) -> str:
    totals = [r for r in found.rows if r.group in ("all", "gradients")]
    text = f"{sum(r.cases for r in totals)} cases compared"
    left = sum(found.left_out.values())
    text += f", {left} left out (see -v)" if left else ""
    text += " | interrupted: what is printed is valid" if found.interrupted else ""
    return f"{text} | {found.seconds:.1f} s | exit {found.exit_code}"


def lines(found: Comparison) -> Iterator[dict[str, Any]]:
    """The objects of the NDJSON file, one a line."""
    from attnspec.comparison import FORMAT

    head = {"format": FORMAT, "spec": SPEC}
    subjects = {
        letter: {
            "target": s.name,
            "options": s.options,
            "subject": msgspec.to_builtins(s.profile) if s.profile.settings else None,
        }
        for letter, s in (("A", found.a), ("B", found.b))
    }
    differ = {n: list(v) for n, v in found.conventions.items()}
    yield {**head, **subjects, "profile": found.budget, "seed": found.seed, "dtypes": found.dtypes, "conventions": differ}
    for row in found.rows:
        yield {
            "format": FORMAT,
            "dtype": row.dtype,
            "group": row.group,
            "cases": row.cases,
            "apart": row.apart,
            "ratio": {side: number(x) for side, x in row.worst.items()},
            "beyond": row.beyond,
            "equal_bits": row.equal_bits,
            "furthest": None if row.place is None else msgspec.to_builtins(row.place) | {"case": row.place.case.signed().id},
        }
    for failure in found.failures:
        yield {
            "format": FORMAT,
            "failure": failure.side,
            "dtypes": failure.dtypes,
            "ratio": {side: number(x) for side, x in failure.seen.ratio.items()},
            "evidence": failure.seen.evidence[failure.side],
            "case": failure.seen.case,
        }
    if not found.interrupted:  # a file without the summary was interrupted
        reason = found.cannot_run or next(iter([*found.a.lost, *found.b.lost]), None)
        yield {
            "format": FORMAT,
            "left_out": found.left_out,
            "exit_code": found.exit_code,
            "seconds": round(found.seconds, 2),
            "reason": reason,
        }
