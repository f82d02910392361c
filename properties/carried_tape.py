"""The sharper of the two bounds: how each rounding reaches a result, to first order.

The interval bound of `carried_rules.py` lets errors add up as if they never cancelled, and grows a thousandfold with each
layer of a Transformer. Here the roundings of all operations are followed to one element y of the result instead:

    |y' - y| <= sum over operations |dy/dz| r,   r = the operation's own rounding, z its result                (1)

up to products of two roundings, which are as small as u^2. dy/dz comes from one backward sweep over the recorded operations.
Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sec. 3.3 (running error analysis); Linnainmaa,
BIT 16 (1976) 146-160, who invented the sweep for this bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Map = Callable[[Array], Array]
_clock = itertools.count()


@dataclass(frozen=True, eq=False)
class Slope:
    """The derivative J of a result by one operand, as linear maps."""

    back: Map  # from dy/d(result) to dy/d(operand): J^T
    forward: Map  # from [K, *operand] to [K, *result]: J, for each of K
    spread: Map  # from sizes [*operand] to [*result]: |J|


@dataclass(eq=False)
class Operation:
    """One recorded operation: its own rounding, its derivatives, and its error as a function of those of its operands."""

    local: Array
    operands: Sequence[tuple[Operation, Slope]]
    again: Callable[[Sequence[Array]], Array] | None = None  # None: it is linear, and local does not depend on errors
    entered: int | None = None  # of the result of a function that works in another format: the time when it was called
    radius: Array | None = None  # what carried_enclosure.py has found, once it was asked for this or a later operation
    time: int = field(default_factory=lambda: next(_clock))


def now() -> int:
    """A time between those of two operations."""
    return next(_clock)


def first_order(operation: Operation | None, index: tuple[int, ...]) -> float:
    """The bound (1) of one element of an operation's result; zero for what was never computed."""
    if operation is None:
        return 0.0
    seed = np.zeros(operation.local.shape)
    seed[index] = 1.0
    slopes, queue, bound = {operation.time: seed}, [(-operation.time, operation)], 0.0
    while queue:
        _, one = heappop(queue)  # the latest first: all that use its result have been seen
        slope = slopes.pop(one.time)
        bound += float(np.sum(np.abs(slope) * np.where(slope == 0, 0.0, one.local)))
        for operand, by in one.operands:
            if operand.time not in slopes:
                slopes[operand.time] = np.zeros(operand.local.shape)
                heappush(queue, (-operand.time, operand))
            slopes[operand.time] = slopes[operand.time] + by.back(slope)
    return bound


def elementwise(slope: Array, shape: tuple[int, ...]) -> Slope:
    """Of an elementwise operation with derivative `slope`, whose operand of this shape was broadcast."""
    known = np.where(np.isfinite(slope), slope, 0.0)  # a slope is infinite only at masked entries and at sqrt(0)

    def pull(cotangent: Array) -> Array:
        full = cotangent * known
        axes = tuple(range(full.ndim - len(shape)))
        kept = np.sum(full, axis=axes)
        stretched = tuple(i for i, size in enumerate(shape) if size == 1 and kept.shape[i] != 1)
        return np.asarray(np.sum(kept, axis=stretched, keepdims=True))

    def push(sizes: Array) -> Array:
        ones = (1,) * (known.ndim - len(shape))
        return np.asarray(sizes.reshape(len(sizes), *ones, *shape) * known)

    return Slope(pull, push, lambda sizes: np.asarray(sizes * np.abs(known)))


def moved(origin: NDArray[np.int64], shape: tuple[int, ...]) -> Slope:
    """Of an operation that only moves numbers: entry i of the result was entry origin[i] of the operand, or none (-1)."""
    size, places = int(np.prod(shape)), origin.ravel() + 1

    def pull(cotangent: Array) -> Array:
        arrived = np.bincount(places, weights=cotangent.ravel(), minlength=size + 1)
        return np.asarray(arrived[1:].reshape(shape), dtype=np.float64)

    def push(sizes: Array) -> Array:
        flat = np.concatenate([np.zeros((len(sizes), 1)), sizes.reshape(len(sizes), size)], axis=1)
        return flat[:, places].reshape(len(sizes), *origin.shape)

    return Slope(pull, push, lambda sizes: push(sizes[None])[0])


def contracted(subscripts: str, values: Sequence[Array], which: int) -> Slope:
    """Of an einsum, for its operand number `which`: the same einsum with the result's cotangent in its place."""
    inputs, output = subscripts.replace(" ", "").split("->")
    letters = inputs.split(",")
    target = values[which].shape
    own = letters[which]
    others = [(letters[i], value) for i, value in enumerate(values) if i != which]
    # Ones of the operand's shape carry the letters that nothing else has; an ellipsis that it lacks is summed by hand.
    dots = "..." if "..." in own or "..." not in output else ""
    wanted = own if dots or "..." not in output else "..." + own
    terms = ",".join([output, *(name for name, _ in others), own])

    def pull(cotangent: Array) -> Array:
        full = np.einsum(f"{terms}->{wanted}", cotangent, *(value for _, value in others), np.ones(target))
        return elementwise(np.ones_like(full), target).back(full)

    def push(sizes: Array) -> Array:
        named = ",".join("Z" + name if i == which else name for i, name in enumerate(letters))
        factors = [sizes if i == which else value for i, value in enumerate(values)]
        return np.asarray(np.einsum(f"{named}->Z{output}", *factors, optimize=True))

    def spread(sizes: Array) -> Array:
        return np.asarray(np.einsum(subscripts, *(sizes if i == which else np.abs(v) for i, v in enumerate(values))))

    return Slope(pull, push, spread)


def reduced(slope: Array, axis: int | tuple[int, ...] | None, keepdims: bool) -> Slope:
    """Of a sum (or, by its slope, a maximum) over some axes."""
    axes = tuple(range(slope.ndim)) if axis is None else tuple(a % slope.ndim for a in np.atleast_1d(axis))
    later = tuple(a + 1 for a in axes)

    def pull(cotangent: Array) -> Array:
        return np.asarray((cotangent if keepdims else np.expand_dims(cotangent, axes)) * slope)

    return Slope(
        pull,
        lambda sizes: np.asarray(np.sum(sizes * slope, axis=later, keepdims=keepdims)),
        lambda sizes: np.asarray(np.sum(sizes * np.abs(slope), axis=axes, keepdims=keepdims)),
    )


def cumulated(ndim: int, axis: int) -> Slope:
    """Of a cumulative sum."""
    axis = axis % ndim
    return Slope(
        lambda cotangent: np.flip(np.cumsum(np.flip(cotangent, axis), axis), axis),
        lambda sizes: np.cumsum(sizes, axis + 1),
        lambda sizes: np.cumsum(sizes, axis),
    )


def _power_slope(a: Array, b: Array, y: Array) -> tuple[Array, Array]:
    return b * np.power(a, b - 1), y * np.log(np.where(a > 0, a, 1.0))


# d result / d operand, from the operands and the result
SLOPES: dict[Any, Callable[..., tuple[Any, ...]]] = {
    np.add: lambda a, b, y: (1.0, 1.0),
    np.subtract: lambda a, b, y: (1.0, -1.0),
    np.multiply: lambda a, b, y: (b, a),
    np.divide: lambda a, b, y: (1 / b, -y / b),
    np.maximum: lambda a, b, y: (a >= b, b > a),
    np.minimum: lambda a, b, y: (a <= b, b < a),
    np.negative: lambda a, y: (-1.0,),
    np.absolute: lambda a, y: (np.sign(a),),
    np.square: lambda a, y: (2 * a,),
    np.exp: lambda a, y: (y,),
    np.expm1: lambda a, y: (y + 1,),
    np.log: lambda a, y: (1 / a,),
    np.log1p: lambda a, y: (1 / (1 + a),),
    np.sqrt: lambda a, y: (0.5 / y,),
    np.tanh: lambda a, y: (1 - y**2,),
    np.sin: lambda a, y: (np.cos(a),),
    np.cos: lambda a, y: (-np.sin(a),),
    np.power: _power_slope,
}
