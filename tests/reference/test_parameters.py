import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.parameters import added, check_names, part, prefixed
from tests.reference.drawn import given

names = st.text("abc.", min_size=1, max_size=5)
parameters = st.dictionaries(names, st.integers(0, 9).map(float).map(np.array), max_size=4)


@given(parameters, st.text("abc", min_size=1, max_size=2))
def test_part_undoes_prefixed(given_parameters, prefix):
    assert part(prefixed(prefix, given_parameters), prefix) == given_parameters


def test_part_takes_whole_names_only():
    whole = {"encoder.1.weight": np.ones(1), "encoder.10.weight": np.zeros(1), "encoder.1": np.ones(2)}
    assert part(whole, "encoder.1") == {"weight": whole["encoder.1.weight"]}


@given(parameters, parameters)
def test_gradients_add_up_and_missing_ones_are_zero(one, other):
    both = added(one, other)
    assert set(both) == set(one) | set(other)
    for name, gradient in both.items():
        assert gradient == one.get(name, 0) + other.get(name, 0)


def test_names_are_checked():
    check_names({"a": np.ones(1)}, ("a",), ("b",))
    with pytest.raises(ValueError, match=r"parameters=\['c'\]: missing \['a'\], unknown \['c'\]; pass a and any of b"):
        check_names({"c": np.ones(1)}, ("a",), ("b",))
    with pytest.raises(ValueError, match=r"missing \['a'\], unknown \[\]; pass a$"):
        check_names({}, ("a",))
