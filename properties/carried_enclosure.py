"""The bound for formats in which the square of a rounding still counts: errors that cancel, and nothing left out.

Neither bound serves a model in bfloat16. The interval bound of `carried_rules.py` explodes, and the first-order bound of
`carried_tape.py` neglects products of two roundings, which are of order u: 2^-16 times derivatives of second order. Here each
array of the recorded computation is enclosed, for every choice of all roundings, as

    z' = z + sum_k G[k] s_k + d,  |s_k| <= 1,  |d| <= rest;    radius = sum_k |G[k]| + rest      (1)

G goes through an operation by its derivative J, rest by |J|. What is new, the operation's own rounding and all of higher order
in its operands' radii, is

    fresh = again(radii of the operands) - |J| (their radii)                             (2)

with `again` as in `carried_kinks.py`. It becomes a row of G for each entry, so that it cancels later on, or is added to rest where
it is small beside the radius. (1), (2) are inequalities: the radius of the result is a rigorous bound. Source: affine arithmetic, Comba
and Stolfi, "Affine arithmetic and its applications to computer graphics", SIBGRAPI 1993; Stolfi and de Figueiredo, "Self-validated
numerical methods and applications" (1997), ch. 3.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from attnspec.properties.carried_tape import Array, Operation

SMALL = 2.0**-12  # fresh errors below this share of the largest radius are not followed on their own


class Enclosed(NamedTuple):
    """An array as in (1): G [K, *shape], rest and radius [*shape]."""

    G: Array
    rest: Array
    radius: Array


def enclosure(operation: Operation | None) -> Array:
    """The radius (1) of an operation's result."""
    if operation is None:
        return np.zeros(())
    operations = _recorded(operation)
    uses = Counter(operand.time for one in operations for operand, _ in one.operands)
    known: dict[int, Enclosed] = {}
    K = 0
    with np.errstate(all="ignore"):
        for one in operations:
            known[one.time], K = _enclosed(one, known, K)
            for operand, _ in one.operands:
                uses[operand.time] -= 1
                if not uses[operand.time]:
                    del known[operand.time]  # most of the memory
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


def _enclosed(one: Operation, known: dict[int, Enclosed], K: int) -> tuple[Enclosed, int]:
    """The result of an operation, given its operands; and the number of rows of G so far, itself included."""
    shape = one.local.shape
    before = [known[operand.time] for operand, _ in one.operands]
    slopes = [by for _, by in one.operands]
    G, rest, linear = np.zeros((0, *shape)), np.zeros(shape), np.zeros(shape)
    for x, by in zip(before, slopes, strict=True):
        G = _added(G, by.forward(x.G))
        rest = rest + by.spread(x.rest)
        linear = linear + by.spread(x.radius)
    fresh = one.local if one.again is None else np.maximum(one.again([x.radius for x in before]) - linear, 0.0)
    fresh = np.where(np.isnan(fresh), np.inf, fresh)
    radius = np.sum(np.abs(G), axis=0) + rest
    if not np.isfinite(fresh).all() or np.max(fresh, initial=0.0) <= SMALL * np.max(radius, initial=0.0):
        return Enclosed(G, rest + fresh, radius + fresh), K
    places = np.flatnonzero(fresh)
    new = np.zeros((K + len(places), *shape))
    new[: len(G)] = G
    new.reshape(len(new), -1)[K + np.arange(len(places)), places] = fresh.ravel()[places]
    return Enclosed(new, rest, radius + fresh), K + len(places)


def _added(a: Array, b: Array) -> Array:
    """The sum of two arrays, the shorter of which is followed by rows of zeros."""
    short, long = sorted((a, b), key=len)
    if len(short):
        long = long.copy() if long.base is not None else long
        long[: len(short)] += short
    return long
