"""Gains that a dtype can hold: a case whose numbers would overflow on the way is scaled down by powers of two.

What a format cannot hold, no bound covers, so such a case would decide nothing. Only float16 is narrow enough for it to
matter: needles and heavy tails that are nothing to float32 reach its largest number. Claims about overflow plant it.
"""

from __future__ import annotations

from msgspec.structs import replace

from attnspec.properties.case import HUGE_FLOAT16, Case, Values

LARGEST_SCORE = {"float16": 65504.0 / 2}  # precondition P1 of docs/bounds.md; the other dtypes hold whatever is drawn
LARGEST_SUM = {"float16": 65504.0 / 2}  # P2
# The largest number of each kind before its gain; 2.875 ends the table of numbers, and `fine` adds an eighth at most.
AMPLITUDE = {
    "zeros": 0.0, "ones": 1.0, "one-hot": 1.0, "integers": 2.0, "constant": 2.875, "ties": 2.875, "normal": 2.875,
    "fine": 3.25, "heavy": 184.0, "needle": 92.0, "peak": 128.0,
}  # fmt: skip


def fitted(case: Case) -> Case:
    """The case, its gains halved until scores and sums of values stay in range, whatever the numbers are."""
    if case.dtype not in LARGEST_SCORE:
        return case
    z, scale = case.sizes, max(1.0, abs(case.call.scale or 0.0))
    found = {name: case.values.get(name, Values()) for name in "qkv"}
    while z.D * scale * _reach(case, "q", found["q"]) * _reach(case, "k", found["k"]) >= LARGEST_SCORE[case.dtype]:
        name = max("qk", key=lambda n: found[n].gain)
        found[name] = replace(found[name], gain=found[name].gain / 2)
    while z.S * AMPLITUDE[found["v"].kind] * found["v"].gain >= LARGEST_SUM[case.dtype]:
        found["v"] = replace(found["v"], gain=found["v"].gain / 2)
    changed = {name: how for name, how in found.items() if how != case.values.get(name, Values())}
    return case.but(values=case.values | changed) if changed else case


def _reach(case: Case, name: str, how: Values) -> float:
    """The largest number of the array, also after what is planted into it."""
    planted = [p for p in case.plant if p.array == name and p.value in ("redrawn", "huge")]
    return how.gain * max(AMPLITUDE[how.kind], AMPLITUDE["normal"] * HUGE_FLOAT16.get(name, 1.0) if planted else 0.0)
