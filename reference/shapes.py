"""The types of the arrays and options, and the checks of shapes that the ideas share (docs/notation.md)."""

from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]
Alignment: TypeAlias = Literal["top-left", "bottom-right"]
Side: TypeAlias = Literal["left", "both"]
EmptyRow: TypeAlias = Literal["zero", "mean", "unmasked", "nan"]


class ShapeError(ValueError):
    """The arrays do not fit together: the caller should reshape one of them."""


class ScoreOptions(TypedDict, total=False):
    """The keyword arguments of `attention.scores`, which every function that computes scores takes and passes on."""

    mask: BoolArray | None
    bias: FloatArray | None
    causal: Alignment | None
    scale: float | None
    window: int | None
    window_side: Side
    softcap: float | None


class AttentionOptions(ScoreOptions, total=False):
    """The keyword arguments of `attention.attention`."""

    empty_row: EmptyRow


def check_rank(name: str, array: npt.NDArray[Any], axes: str) -> None:
    """Refuses an array that has not one axis for each letter.

        rank(array) = number of letters in axes                                      (1)

    Shapes:  array of any shape; axes are glossary letters without commas, as "BHTD".
    Units:   n/a.
    Empty:   axes of size zero are accepted.
    Errors:  ShapeError if the rank differs.
    Source:  docs/notation.md, arrays.
    Differs: n/a.
    """
    if array.ndim != len(axes):
        rule = f"{name} has the {len(axes)} axes [{','.join(axes)}]"
        raise ShapeError(f"{name}.shape={array.shape}: {rule}; add or remove axes, as {name}[None] adds a first one")


def check_broadcasts(name: str, shape: tuple[int, ...], axes: str, target: tuple[int, ...]) -> None:
    """Refuses a shape that does not broadcast to the target, or that would enlarge it.

        each size, counted from the last axis, is 1 or that of the target            (1)

    Shapes:  shape has at most as many axes as the target.
    Units:   n/a.
    Empty:   an axis of size zero in the target accepts 0 and 1.
    Errors:  ShapeError if a size is neither 1 nor the target's, or if there are too many axes.
    Source:  docs/notation.md, arrays.
    Differs: NumPy would enlarge the target where that has size 1; a mask never adds queries or keys.
    """
    sizes = zip(reversed(shape), reversed(target), strict=False)  # missing leading axes count as 1
    if len(shape) > len(target) or any(size not in (1, wanted) for size, wanted in sizes):
        rule = f"{name} broadcasts to [{','.join(axes)}] = {target}"
        raise ShapeError(f"{name}.shape={shape}: {rule}; give each axis its size or 1, in this order")


def check_size(letter: str, one: str, size: int, other: str, other_size: int) -> None:
    """Refuses two arrays that disagree about the size of a glossary letter.

        size = other_size                                                            (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   zero equals zero.
    Errors:  ShapeError if the sizes differ.
    Source:  docs/notation.md, axes and sizes.
    Differs: n/a.
    """
    if size != other_size:
        sizes = f"{letter}={size} in {one} and {letter}={other_size} in {other}"
        raise ShapeError(f"{sizes}: {letter} is one size; slice, pad or project {one} or {other}")


def check_values(k: npt.NDArray[Any], v: FloatArray) -> None:
    """Refuses values that do not belong to the keys.

        B, G and S agree                                                             (1)

    Shapes:  k [B,G,S,D]  v [B,G,S,E].
    Units:   n/a.
    Empty:   every size may be zero.
    Errors:  ShapeError if a rank, B, G or S differs.
    Source:  arXiv:1706.03762 sec. 3.2: keys and values come in pairs.
    Differs: the batch is never broadcast.
    """
    check_rank("k", k, "BGSD")
    check_rank("v", v, "BGSE")
    for axis, letter in enumerate("BGS"):
        check_size(letter, "k", k.shape[axis], "v", v.shape[axis])
