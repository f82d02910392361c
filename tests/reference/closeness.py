"""The one comparison of these tests, until properties/bounds.py owns the bounds."""

import numpy as np
import numpy.typing as npt

UNIT = 2.0**-53  # unit roundoff of float64
SLACK = 64  # roundings of one term: exp, tanh and division take a few each, and two computations are compared


def assert_close(got: npt.ArrayLike, want: npt.ArrayLike, *, terms: float = 1) -> None:
    """Raises unless shapes agree, NaN and infinities stand at the same places, and

        max |got - want| <= 64 * 2^-53 * (1 + max |want|) * terms                        (1)

    where terms is the number of summed terms: the sizes of all contracted axes, added up. 1 + max |want| stands for the
    size of the intermediate results, which are of order one in these tests.
    """
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape, f"shape {got.shape}, want {want.shape}"
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    assert np.isfinite(got[finite]).all(), f"got {got[finite]}, want finite values"
    error = np.max(np.abs(got[finite] - want[finite]), initial=0.0)
    bound = SLACK * UNIT * (1 + np.max(np.abs(want[finite]), initial=0.0)) * max(terms, 1)
    assert error <= bound, f"error {error} > bound {bound}\ngot {got}\nwant {want}"
