"""Every two options together, in few cases: a covering array of strength two.

Real defects are in pairs: a mask beside the causal flag, a soft cap beside a window. Of ten options with two to four settings
there are hundreds of pairs and thousands of combinations; about a dozen rows hold every pair.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import numpy as np


@cache
def covering(levels: tuple[int, ...], never: tuple[tuple[int, int], ...] = ()) -> tuple[tuple[int, ...], ...]:
    """Rows of levels such that any two factors meet at any two of their levels; greedy, the first row all zeros.

    `levels` says how many each factor has. In `never` are pairs of factors that are not both above zero.
    """
    n, highest = len(levels), max(levels)
    rows = np.array(list(product(*(range(m) for m in levels))), dtype=np.int64)
    for a, b in never:
        rows = rows[(rows[:, a] == 0) | (rows[:, b] == 0)]
    # Each pair of levels has a number, so that a row is the list of the pairs it holds.
    of_row = np.stack(
        [((i * n + j) * highest + rows[:, i]) * highest + rows[:, j] for i, j in combinations(range(n), 2)], axis=1
    )
    missing = np.zeros(n * n * highest * highest, dtype=bool)
    missing[of_row] = True
    chosen = [0]
    while True:
        missing[of_row[chosen[-1]]] = False
        gain = missing[of_row].sum(axis=1)
        if not gain.any():
            return tuple(tuple(int(level) for level in rows[i]) for i in chosen)
        chosen.append(int(gain.argmax()))
