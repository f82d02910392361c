"""Ids, positions and lengths are integers, masks are booleans, and both are said clearly."""

import numpy as np
import pytest

from attnspec.reference.dtypes import check_booleans, check_indices, check_integers


def test_what_counts_is_returned_as_integers():
    assert check_integers("lengths", [[-1, 7]], "they count").tolist() == [[-1, 7]]
    assert check_integers("lengths", np.array([3], dtype=np.uint8), "they count").dtype == np.int64
    assert check_indices("ids", 2, "ids", "V", 3, "map it").shape == ()


def test_empty_arrays_are_of_any_type():
    assert check_integers("lengths", [], "they count").dtype == np.int64
    assert check_indices("ids", np.zeros((2, 0)), "ids", "V", 0, "map it").shape == (2, 0)


@pytest.mark.parametrize("numbers", [[0.0], [1.5], [np.nan], [True], ["1"]])
def test_other_types_are_refused(numbers):
    with pytest.raises(TypeError, match=rf"^lengths.dtype={np.asarray(numbers).dtype}: they count; pass integers$"):
        check_integers("lengths", numbers, "they count")


@pytest.mark.parametrize(("place", "number"), [((0, 1), -1), ((1, 0), 3)])
def test_the_first_index_out_of_range_is_named(place, number):
    ids = np.full((2, 2), 2)
    ids[place] = number
    with pytest.raises(ValueError, match=rf"ids={number} at \({place[0]}, {place[1]}\): ids lie in 0..V-1 with V=3; map it"):
        check_indices("ids", ids, "ids", "V", 3, "map it")


@pytest.mark.parametrize("mask", [[0, 1], [0.0, -np.inf], []])
def test_masks_of_numbers_are_refused(mask):
    with pytest.raises(TypeError, match=rf"^mask.dtype={np.asarray(mask).dtype}: it is boolean, True = may attend;"):
        check_booleans("mask", mask, "may attend", "pass bool")
    assert check_booleans("mask", [True], "may attend", "pass bool").tolist() == [True]
