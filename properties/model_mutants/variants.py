"""Correct models, as different from each other as may be: no check may find fault with them."""

from collections.abc import Callable
from functools import partial

from attnspec.properties.model_mutants.offering import Offering
from attnspec.properties.model_mutants.plain import Decoder
from attnspec.properties.model_mutants.recurrent import Recurrent
from attnspec.properties.model_mutants.slots import Ring, Static

VARIANTS: dict[str, Callable[[], Decoder]] = {
    "learned": partial(Decoder, positions="learned"),
    "sinusoidal": partial(Decoder, positions="sinusoidal"),
    "rotary": partial(Decoder, positions="rotary"),
    "alibi": partial(Decoder, positions="alibi"),
    "no_positions": partial(Decoder, positions="none"),
    "grouped": partial(Decoder, kv_heads=2),
    "multi_query": partial(Decoder, positions="learned", kv_heads=1),
    "window": partial(Decoder, window=5),
    "ring": partial(Decoder, window=5, cache=Ring(5)),
    "ring_alibi_grouped": partial(Decoder, positions="alibi", window=6, cache=Ring(6), kv_heads=2),
    "static": partial(Decoder, cache=Static()),
    "static_learned_window": partial(Decoder, positions="learned", window=6, cache=Static()),
    "gru": partial(Recurrent, layers=("gru", "gru")),
    "linear": partial(Recurrent, layers=("linear", "linear")),
    "hybrid_gru": partial(Recurrent, positions="rotary", layers=("gru", "attention")),
    "offering": Offering,
    "hybrid_linear_ring": partial(Recurrent, positions="rotary", window=5, cache=Ring(5), layers=("linear", "attention")),
}
