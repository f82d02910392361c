"""Which kind of number an array holds: ids, positions and lengths are integers, masks are booleans."""

import numpy as np
import numpy.typing as npt

from attnspec.reference.shapes import BoolArray, IntArray


def check_integers(name: str, array: npt.ArrayLike, rule: str) -> IntArray:
    """Refuses numbers that do not count anything.

        array[...] is one of ..., -1, 0, 1, ...                                          (1)

    Shapes:  array [...] -> the same array, as integers.
    Units:   rule says what the numbers are.
    Empty:   an empty array may be of any type, as that of an empty list is float64.
    Errors:  TypeError if the array is of another type, booleans included.
    Source:  docs/notation.md, axes and sizes.
    Differs: NumPy would cut 1.5 to 1 where it is asked for integers, and compare a NaN with anything.
    """
    numbers = np.asarray(array)
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(f"{name}.dtype={numbers.dtype}: {rule}; pass integers")
    return numbers.astype(np.int64)


def check_indices(name: str, array: npt.ArrayLike, what: str, letter: str, size: int, fix: str) -> IntArray:
    """Refuses numbers that count past the end of an axis, or from its end.

        0 <= array[...] < size                                                           (1)

    Shapes:  array [...] -> the same array, as integers.
    Units:   what is what the numbers are, as "ids"; letter is the glossary's for the axis; fix says what to do.
    Empty:   an empty array is accepted, whatever the size.
    Errors:  TypeError if the array does not hold integers; ValueError naming the first that is out of range, and its place.
    Source:  docs/notation.md, axes and sizes.
    Differs: NumPy would count a negative index from the end.
    """
    numbers = check_integers(name, array, f"{what} are integers")
    wrong = np.argwhere((numbers < 0) | (numbers >= size))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        raise ValueError(f"{name}={numbers[place]} at {place}: {what} lie in 0..{letter}-1 with {letter}={size}; {fix}")
    return numbers


def check_booleans(name: str, array: npt.ArrayLike, true: str, fix: str) -> BoolArray:
    """Refuses a mask that is written in numbers.

        array[...] is True or False                                                      (1)

    Shapes:  array [...] -> the same array.
    Units:   true says what True stands for.
    Empty:   an empty array is boolean too.
    Errors:  TypeError if the array is not boolean.
    Source:  docs/notation.md, arrays.
    Differs: in other code 1 may hide a key, and 0.0 added to a score shows it.
    """
    mask = np.asarray(array)
    if mask.dtype != np.bool_:
        raise TypeError(f"{name}.dtype={mask.dtype}: it is boolean, True = {true}; {fix}")
    return mask
