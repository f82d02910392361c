"""Arrays of each library: every dtype goes there and back without losing a bit, in every storage.

A library that starts threads has its tests run in a process of its own: this one could not fork without a warning afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from attnspec.adapters import STORAGES, Arrays, adapters, repeats
from attnspec.errors import UsageError
from attnspec.properties import numbers
from attnspec.worker import THREADED

ALONE = "ATTNSPEC_TESTED_ALONE"  # names the library that a process was started for
HERE = os.environ.get(ALONE)
WITH_ARRAYS = [name for name, adapter in adapters().items() if adapter.arrays is not None]
LIBRARIES = [name for name in WITH_ARRAYS if (name == HERE if HERE else name not in THREADED)]
IMPORTED = {"mlx": "mlx.core"}


def arrays_of(name: str) -> Arrays:
    if find_spec(IMPORTED.get(name, name).partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed")
    made = adapters()[name].arrays
    assert made is not None
    return made()


def every(test: Callable[..., None]) -> Callable[..., None]:
    """Parametrizes over the libraries and their dtypes."""
    cases = [(name, dtype) for name in LIBRARIES for dtype in ("float64", "float32", "bfloat16", "float16")]
    return pytest.mark.parametrize(("library", "dtype"), cases)(test)


@pytest.mark.skipif(HERE is not None, reason="it has been started")
@pytest.mark.parametrize("library", [name for name in WITH_ARRAYS if name in THREADED])
def test_libraries_with_threads(library: str) -> None:
    """The tests of this file that are about every library, where that one may be imported."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", library, __file__]
    done = subprocess.run(
        command, env=os.environ | {ALONE: library}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert library not in sys.modules


def offered(library: str, dtype: str) -> Arrays:
    arrays = arrays_of(library)
    if dtype not in arrays.dtypes:
        pytest.skip(f"{library} has no {dtype}")
    return arrays


# Bits of the significand and exponents of the least and the largest binade of normal numbers, from IEEE 754 and the
# definition of bfloat16; written out here, not asked of the libraries under test.
FORMATS = {"float64": (53, -1022, 1023), "float32": (24, -126, 127), "bfloat16": (8, -126, 127), "float16": (11, -14, 15)}


def extremes(dtype: str) -> np.ndarray[Any, Any]:
    """Numbers that a wrong conversion loses: the last bit at each end, the largest, subnormals, zeros and no numbers."""
    bits, least, most = FORMATS[dtype]
    last = 2.0 ** (1 - bits)
    normal = [1.0, 1 + last, 2 - last, 1 - last / 2, 2.0**least, (1 + last) * 2.0**least, (2 - last) * 2.0**most]
    odd = [0.0, -0.0, np.inf, -np.inf, np.nan, last * 2.0**least]  # the last is the least subnormal number
    return np.array([*normal, *(-x for x in normal), *odd]).reshape(1, 1, 4, 5)


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, the sign of zero included; NaN equals NaN."""
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a), np.signbit(b))


@every
def test_values_go_there_and_back(library: str, dtype: str) -> None:
    arrays = offered(library, dtype)
    for x in (extremes(dtype), numbers.fine(numbers.normal(3, "x", (2, 3, 5, 4)), 3, "x", dtype), np.zeros((2, 1, 0, 4))):
        native = arrays.make(x, dtype)
        assert arrays.owns(native)
        assert arrays.dtype_of(native) == dtype
        assert tuple(native.shape) == x.shape
        back = arrays.widen(native)
        assert back.dtype == np.float64
        assert same(back, x)


@every
def test_a_value_between_two_numbers_does_not_survive(library: str, dtype: str) -> None:
    """That the test above can fail: an array of a wider dtype would keep these."""
    arrays = offered(library, dtype)
    if dtype == "float64":
        pytest.skip("nothing is wider")
    between = np.array([[1 + 2.0 ** -FORMATS[dtype][0] * 0.75]])
    assert arrays.widen(arrays.make(between, dtype))[0, 0] != between[0, 0]


@every
@pytest.mark.parametrize("storage", STORAGES)
def test_storage_changes_no_value(library: str, dtype: str, storage: str) -> None:
    arrays = offered(library, dtype)
    for x in (
        numbers.normal(4, "x", (2, 3, 5, 4)),
        np.repeat(numbers.normal(4, "once", (1, 3, 5, 4)), 2, axis=0),
        numbers.normal(4, "plane", (5, 4)),
        np.zeros((2, 1, 0, 4)),
    ):
        for gradient in (False, True):
            native = arrays.make(x, dtype, storage, gradient=gradient)
            assert same(arrays.widen(native), x)
            assert arrays.dtype_of(native) == dtype


def strides(native: Any) -> tuple[int, ...]:
    """In elements."""
    if callable(native.stride if hasattr(native, "stride") else None):
        return tuple(native.stride())
    return tuple(s // native.itemsize for s in native.strides)


LAID_OUT = {
    "plain": (60, 20, 4, 1),
    "strided": (120, 40, 8, 2),
    "offset": (72, 24, 4, 1),
    "transposed": (60, 20, 1, 5),
    "expanded": (0, 20, 4, 1),
    "poisoned": (126, 42, 6, 1),
}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("library", ["torch", "numpy"])
@pytest.mark.parametrize("storage", STORAGES)
def test_storage_is_what_it_says(library: str, dtype: str, storage: str) -> None:
    arrays = offered(library, dtype)
    assert storage in arrays.storages
    x = np.repeat(numbers.normal(4, "once", (1, 3, 5, 4)), 2, axis=0)
    native = arrays.make(x, dtype, storage)
    assert strides(native) == LAID_OUT[storage]
    if library == "numpy":
        assert native.flags.writeable == (storage != "expanded")  # no function may write through a stride of 0


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_poison_lies_beside_the_array(dtype: str) -> None:
    arrays = arrays_of("torch")
    native = arrays.make(numbers.normal(4, "x", (1, 1, 2, 3)), dtype, "poisoned")
    around = native._base
    assert around.shape == (1, 1, 4, 5)
    assert int(around.isnan().sum()) == 20 - 6


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_rows_that_differ_are_not_expanded(library: str) -> None:
    arrays = arrays_of(library)
    x = np.repeat(numbers.normal(4, "once", (1, 3, 5, 4)), 2, axis=0)
    assert repeats(x)
    x[1, 0, 0, 0] += 1.0
    assert not repeats(x)
    native = arrays.make(x, "float32", "expanded")
    assert same(arrays.widen(native), x)
    assert strides(native)[0] != 0


@pytest.mark.parametrize("library", LIBRARIES)
def test_masks_stay_boolean(library: str) -> None:
    arrays = arrays_of(library)
    mask = np.array([[True, False], [False, True]])
    native = arrays.make(mask, "bool")
    assert "bool" in arrays.dtype_of(native)
    assert same(arrays.widen(native), mask.astype(np.float64))


@every
def test_gradients_are_those_of_the_product(library: str, dtype: str) -> None:
    """sum(q k v w) has the gradient k v w for q: exact for small whole numbers in every dtype."""
    arrays = offered(library, dtype)
    q, k, v, w = (np.arange(1.0, 7.0).reshape(1, 1, 2, 3) % n + 1 for n in (2, 3, 4, 5))
    inputs = [arrays.make(x, dtype, gradient=True) for x in (q, k, v)]
    try:
        recorded = arrays.recorded(lambda q, k, v: (q * k * v, "more"), inputs, lambda returned: returned[0])
    except NotImplementedError:
        assert library == "numpy"
        return
    assert same(arrays.widen(recorded.returned[0]), q * k * v)
    assert recorded.returned[1] == "more"
    found = recorded.pull(arrays.make(w, dtype))
    for got, expected in zip(found, (k * v * w, q * v * w, q * k * w), strict=True):
        assert got is not None
        assert arrays.dtype_of(got) == dtype
        assert same(arrays.widen(got), expected)


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "numpy"])
def test_no_gradient_where_nothing_depends(library: str) -> None:
    arrays = arrays_of(library)
    inputs = [arrays.make(np.ones((2, 2)), "float32", gradient=True) for _ in range(3)]
    recorded = arrays.recorded(lambda *qkv: qkv[0] * 2, inputs, lambda out: out)
    pulled = recorded.pull(arrays.make(np.ones((2, 2)), "float32"))
    assert pulled[0] is not None
    for unused in pulled[1:]:
        assert unused is None or not arrays.widen(unused).any()


@every
def test_literals_make_the_same_array(library: str, dtype: str) -> None:
    arrays = offered(library, dtype)
    for x in (extremes(dtype)[..., :4], np.zeros((1, 0, 3))):
        made: dict[str, Any] = {}
        exec(f"import numpy as np\n{arrays.imports(dtype)}\nx = {arrays.literal(x, dtype)}", made)
        assert arrays.dtype_of(made["x"]) == dtype
        assert same(arrays.widen(made["x"]), x)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "meta"])
def test_devices_that_cannot_be_are_refused(library: str, device: str) -> None:
    arrays_of(library)
    made = adapters()[library].arrays
    assert made is not None
    if library == "torch" and device != "meta":
        import torch

        if torch.cuda.is_available():
            assert made(device).device == device
            return
    with pytest.raises(UsageError, match=rf"device={device}: .*drop the option"):
        made(device)


@pytest.mark.parametrize("library", LIBRARIES)
def test_arrays_lie_on_the_cpu(library: str) -> None:
    assert arrays_of(library).device == "cpu"
