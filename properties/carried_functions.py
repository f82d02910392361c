"""NumPy's functions on carried numbers: those that move numbers, those that look at values, and those that compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attnspec.properties import carried_rules as rules
from attnspec.properties.carried_kinks import widened, widened_max
from attnspec.properties.carried_rules import Pair
from attnspec.properties.carried_tape import SLOPES, Operation, contracted, cumulated, elementwise, moved, reduced

if TYPE_CHECKING:
    from attnspec.properties.carried import Carried

MOVES = {
    "reshape", "swapaxes", "transpose", "moveaxis", "expand_dims", "squeeze", "ravel", "concatenate", "stack", "vstack",
    "hstack", "repeat", "tile", "flip", "roll", "take", "take_along_axis", "broadcast_to", "split", "array_split", "where",
    "diagonal", "atleast_1d", "atleast_2d", "copy", "tril", "triu", "pad", "delete", "rollaxis",
}  # fmt: skip
BY_VALUE = {
    "argmax", "argmin", "argsort", "any", "all", "shape", "ndim", "size", "full_like", "zeros_like", "ones_like",
    "count_nonzero", "nonzero", "flatnonzero", "lexsort", "argpartition", "empty_like", "isneginf", "isposinf",
}  # fmt: skip


def pair(x: Any, unit: float) -> Pair:
    """Value and error of a carried number, or of a constant of the formula."""
    return (x.value, x.error) if is_carried(x) else rules.constant(x, unit)


def own(x: Any, unit: float) -> Pair:
    """The same without the error that a carried number brings along: what is left is the operation's own rounding."""
    return (x.value, np.zeros_like(x.value)) if is_carried(x) else rules.constant(x, unit)


def is_carried(x: Any) -> bool:
    return hasattr(x, "unit") and hasattr(x, "error")


def apply(function: Any, args: tuple[Any, ...], kw: Mapping[str, Any], like: Carried) -> Any:
    """numpy.function(*args, **kw), called by NumPy itself because one argument is carried."""
    name = function.__name__
    compute = COMPUTE.get(name)
    if compute is not None:
        return compute(*args, **kw)
    values = function(*_each(args, _value), **_each(kw, _value))
    if name in BY_VALUE:
        return values
    if name not in MOVES:
        raise NotImplementedError(f"numpy.{name}: give carried_functions.py a rule for it, or write the formula otherwise")
    return move(function, args, kw, like)


def move(function: Any, args: tuple[Any, ...], kw: Mapping[str, Any], like: Carried) -> Any:
    """Moves values, errors and the places where they came from alike."""
    unit, operands = like.unit, _carried_in((args, kw))

    def error(x: Any) -> Any:
        return pair(x, unit)[1] if is_carried(x) or _is_real(x) else x

    def local(x: Any) -> Any:
        return own(x, unit)[1] if is_carried(x) or _is_real(x) else x

    def place_in(operand: Any) -> Any:
        def place(x: Any) -> Any:
            if x is operand:
                return np.arange(x.size).reshape(x.shape)
            return np.full(np.shape(x), -1) if is_carried(x) or _is_real(x) else x

        return place

    def results(pick: Any, fill: float) -> list[Any]:
        made = function(*_each(args, pick), **{k: fill if k == "constant_values" else _each(v, pick) for k, v in kw.items()})
        return list(made) if isinstance(made, (list, tuple)) else [made]

    values = function(*_each(args, _value), **_each(kw, _value))
    padding = {"constant_values": 0.0} if function is np.pad and "constant_values" not in kw else {}
    kw = {**kw, **padding}
    errors, locals_ = results(error, 0.0), results(local, 0.0)
    places = [(x, results(place_in(x), -1)) for x in operands.values() if x.operation is not None]
    many = isinstance(values, (list, tuple))
    out = []
    for i, value in enumerate(values if many else [values]):
        back = [(x.operation, moved(np.asarray(place[i]), x.shape)) for x, place in places]
        out.append(type(like)(value, errors[i], unit, Operation(np.array(locals_[i], dtype=np.float64), back)))
    return out if many else out[0]


def _carried_in(args: Any) -> dict[int, Any]:
    """The carried arrays among the arguments, each once."""
    if isinstance(args, (dict, list, tuple)):
        parts = args.values() if isinstance(args, dict) else args
        return {key: x for part in parts for key, x in _carried_in(part).items()}
    return {id(args): args} if is_carried(args) else {}


def _value(x: Any) -> Any:
    return x.value if is_carried(x) else x


def _is_real(x: Any) -> bool:
    return isinstance(x, (float, np.floating, np.ndarray)) and np.asarray(x).dtype.kind == "f"


def _each(args: Any, pick: Any) -> Any:
    """The arguments with `pick` applied to each array and number in them."""
    if isinstance(args, dict):
        return {k: _each(v, pick) for k, v in args.items()}
    return type(args)(_each(x, pick) for x in args) if isinstance(args, (list, tuple)) else pick(args)


def _sum(a: Carried, axis: Any = None, keepdims: bool = False, **kw: Any) -> Carried:
    _refuse("sum", kw)
    value, error = rules.total(pair(a, a.unit), axis, keepdims, a.unit)
    _, local = rules.total(own(a, a.unit), axis, keepdims, a.unit)

    def again(errors: Sequence[Any]) -> Any:
        return rules.total((a.value, errors[0]), axis, keepdims, a.unit)[1]

    back = [] if a.operation is None else [(a.operation, reduced(np.ones(a.shape), axis, keepdims))]
    return type(a)(value, error, a.unit, Operation(np.asarray(local), back, again if back else None))


def _mean(a: Carried, axis: Any = None, keepdims: bool = False, **kw: Any) -> Any:
    _refuse("mean", kw)
    added: Any = _sum(a, axis, keepdims)
    return added / (a.size / max(added.size, 1))


def _max(a: Carried, axis: Any = None, keepdims: bool = False, **kw: Any) -> Any:
    """The largest value moves by at most the largest error of a finite entry."""
    finite = np.where(np.isinf(a.value), 0.0, a.error)
    value = np.max(a.value, axis=axis, keepdims=keepdims, **kw)
    error = np.max(finite, axis=axis, keepdims=keepdims, initial=0.0)
    largest = a.value == np.max(a.value, axis=axis, keepdims=True, initial=-np.inf)
    slope = largest / np.maximum(np.sum(largest, axis=axis, keepdims=True), 1)  # ties share

    def again(errors: Sequence[Any]) -> Any:
        return widened_max(a.value, errors[0], slope, axis, keepdims)

    back = [] if a.operation is None else [(a.operation, reduced(slope, axis, keepdims))]
    return type(a)(value, error, a.unit, Operation(np.zeros_like(value), back, again if back else None))


def _min(a: Any, axis: Any = None, keepdims: bool = False, **kw: Any) -> Any:
    return -_max(-a, axis, keepdims, **{k: -v for k, v in kw.items()})


def _sort(a: Any, axis: int = -1, **kw: Any) -> Any:
    """The numbers in another order; each place moves by at most the largest error along the axis."""
    _refuse("sort", kw)
    out: Any = np.take_along_axis(a, np.argsort(a.value, axis=axis), axis=axis)
    error = np.max(a.error, axis=axis, keepdims=True, initial=0.0)
    back = [(out.operation, elementwise(np.ones(a.shape), a.shape))]

    def again(errors: Sequence[Any]) -> Any:
        return errors[0] + 2 * np.max(errors[0], axis=axis, keepdims=True, initial=0.0)

    return type(a)(out.value, error, a.unit, Operation(np.zeros(a.shape), back, again))


def _cumsum(a: Carried, axis: int = -1, **kw: Any) -> Carried:
    _refuse("cumsum", kw)
    value, error = rules.running_total(pair(a, a.unit), axis, a.unit)
    _, local = rules.running_total(own(a, a.unit), axis, a.unit)

    def again(errors: Sequence[Any]) -> Any:
        return rules.running_total((a.value, errors[0]), axis, a.unit)[1]

    back = [] if a.operation is None else [(a.operation, cumulated(a.ndim, axis))]
    return type(a)(value, error, a.unit, Operation(local, back, again if back else None))


def einsum(subscripts: str, *operands: Any) -> Carried:
    """numpy.einsum with explicit subscripts."""
    first = next(x for x in operands if is_carried(x))
    folded = sum(is_carried(x) and x.operation is not None for x in operands) > 1  # not by weights, which are data
    value, error = rules.contraction(subscripts, [pair(x, first.unit) for x in operands], first.unit, folded)
    _, local = rules.contraction(subscripts, [own(x, first.unit) for x in operands], first.unit, folded)
    values = [np.asarray(_value(x), dtype=np.float64) for x in operands]
    back = [
        (x.operation, contracted(subscripts, values, i))
        for i, x in enumerate(operands)
        if is_carried(x) and x.operation is not None
    ]

    def again(errors: Sequence[Any]) -> Any:
        return rules.contraction(subscripts, _with_errors(operands, errors, first.unit), first.unit, folded)[1]

    carried: Carried = type(first)(value, error, first.unit, Operation(local, back, again))
    return carried


def _with_errors(operands: Any, errors: Sequence[Any], unit: float) -> list[Pair]:
    """The operands, with other errors for those that were recorded."""
    given = iter(errors)
    recorded = [is_carried(x) and x.operation is not None for x in operands]
    return [(x.value, next(given)) if mine else pair(x, unit) for x, mine in zip(operands, recorded, strict=True)]


def matmul(a: Any, b: Any) -> Carried:
    """numpy.matmul as an einsum."""
    rows, columns = ("i" if a.ndim > 1 else ""), ("k" if b.ndim > 1 else "")
    left, right = (f"...{rows}j" if rows else "j"), (f"...j{columns}" if columns else "j")
    return einsum(f"{left},{right}->{'...' if rows or columns else ''}{rows}{columns}", a, b)


def _refuse(name: str, kw: Mapping[str, Any]) -> None:
    if kw:
        raise NotImplementedError(f"numpy.{name} with {dict(kw)}: give carried_functions.py a rule for it")


COMPUTE: dict[str, Any] = {
    "sum": _sum, "add": _sum, "mean": _mean, "max": _max, "amax": _max, "maximum": _max, "min": _min, "amin": _min,
    "minimum": _min, "sort": _sort, "cumsum": _cumsum, "einsum": einsum, "dot": matmul,
    "clip": lambda a, low, high: np.minimum(np.maximum(a, low), high),
    "outer": lambda a, b: einsum("i,j->ij", a, b),
}  # fmt: skip


def ufunc(function: Any, inputs: tuple[Any, ...], like: Carried) -> Any:
    """An elementwise function: its interval error, its own rounding, and its slopes."""
    unit = like.unit
    if function not in rules.UFUNCS:  # comparisons, isfinite: decided by the values
        decided = function(*(_value(x) for x in inputs))
        if np.asarray(decided).dtype != np.bool_:
            raise NotImplementedError(f"numpy.{function.__name__}: give carried_rules.py a rule for it")
        return decided
    value, error = rules.UFUNCS[function](*(pair(x, unit) for x in inputs), unit)
    _, local = rules.UFUNCS[function](*(own(x, unit) for x in inputs), unit)
    value = np.asarray(value)
    slopes = SLOPES[function](*(np.asarray(_value(x), dtype=np.float64) for x in inputs), value)
    back = [
        (x.operation, elementwise(np.broadcast_to(np.asarray(slope, dtype=np.float64), value.shape), x.shape))
        for x, slope in zip(inputs, slopes, strict=True)
        if is_carried(x) and x.operation is not None
    ]
    finite = np.where(np.isinf(value) | np.isnan(local), 0.0, local)

    def again(errors: Sequence[Any]) -> Any:
        return widened(function, _with_errors(inputs, errors, unit), [by for _, by in back], errors, unit)

    return type(like)(value, error, unit, Operation(np.broadcast_to(finite, value.shape), back, again))
