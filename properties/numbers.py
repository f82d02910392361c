"""Numbers that are the same on every machine, for ever: builder 1 of the case format (engine 9).

NumPy guarantees the stream of a *bit generator* across versions and machines, not that of `standard_normal` (NEP 19). So
raw 64-bit words are mapped by integer arithmetic to a table. An old builder is never changed or removed: a case file that
names it must give the same arrays in ten years.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from attnspec.properties.subject import FloatArray

BUILDER = 1

# Quantiles (i + 1/2)/255 of the normal distribution in units of 2^-12, rounded to 6 significant bits: each is exact in
# every dtype down to bfloat16 (8 bits), also after multiplication by a power of two.
_POSITIVE = (
    40, 80, 120, 160, 200, 240, 280, 320, 360, 400, 440, 488, 528, 560, 608, 640, 688, 736, 768, 816, 848, 896, 928, 976,
    1024, 1056, 1088, 1152, 1184, 1216, 1280, 1312, 1344, 1408, 1440, 1472, 1536, 1568, 1600, 1664, 1696, 1728, 1792, 1824,
    1888, 1920, 1952, 2016, 2048, 2112, 2176, 2176, 2240, 2304, 2304, 2368, 2432, 2496, 2496, 2560, 2624, 2688, 2752, 2752,
    2816, 2880, 2944, 3008, 3008, 3072, 3136, 3200, 3264, 3328, 3392, 3392, 3456, 3520, 3584, 3648, 3712, 3776, 3840, 3904,
    3968, 4032, 4096, 4224, 4224, 4352, 4352, 4480, 4480, 4608, 4608, 4736, 4864, 4864, 4992, 5120, 5120, 5248, 5376, 5376,
    5504, 5632, 5760, 5888, 6016, 6144, 6272, 6400, 6528, 6656, 6784, 6912, 7168, 7296, 7552, 7680, 7936, 8192, 8704, 8960,
    9472, 10240, 11776,
)  # fmt: skip
NORMAL: FloatArray = np.array([*(-x for x in reversed(_POSITIVE)), 0, *_POSITIVE]) / 4096.0
VARIANCE = float(np.mean(NORMAL**2))  # of a number drawn from the table; its mean is exactly 0


_AHEAD = 512  # words of a stream that are kept: enough for the small arrays of which there are many


def words(seed: int, name: str, count: int) -> npt.NDArray[np.uint64]:
    """`count` raw 64-bit words of the stream that belongs to (seed, name)."""
    return _ahead(seed, name)[:count] if count <= _AHEAD else _stream(seed, name, count)


@lru_cache(maxsize=8192)
def _ahead(seed: int, name: str) -> npt.NDArray[np.uint64]:
    found = _stream(seed, name, _AHEAD)
    found.flags.writeable = False
    return found


def _stream(seed: int, name: str, count: int) -> npt.NDArray[np.uint64]:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.atleast_1d(np.random.PCG64(int.from_bytes(digest, "big")).random_raw(count)).astype(np.uint64)


def below(bound: int, seed: int, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Integers in 0..bound-1, by multiply and shift of the upper 32 bits."""
    upper = words(seed, name, math.prod(shape)) >> np.uint64(32)
    return ((upper * np.uint64(bound)) >> np.uint64(32)).astype(np.int64).reshape(shape)


def normal(seed: int, name: str, shape: tuple[int, ...]) -> FloatArray:
    """Numbers of mean 0 and variance VARIANCE with at most 6 significant bits each."""
    return NORMAL[below(NORMAL.size, seed, name, shape)]


def low_bits(seed: int, name: str, shape: tuple[int, ...], dtype: str) -> FloatArray:
    """What makes a number of the table fill the mantissa of `dtype`: 0..1023 units in the last place of 2..4.

    The table alone survives a cast to bfloat16 unharmed, so that code which rounds its inputs would pass for exact.
    """
    unit = {"float64": 2.0**-51, "float32": 2.0**-22}.get(dtype, 0.0)
    return np.multiply(below(1024, seed, f"{name}/low", shape), unit, dtype=np.float64)


def rounded(x: FloatArray, dtype: str) -> FloatArray:
    """The numbers of `dtype` nearest to x, ties to even, as float64; beyond the largest they are infinite."""
    if dtype == "float64":
        return x
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype != "bfloat16":
            return x.astype(dtype).astype(np.float64)
        mantissa, exponent = np.frexp(x)
        nearest = np.ldexp(np.rint(mantissa * 2.0**8), exponent - 8)  # 8 significant bits; subnormals of bfloat16 keep more
        return np.where(np.abs(nearest) >= 2.0**128, np.copysign(np.inf, x), nearest)


LARGEST = {
    "float64": 2.0**1023 * (2 - 2.0**-52),
    "float32": 2.0**128 - 2.0**104,
    "bfloat16": 2.0**128 - 2.0**120,
    "float16": 65504.0,
}


def held(x: FloatArray, dtype: str) -> FloatArray:
    """`rounded`, with the largest number of the dtype in place of an infinite one."""
    return np.clip(
        rounded(x, dtype), np.where(np.isneginf(x), x, -LARGEST[dtype]), np.where(np.isposinf(x), x, LARGEST[dtype])
    )


def fine(x: FloatArray, seed: int, name: str, dtype: str) -> FloatArray:
    """x with its mantissa filled in `dtype`, so that a subject that rounds its inputs is seen."""
    if dtype in ("bfloat16", "float16"):
        return rounded(x * (1 + below(1024, seed, f"{name}/low", x.shape) / 8192), dtype)
    return x + low_bits(seed, name, x.shape, dtype)


def permutation(n: int, seed: int, name: str) -> npt.NDArray[np.int64]:
    """A permutation of 0..n-1, never the identity for n > 1 (a rotation by one where the draw gives it)."""
    order = np.argsort(words(seed, name, n), kind="stable")
    return np.roll(order, 1) if n > 1 and np.array_equal(order, np.arange(n)) else order
