"""The reference run on numbers that carry their own error: a derived bound for any function of reference/.

    with carrying(unit) as numbers:
        result = function(*numbers(arguments))        # the very code of reference/
    result.value, result.error                        # |computed - exact| <= error for any order of operations
    result.first_order(index)                         # the same for one element, sharper, to first order
    result.enclosure()                                # as rigorous as error, nearly as sharp as first_order, and slow

Every elementary operation adds what its operands' errors and its own rounding can do (`carried_rules.py`), so the bounds need
no derivation by hand, and change with the reference. `error` is a worst case, in which errors never cancel: rigorous, and
sharp enough for one or two layers. `first_order` follows every rounding to the result (`carried_tape.py`) and serves whole
models in float64 and float32. In bfloat16 it would neglect what counts, so that small models have `carried_enclosure.py`.

In bfloat16 every number that an elementary operation makes is stored in bfloat16, and the functions INSIDE work in float32
and store their result: the class of programs that torch, JAX and transformers are when their weights are in bfloat16. Not in
the class, and a defect: sums whose partial sums are stored, positions or their angles in bfloat16, a softmax or norm whose
intermediate results are stored.

The modules of reference/ see this module's NumPy while `carrying` lasts, in this process and for all of its threads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np

from attnspec.properties import carried_functions as functions
from attnspec.properties.carried_enclosure import enclosure
from attnspec.properties.carried_rules import BFLOAT16, FLOAT32, FLOAT64, Array, inner, is_short, stored
from attnspec.properties.carried_tape import Operation, elementwise, first_order, now

UNITS = {"float64": FLOAT64, "float32": FLOAT32, "bfloat16": BFLOAT16}
REFERENCE = "attnspec.reference."
# Functions of reference/ that a program in bfloat16 computes in float32. A root mean square norm stores the quotient and its
# product with the weight, which are two functions here; a layer norm stores what it has centred and scaled.
INSIDE = {
    "softmax.softmax", "softmax.log_sum_exp", "activation.activate", "sigmoid.sigmoid", "layer_norm._normalised",
    "rms_norm._root_mean_square", "sinusoidal_position.sinusoidal_position", "rotary_position._turn", "alibi.alibi_slopes",
}  # fmt: skip


class Carried:
    """An array of float64 values, each with a bound on its error; it offers what reference/ asks of an array."""

    __array_priority__ = 1000  # plain arrays leave the operators to this class
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any, error: Any, unit: float, operation: Operation | None = None) -> None:
        self.value: Array = np.asarray(value, dtype=np.float64)
        error = np.broadcast_to(np.asarray(error, dtype=np.float64), self.value.shape)
        known = np.where(np.isnan(error), np.inf, error)  # inf - inf, 0 · inf: nothing is known
        self.error: Array = np.where(np.isinf(self.value), 0.0, known)  # infinities are those of masks
        self.unit = unit
        self.operation = operation

    def first_order(self, index: tuple[int, ...]) -> float:
        """The sharper bound of one element."""
        return first_order(self.operation, index)

    def enclosure(self) -> Array:
        """The bound of all elements for which errors cancel and nothing is neglected."""
        return np.where(np.isinf(self.value), 0.0, np.broadcast_to(enclosure(self.operation), self.value.shape))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("this would lose the carried errors: reference/ must stay with the functions of carried_functions.py")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, where: Any = True, **kw: Any) -> Any:
        if method == "reduce":
            with np.errstate(all="ignore"):
                return functions.COMPUTE[ufunc.__name__](*inputs, **kw)
        if method != "__call__" or kw:
            raise NotImplementedError(f"numpy.{ufunc.__name__}.{method} with {kw}: give carried_functions.py a rule for it")
        with np.errstate(all="ignore"):
            result = functions.matmul(*inputs) if ufunc is np.matmul else functions.ufunc(ufunc, inputs, self)
        return result if where is True else np.where(where, result, out[0])

    def __array_function__(self, function: Any, _: Any, args: Any, kw: Any) -> Any:
        with np.errstate(all="ignore"):  # errors of infinity are known to be unknown: Carried turns NaN into infinity
            return functions.apply(function, args, kw, self)

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    dtype = property(lambda self: self.value.dtype)
    T = property(lambda self: np.transpose(self))

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self.value)))

    def __getitem__(self, index: Any) -> Any:
        return functions.move(lambda x: x[index], (self,), {}, self)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __repr__(self) -> str:
        return f"Carried({self.value!r}, ±{self.error!r})"

    def reshape(self, *shape: Any) -> Any:
        return functions.move(lambda x: x.reshape(*shape), (self,), {}, self)

    def swapaxes(self, one: int, other: int) -> Any:
        return functions.move(lambda x: x.swapaxes(one, other), (self,), {}, self)

    def transpose(self, *axes: Any) -> Any:
        return functions.move(lambda x: x.transpose(*axes), (self,), {}, self)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Any:
        return np.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Any:
        return np.mean(self, axis=axis, keepdims=keepdims)


def _operator(ufunc: Any, reflected: bool = False) -> Callable[[Any, Any], Any]:
    return (lambda a, b: ufunc(b, a)) if reflected else (lambda a, b: ufunc(a, b))


for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide, "pow": np.power, "matmul": np.matmul,
}.items():  # fmt: skip
    setattr(Carried, f"__{_name}__", _operator(_ufunc))
    setattr(Carried, f"__r{_name}__", _operator(_ufunc, reflected=True))
for _name, _ufunc in {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}.items():  # fmt: skip
    setattr(Carried, f"__{_name}__", _operator(_ufunc))
for _name, _one in {"neg": np.negative, "abs": np.absolute}.items():
    setattr(Carried, f"__{_name}__", lambda a, _one=_one: _one(a))


class _Numpy:
    """NumPy as the modules of reference/ see it: carried numbers stay so, and functions of constants become such."""

    def __init__(self, unit: float) -> None:
        self.unit = unit

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if name not in {"exp", "log", "sqrt", "sin", "cos", "tanh", "power"}:
            return function

        def promoted(*args: Any, **kw: Any) -> Any:
            """A constant such as sqrt(D) or sin(position) is computed too, with an error of its own."""
            if not any(isinstance(x, Carried) for x in args):
                value, error = functions.pair(args[0], self.unit)
                args = (Carried(value, error, self.unit, Operation(error, [])), *args[1:])
            return function(*args, **kw)

        return promoted

    @staticmethod
    def asarray(x: Any, dtype: Any = None) -> Any:
        return x if isinstance(x, Carried) else np.asarray(x, dtype=dtype)

    array = asanyarray = ascontiguousarray = asarray


@contextmanager
def carrying(unit: str = "float64") -> Iterator[Callable[[Any], Any]]:
    """Lets the modules of reference/ compute on carried numbers; gives the function that makes them from arrays."""
    u = UNITS[unit]
    every = [m for name, m in sys.modules.items() if name.startswith(REFERENCE)]
    modules = [m for m in every if getattr(m, "np", None) is np]
    numpy, inside = _Numpy(u), _inside(every) if inner(u) != u else {}

    def numbers(x: Any) -> Any:
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            return _given(x, u)
        if isinstance(x, Mapping):
            return {k: numbers(v) for k, v in x.items()}
        return type(x)(numbers(v) for v in x) if isinstance(x, (list, tuple)) else x

    for module in modules:
        setattr(module, "np", numpy)  # noqa: B010 - the module is not known to have it
    for (module, name), function in inside.items():
        setattr(module, name, _in_float32(function, numpy))
    try:
        yield numbers
    finally:
        for module in modules:
            setattr(module, "np", np)  # noqa: B010
        for (module, name), function in inside.items():
            setattr(module, name, function)


def _given(x: Array, u: float) -> Carried:
    """Data: exact, as both sides get the same numbers; but bfloat16 has to round longer ones."""
    if inner(u) == u or is_short(x, u).all():
        return Carried(x, 0.0, u)
    error = np.where(is_short(x, u), 0.0, u * np.abs(x))
    return Carried(x, error, u, Operation(error, []))


def _inside(modules: list[Any]) -> dict[tuple[Any, str], Callable[..., Any]]:
    """Where the functions INSIDE are: their own modules, and those that import them."""
    where = [name.rpartition(".") for name in INSIDE]
    functions_ = {id(one) for module, _, name in where if (one := getattr(sys.modules.get(REFERENCE + module), name, None))}
    return {(m, name): one for m in modules for name, one in vars(m).items() if callable(one) and id(one) in functions_}


def _in_float32(function: Callable[..., Any], numpy: _Numpy) -> Callable[..., Any]:
    """The function with operations of float32 inside, whose results are stored in the unit outside."""

    @wraps(function)
    def wrapped(*args: Any, **kw: Any) -> Any:
        unit = numpy.unit
        if inner(unit) == unit:  # called by another function of this kind
            return function(*args, **kw)
        numpy.unit, entered = inner(unit), now()
        try:
            found = function(*_in_unit(args, numpy.unit), **_in_unit(kw, numpy.unit))
        finally:
            numpy.unit = unit
        return tuple(_stored(x, unit, entered) for x in found) if isinstance(found, tuple) else _stored(found, unit, entered)

    return wrapped


def _in_unit(x: Any, unit: float) -> Any:
    if isinstance(x, Carried):
        return Carried(x.value, x.error, unit, x.operation)
    if isinstance(x, Mapping):
        return {k: _in_unit(v, unit) for k, v in x.items()}
    return type(x)(_in_unit(v, unit) for v in x) if isinstance(x, (list, tuple)) else x


def _stored(x: Any, unit: float, entered: int) -> Any:
    """A result of float32, rounded to a shorter format."""
    if not isinstance(x, Carried):
        return x
    value = x.value

    def again(error: Any) -> Any:
        return np.where(np.isinf(value), 0.0, stored(value, error, unit))

    back = [] if x.operation is None else [(x.operation, elementwise(np.ones(value.shape), value.shape))]
    of_errors = (lambda errors: again(errors[0])) if back else None
    return Carried(value, again(x.error), unit, Operation(again(np.zeros(value.shape)), back, of_errors, entered))
