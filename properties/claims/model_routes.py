"""Claims on what must not matter to the logits of a language model: the route, the kind of cache, what lies around a call."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import alike, none_of
from attnspec.properties.models import LanguageModel
from attnspec.properties.programs import SIDES, Programs
from attnspec.properties.sessions import Session, others, real_tokens, tokens
from attnspec.properties.verdict import Refused

OFFERED = Source("docs/conventions.md", "models")


@claim(
    "robust.routes-agree",
    level="must",
    handle="IV10",
    idea="I28",
    source=OFFERED,
    of="lm",
    needs=("routes",),
    given=Programs(rows=(2, 1, 3), tokens=(12, 7, 1, 17)),
    within="calibrated",
    mutants=(
        "routes.second_call_top_left",
        "routes.packed_rows_share_a_boundary",
        "routes.partial_block_is_full",
    ),
)
def every_route_gives_the_same_logits(model: LanguageModel, case: Case) -> None:
    """Every way to the logits that a model offers gives the same: another kernel, with a cache, with positions stated."""
    dtype, ids = model.profile["dtypes"][0], tokens(model, case, "ids", case.sizes.B, case.sizes.T)
    plain = model.logits(ids)
    for route in model.profile["routes"]:
        alike(model.by_route(route, ids), plain, dtype, f"logits by the route {route!r}", change=plain)


@claim(
    "mask.routes-agree-on-padding",
    level="must",
    handle="MK16",
    idea="I25",
    source=OFFERED,
    of="lm",
    needs=("routes", "padding", "left-padding", "batch"),  # what stands behind a token shows nothing
    given=Programs(sides=SIDES, rows=(3, 4), tokens=(12, 7, 21)),
    within="calibrated",
    mutants=(
        "routes.first_row_drops_the_mask",
        "routes.sorted_rows_put_back_wrongly",
        "routes.chunks_take_the_first_mask",
    ),
)
def every_route_sees_the_same_padding(model: LanguageModel, case: Case) -> None:
    """Beside padding, every way to the logits that a model offers gives the same for the real tokens."""
    dtype, B, T = model.profile["dtypes"][0], case.sizes.B, case.sizes.T
    ids, real = tokens(model, case, "ids", B, T), real_tokens(case, "ids", B, T)
    plain, as_words = model.logits(ids, real)[real], model.logits(ids)[real]
    for route in model.profile["routes"]:
        got = model.by_route(route, ids, real)[real]
        alike(got, plain, dtype, f"logits of real tokens by the route {route!r}", change=as_words - plain)


@claim(
    "cache.kinds-agree",
    level="must",
    handle="CA7",
    idea="I28",
    source=OFFERED,
    of="lm",
    needs=("cache", "caches", "chunks"),
    given=Programs(
        ("append", "begin", "other"),
        (
            (("append", 5), *(("append", 1),) * 6),
            (("append", 3), ("append", 4), ("append", 1), ("append", 4)),
            (("append", 4), ("begin", 3), ("other", 1), ("other", 1), ("append", 1)),
            (("append", 17), ("append", 2)),
        ),
    ),
    within="calibrated",
    mutants=(
        "routes.static_states_share_memory",
        "routes.windowed_full_one_late",
        "routes.static_sees_unwritten_slots",
    ),
)
def every_kind_of_cache_is_at_once(model: LanguageModel, case: Case) -> None:
    """In every kind of cache that a model offers, tokens in several calls give the logits of reading all at once."""
    _kinds_as_at_once(model, case)


def _kinds_as_at_once(model: LanguageModel, case: Case) -> None:
    """Plays the program in every kind of cache; every logit is that of reading all tokens so far at once."""
    dtype = model.profile["dtypes"][0]
    for kind in model.profile["caches"]:
        for heard in Session(model, case, kind).play():
            what = f"{heard.what} in the cache {kind!r}"
            alike(heard.got, heard.want, dtype, what, change=heard.alone - heard.want)


@claim(
    "cache.kinds-reorder",
    level="must",
    handle="CA5",
    idea="I28",
    source=OFFERED,
    of="lm",
    needs=("cache", "caches", "batch", "reordered-caches"),
    given=Programs(
        ("append", "reorder"),
        (
            (("append", 3), ("reorder", 2), ("append", 1), ("append", 1)),
            (("append", 1), ("reorder", 1), ("append", 1), ("reorder", 3), ("append", 1)),
        ),
        rows=(2, 3),
    ),
    within="calibrated",
    mutants=(
        "routes.static_keeps_its_batch",
        "routes.static_sees_unwritten_slots",
    ),
)
def every_kind_of_cache_is_reordered(model: LanguageModel, case: Case) -> None:
    """In every kind of cache that a model offers, rows that were chosen, repeated or left out go on from what they read."""
    _kinds_as_at_once(model, case)


@claim(
    "cache.kinds-fork",
    level="must",
    handle="CA12",
    idea="I28",
    source=OFFERED,
    of="lm",
    needs=("cache", "caches", "forked-caches"),
    given=Programs(
        ("append", "fork", "other"),
        (
            (("append", 4), ("fork", 1), ("append", 1), ("other", 1), ("other", 1)),
            (("append", 2), ("fork", 2), ("append", 3), ("other", 1)),
        ),
    ),
    within="calibrated",
    mutants=("calls.static_fork_shares_values",),
)
def every_kind_of_cache_is_copied(model: LanguageModel, case: Case) -> None:
    """In every kind of cache that a model offers, a copy goes on by itself, and what it reads is not in the original."""
    _kinds_as_at_once(model, case)


@claim(
    "cache.kinds-are-filled",
    level="must",
    handle="CA7",
    idea="I28",
    source=OFFERED,
    of="lm",
    needs=("cache", "caches", "chunks", "overflow"),
    given=Programs(rows=(1, 2), tokens=(7, 5), draws=0),
    within="calibrated",
    mutants=(
        "routes.static_one_slot_short",
        "routes.static_sees_unwritten_slots",
    ),
)
def every_kind_of_cache_has_room(model: LanguageModel, case: Case) -> None:
    """Every kind of cache that a model offers holds max_length tokens."""
    dtype, B, T, most = model.profile["dtypes"][0], case.sizes.B, case.sizes.T, model.max_length
    ids = tokens(model, case, "ids", B if model.profile.offers("batch") else 1, most)
    want = model.logits(ids)
    for kind in model.profile["caches"]:
        state = model.start_in(kind, len(ids))
        for at in range(0, most, T):
            got, state = model.extend(ids[:, at : at + T], state)
        last = want[:, at:]
        alike(got, last, dtype, f"logits of the last tokens of a full cache {kind!r}", change=want[:, at - 1 : -1] - last)


@claim(
    "layer.halves-make-the-whole",
    level="must",
    handle="TF10",
    idea="I28",
    source=Source("arXiv:1706.03762", "3.1"),
    of="lm",
    needs=("grafted",),
    given=Programs(rows=(2, 1), tokens=(7, 12, 2)),
    within="calibrated",
    mutants=("calls.upper_layer_reads_the_words", "calls.upper_layer_reads_the_first_word"),
)
def layers_see_the_stream_alone(model: LanguageModel, case: Case) -> None:
    """The upper layers give the same logits for what the lower ones made of the tokens, whatever tokens are called for."""
    dtype, (B, T) = model.profile["dtypes"][0], (case.sizes.B, case.sizes.T)
    ids = tokens(model, case, "ids", B if model.profile.offers("batch") else 1, T)
    plain, other = model.logits(ids), others(model, ids, case.seed)
    what = "logits of the upper layers on what the lower ones made"
    alike(model.grafted(ids, other), plain, dtype, what, change=model.logits(other) - plain)


@claim(
    "robust.surroundings-of-models",
    level="must",
    handle="IV9",
    idea="I28",
    source=Source("docs/conventions.md", "surroundings"),
    of="lm",
    given=Programs(sides=("left-padding",), rows=(2, 1), tokens=(7, 12), draws=0),
    within="calibrated",
    mutants=(
        "calls.draws_and_throws_away",
        "calls.default_dtype_after_a_refusal",
        "calls.no_grad_drops_padding",
    ),
)
def surroundings_of_a_model_do_not_matter(model: LanguageModel, case: Case) -> None:
    """The random state, default dtype, gradient mode and threads do not matter to logits, and no call changes them.

    Also beside padding; and a call that is refused leaves them alone too.
    """
    dtype, (B, T) = model.profile["dtypes"][0], (case.sizes.B, case.sizes.T)
    model.altered("settings")  # of the calls before this case
    padded = case.mask is not None and model.profile.offers("left-padding")
    ids, real = tokens(model, case, "ids", B, T), real_tokens(case, "ids", B, T) if padded else None
    shown = np.ones((B, T), dtype=bool) if real is None else real
    plain = model.logits(ids, real)[shown]
    for around in model.profile["surroundings"]:
        got, altered = model.surrounded(around, ids, real)
        none_of(altered, f"surroundings that a call altered ({around})")
        alike(got[shown], plain, dtype, f"logits in other surroundings ({around})", change=plain)
    if model.profile.offers("overflow"):
        with suppress(Refused):
            model.logits(tokens(model, case, "too many", 1, model.max_length + 1))
    none_of(model.altered("settings"), "surroundings that a call altered")


@claim(
    "robust.ids-unchanged",
    level="must",
    handle="IV6",
    idea="I28",
    source=Source("array API standard", "design topics: copies and mutation"),
    of="lm",
    given=Programs(rows=(2, 1), tokens=(7, 3)),
    within="exact",
    mutants=(
        "calls.ids_zeroed_at_padding",
        "calls.idle_row_unmasked",
    ),
)
def what_a_call_is_given_stays(model: LanguageModel, case: Case) -> None:
    """The ids and masks that a model is given are as they were after every call."""
    B, T = case.sizes.B, case.sizes.T
    ids, more = tokens(model, case, "ids", B, T), tokens(model, case, "more", B, 2)
    real = np.ones((B, T), dtype=bool)
    real[:, T // 2 :] = False
    real[0] = True
    model.altered("arrays")  # of the calls before this case
    model.logits(ids)
    if model.profile.offers("padding"):
        model.logits(ids, real)
    if model.profile.offers("cached-padding"):
        _, state = model.extend(ids, model.start(B), real)
        idle = np.ones((B, 2), dtype=bool)
        idle[1:] = False
        model.extend(more, state, idle)
    elif model.profile.offers("cache") and model.profile.offers("chunks"):
        model.extend(more, model.extend(ids, model.start(B))[1])
    none_of(model.altered("arrays"), "what calls were given and altered")
