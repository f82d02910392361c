"""Tokens and their places belong together, and so do the tables: nothing is broadcast."""

import re

import numpy as np
import pytest

from attnspec.reference.embed_tokens import embed_tokens, embed_tokens_backward
from attnspec.reference.shapes import ShapeError

IDS, PLACES = np.array([[0, 1, 2], [2, 1, 0]]), np.array([[0, 1, 2], [0, 0, 1]])
TABLES = {"embedding.weight": np.ones((3, 2)), "position.weight": np.ones((4, 2))}


@pytest.mark.parametrize(
    ("ids", "places", "tables", "positions", "error", "message"),
    [
        (IDS[:1], PLACES, TABLES, "learned", ShapeError, "B=1 in ids and B=2 in places: B is one size"),
        (IDS, PLACES[:, :1], TABLES, "learned", ShapeError, "T=3 in ids and T=1 in places: T is one size"),
        (IDS, PLACES[0], TABLES, "learned", ShapeError, "places.shape=(3,): places has the 2 axes [B,T]"),
        (IDS[0], PLACES[:1], TABLES, "learned", ShapeError, "ids.shape=(3,): ids has the 2 axes [B,T]"),
        (IDS, PLACES, TABLES | {"position.weight": np.ones((4, 1))}, "learned", ShapeError,
         "M=2 in embedding.weight and M=1 in position.weight: M is one size"),
        (IDS, PLACES, {"embedding.weight": np.ones((3, 2))}, "sinusodial", ValueError,
         "positions='sinusodial': it is one of sinusoidal, learned, rotary, alibi or None; pass one of these"),
    ],
)  # fmt: skip
def test_errors(ids, places, tables, positions, error, message):
    for call in (embed_tokens, lambda i, p, t, **o: embed_tokens_backward(i, p, t, np.ones((2, 3, 2)), **o)):
        with pytest.raises(error, match="^" + re.escape(message)):
            call(ids, places, tables, positions=positions)
