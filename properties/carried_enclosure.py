"""The bound for formats in which the square of a rounding still counts: errors that cancel, and nothing left out.

Neither bound serves a model in bfloat16. The interval bound of `carried_rules.py` explodes, and the first-order bound of
`carried_tape.py` neglects products of two roundings, which are of order u: 2^-16 times derivatives of second order. Here each
array of the recorded computation is enclosed, for every choice of all roundings, as

    z' = z + sum_k G[k] s_k + d,  |s_k| <= 1,  |d| <= rest;    radius = sum_k |G[k]| + rest      (1)

G goes through an operation by its derivative J, rest by |J|. What is new, the operation's own rounding and all of higher
order in its operands' radii, is

    fresh = again(radii of the operands) - |J| (their radii)                             (2)

with `again` as in `carried_kinks.py`. It becomes a row of G for each entry, so that it cancels later on, or is added to rest
where it is small beside the radius. What happens inside of a function that works in float32 becomes one row for each entry of
its result. (1), (2) are inequalities: the radius of the result is a rigorous bound. Source: affine arithmetic, Comba and
Stolfi, "Affine arithmetic and its applications to computer graphics", SIBGRAPI 1993; Stolfi and de Figueiredo,
"Self-validated numerical methods and applications" (1997), ch. 3.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from attnspec.properties.carried_tape import Array, Operation

SMALL = 2.0**-10  # fresh errors below this share of the largest radius are not followed on their own


class Enclosed(NamedTuple):
    """An array as in (1): G [K, *shape], rest and radius [*shape]."""

    G: Array
    rest: Array
    radius: Array


def enclosure(operation: Operation | None) -> Array:
    """The radius (1) of an operation's result."""
    if operation is None:
        return np.zeros(())
    if operation.radius is not None:
        return operation.radius
    operations = _recorded(operation)
    uses = Counter(operand.time for one in operations for operand, _ in one.operands)
    known: dict[int, Enclosed] = {}
    times, rows = [-1], [0]  # how many rows of G there were after each operation
    with np.errstate(all="ignore"):
        for one in operations:
            before = [known[operand.time] for operand, _ in one.operands]
            for operand, _ in one.operands:
                uses[operand.time] -= 1
                if not uses[operand.time]:
                    known.pop(operand.time, None)  # most of the memory
            K, inside = rows[-1], 0.0
            if one.entered is not None and before:  # nobody else knows what happened inside: it is one error for each entry
                K = rows[bisect(times, one.entered) - 1]
                inside = np.sum(np.abs(before[0].G[K:]), axis=0) + before[0].rest
                before = [before[0]._replace(G=before[0].G[:K], rest=np.zeros(inside.shape))]
                K = max([K, *(len(x.G) for x in known.values())])
            known[one.time] = _enclosed(one, before, inside, K)
            one.radius = known[one.time].radius
            times.append(one.time)
            rows.append(max(K, len(known[one.time].G)))
    return known[operation.time].radius


def _recorded(operation: Operation) -> list[Operation]:
    """All operations that the result depends on, in the order of their time."""
    found, queue = {operation.time: operation}, [operation]
    while queue:
        for operand, _ in queue.pop().operands:
            if operand.time not in found:
                found[operand.time] = operand
                queue.append(operand)
    return [found[time] for time in sorted(found)]


def _enclosed(one: Operation, before: list[Enclosed], inside: Any, K: int) -> Enclosed:
    """The result of an operation, given its operands, an error of its own beside (2), and how many rows of G are taken."""
    shape, slopes = one.local.shape, [by for _, by in one.operands]
    G, rest, linear = np.zeros((0, *shape)), np.zeros(shape), np.zeros(shape)
    for x, by in zip(before, slopes, strict=True):
        G = _added(G, by.forward(x.G))
        rest = rest + by.spread(x.rest)
        linear = linear + by.spread(x.radius)
    fresh = one.local if one.again is None else np.maximum(one.again([x.radius for x in before]) - linear, 0.0)
    fresh = np.where(np.isnan(fresh), np.inf, fresh) + inside
    radius = np.sum(np.abs(G), axis=0) + rest
    if not np.isfinite(fresh).all() or np.max(fresh, initial=0.0) <= SMALL * np.max(radius, initial=0.0):
        return Enclosed(G, rest + fresh, radius + fresh)
    places = np.flatnonzero(fresh)
    new = np.zeros((K + len(places), *shape))
    new[: len(G)] = G
    new.reshape(len(new), -1)[K + np.arange(len(places)), places] = fresh.ravel()[places]
    return Enclosed(new, rest, radius + fresh)


def _added(a: Array, b: Array) -> Array:
    """The sum of two arrays, the shorter of which is followed by rows of zeros."""
    short, long = sorted((a, b), key=len)
    if len(short):
        long = long.copy() if long.base is not None else long
        long[: len(short)] += short
    return long
