"""Claims on models that remember: step by step is at once, under any program of steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import alike, none_of
from attnspec.properties.models import LanguageModel
from attnspec.properties.programs import SIDES, Op, Programs, Step
from attnspec.properties.sessions import Session, at_once, real_tokens, tokens
from attnspec.properties.subject import FloatArray
from attnspec.properties.verdict import Inapplicable, Refused

SHAZEER = Source("arXiv:1911.02150", "2.4")
EVERYTHING: tuple[Op, ...] = ("append", "ragged", "reorder", "crop", "fork", "begin", "other", "restart")
ONE_BY_ONE: tuple[Step, ...] = (("append", 1),) * 7
PROMPTS: tuple[tuple[Step, ...], ...] = (
    (("append", 5), *(("append", 1),) * 6),
    ONE_BY_ONE,
    (("append", 1), ("append", 1)),
    (("append", 12), ("append", 1)),
)


def _as_at_once(model: LanguageModel, case: Case) -> None:
    """Plays the program; every logit is that of reading all tokens so far at once."""
    dtype = model.profile["dtypes"][0]
    for heard in Session(model, case).play():
        alike(heard.got, heard.want, dtype, heard.what, change=heard.alone - heard.want)


@claim(
    "cache.step-by-step",
    level="must",
    handle="CA1",
    idea="I28",
    source=SHAZEER,
    of="lm",
    needs=("cache",),
    given=Programs(("append",), PROMPTS, draws=0),
    within="calibrated",
    mutants=(
        "cache.last_key_lost_at_block_boundary",
        "mask.window_wider_in_chunks",
        "cache.alibi_lost_in_steps",
    ),
)
def step_by_step_is_at_once(model: LanguageModel, case: Case) -> None:
    """A prompt and then token by token give the logits of reading all tokens at once."""
    _as_at_once(model, case)


@claim(
    "cache.chunks",
    level="must",
    handle="CA1",
    idea="I28",
    source=SHAZEER,
    of="lm",
    needs=("cache", "chunks"),
    given=Programs(
        ("append",),
        (
            (("append", 3), ("append", 4), ("append", 1), ("append", 4)),
            (("append", 2), ("append", 5)),
            (("append", 17), ("append", 3), ("append", 2), ("append", 1)),
            (("append", 1), ("append", 9), ("append", 9)),
        ),
    ),
    within="calibrated",
    mutants=(
        "mask.one_ahead_after_sixteen",
        "position.table_too_short",
        "cache.ring_keeps_head_of_long_chunk",
    ),
)
def any_chunks_are_at_once(model: LanguageModel, case: Case) -> None:
    """However the tokens are cut into calls, the logits are those of reading all of them at once."""
    _as_at_once(model, case)


@claim(
    "cache.ragged-rows",
    level="must",
    handle="CA10",
    idea="I28",
    source=SHAZEER,
    of="lm",
    needs=("cache", "batch", "cached-padding"),
    given=Programs(
        ("append", "ragged", "reorder", "crop"),
        (
            (("ragged", 5), ("append", 1), ("append", 1)),
            (("ragged", 4), ("ragged", 3)),
            (("append", 2), ("ragged", 5), ("append", 1)),
            (("ragged", 1), ("ragged", 1), ("append", 2), ("ragged", 1)),
            (("ragged", 5), ("reorder", 2), ("append", 1)),
            (("ragged", 6), ("crop", 1), ("append", 2)),
        ),
        rows=(3, 2),
        sides=SIDES,
    ),
    within="calibrated",
    mutants=(
        "padding.mask_of_one_column_ignored",
        "batch.reorder_keeps_lengths",
        "batch.first_row_decides_what_is_past",
    ),
)
def rows_of_different_length_are_each_alone(model: LanguageModel, case: Case) -> None:
    """Rows that remember different numbers of tokens go on as each would alone, wherever the padding of a call stood."""
    _as_at_once(model, case)


@claim(
    "cache.reorder",
    level="must",
    handle="CA5",
    idea="I28",
    source=Source("arXiv:1609.08144", "7, beam search"),
    of="lm",
    needs=("cache", "batch", "reorder"),
    given=Programs(
        ("append", "reorder"),
        (
            (("append", 3), ("reorder", 1), ("append", 2)),
            (("append", 4), ("reorder", 3), ("append", 1), ("reorder", 1), ("append", 1)),
        ),
        rows=(3, 4),
    ),
    within="calibrated",
    mutants=(
        "batch.reorder_in_place",
        "state.reorder_skips_recurrent",
        "cache.ring_full_one_step_early",
    ),
)
def reordered_rows_go_on(model: LanguageModel, case: Case) -> None:
    """After rows were chosen, repeated or left out, as beam search does, each goes on from what it had read."""
    _as_at_once(model, case)


@claim(
    "cache.crop",
    level="must",
    handle="CA6",
    idea="I28",
    source=Source("arXiv:2211.17192", "2.1, rejected tokens"),
    of="lm",
    needs=("cache", "crop"),
    given=Programs(
        ("append", "crop"),
        (
            (("append", 6), ("crop", 2), ("append", 1), ("append", 2)),
            (("append", 9), ("crop", 6), ("append", 5)),
            (("append", 3), ("crop", 1), ("crop", 1), ("append", 1)),
            (("append", 2), ("crop", 2), ("append", 3)),
        ),
    ),
    within="calibrated",
    mutants=(
        "cache.crop_to_nothing_keeps_all",
        "cache.ring_cropped_in_place",
        "state.rollback_of_last_call_ignored",
    ),
)
def cropped_states_go_on(model: LanguageModel, case: Case) -> None:
    """A state that has forgotten its last tokens goes on as one that never read them."""
    _as_at_once(model, case)


@claim(
    "cache.fork",
    level="must",
    handle="CA12",
    idea="I28",
    source=SHAZEER,
    of="lm",
    needs=("cache", "fork"),
    given=Programs(
        ("append", "fork", "other"),
        (
            (("append", 4), ("fork", 1), ("append", 1), ("other", 1), ("other", 1)),
            (("append", 2), ("fork", 5), ("append", 3), ("fork", 1), ("append", 1), ("other", 2)),
        ),
    ),
    within="calibrated",
    mutants=(
        "cache.fork_shares_open_block",
        "state.fork_shares_state",
        "state.kept_on_module",
    ),
)
def forks_do_not_alias(model: LanguageModel, case: Case) -> None:
    """A copy of a state goes on by itself, and what it reads is not in the original."""
    _as_at_once(model, case)


@claim(
    "cache.sequences-apart",
    level="must",
    handle="CA15",
    idea="I28",
    source=SHAZEER,
    of="lm",
    needs=("cache",),
    given=Programs(
        ("append", "begin", "other", "restart"),
        (
            (("append", 4), ("begin", 3), ("other", 1), ("other", 1), ("append", 1)),
            (("append", 3), ("begin", 2), ("begin", 2), ("other", 1), ("other", 1), ("other", 1)),
            (("append", 1), ("begin", 1), ("other", 1)),
            (("append", 6), ("restart", 1), ("append", 2), ("append", 1)),
        ),
    ),
    within="calibrated",
    mutants=(
        "state.slot_by_number_modulo",
        "state.one_token_start_reads_old_slot",
        "cache.step_tiles_heads",
    ),
)
def sequences_do_not_mix(model: LanguageModel, case: Case) -> None:
    """States of one model, used in turn or one after the other, do not see each other's tokens."""
    _as_at_once(model, case)


@claim(
    "cache.programs",
    level="must",
    handle="CA15",
    idea="I28",
    source=SHAZEER,
    of="lm",
    needs=("cache",),
    given=Programs(EVERYTHING, sides=SIDES, rows=(2, 3, 1), share=1.0),
    within="calibrated",
    mutants=(
        "cache.sequences_share_buffer",
        "mask.mask_of_ones_drops_causal",
        "state.short_chunk_loses_tail",
    ),
)
def any_program_is_a_list(model: LanguageModel, case: Case) -> None:
    """Any program of append, reorder, crop, fork, sequences in turn and restart gives the logits of lists of tokens."""
    _as_at_once(model, case)


@claim(
    "cache.overflow-raises",
    level="should",
    handle="CA7",
    idea="I28",
    source=Source("docs/conventions.md", "models"),
    of="lm",
    needs=("cache", "overflow"),
    given=Programs(rows=(1, 2), tokens=(7, 1, 40), draws=0),
    within="exact",
    mutants=(
        "cache.overflow_wraps",
        "cache.refused_call_counts",
        "position.no_limit",
    ),
)
def too_many_tokens_raise(model: LanguageModel, case: Case) -> None:
    """One token more than max_length raises an error, at once and beside a state, and leaves the state as it was.

    Nothing wraps, is clamped or is overwritten in silence. What still fits is read after that.
    """
    dtype, B, most = model.profile["dtypes"][0], case.sizes.B, model.max_length
    if most < 3:
        raise Inapplicable(f"max_length is {most}: there is no call that fits beside one that does not")
    ids = tokens(model, case, "too many", B, most + 1)
    none_of(_answers(lambda: model.logits(ids)), f"logits of {most + 1} tokens at once, where max_length is {most}")
    state, read = model.start(B), 0
    while read < most - 2:
        count = min(case.sizes.T, most - 2 - read)
        _, state = model.extend(ids[:, read : read + count], state)
        read += count
    none_of(_answers(lambda: model.extend(ids[:, read:], state)), f"logits of 3 tokens where there is room for {most - read}")
    try:
        got, state = model.extend(ids[:, read:most], state)
    except Refused as refused:
        none_of((str(refused),), f"refusals of {most - read} tokens for which there is room, after 3 were refused")
    want = model.logits(ids[:, :most])
    alike(
        got, want[:, read:], dtype, "logits of the last tokens that fit, after a refusal", change=want[:, read - 1 : most - 1]
    )
    none_of(_answers(lambda: model.extend(ids[:, most:], state)), f"logits of token {most + 1} of {most}")


def _answers(call: Callable[[], object]) -> tuple[str, ...]:
    """What should raise and does not."""
    try:
        call()
    except Refused:
        return ()
    return ("no error",)


@claim(
    "cache.room-for-every-row",
    level="must",
    handle="CA7",
    idea="I28",
    source=Source("docs/conventions.md", "models"),
    of="lm",
    needs=("cache", "overflow", "batch", "cached-padding"),
    given=Programs(rows=(3, 2), tokens=(9, 5), sides=SIDES, draws=2),
    within="calibrated",
    mutants=(
        "position.slice_pulled_back",
        "padding.fills_the_room",
        "batch.capacity_of_longest_row",
    ),
)
def every_row_has_room(model: LanguageModel, case: Case) -> None:
    """A row may hold max_length real tokens, whatever other rows hold and however much padding was read on the way."""
    dtype, B, T, most = model.profile["dtypes"][0], case.sizes.B, case.sizes.T, model.max_length
    if most < 2:
        raise Inapplicable(f"max_length is {most}: no row can differ from a full one")
    state, number = model.start(B), 0
    rows: list[list[int]] = [[] for _ in range(B)]
    last: list[FloatArray] = [np.zeros(model.vocab_size) for _ in range(B)]
    while min(map(len, rows)) < most:
        ids, real = tokens(model, case, f"call {number}", B, T), real_tokens(case, f"call {number}", B, T)
        real &= np.array([[len(row)] for row in rows]) + real.cumsum(1) <= most
        try:
            got, state = model.extend(ids, state, real)
        except Refused as refused:
            none_of((str(refused),), f"refusals of call {number + 1}, where every row has room")
        for b in range(B):
            rows[b].extend(int(token) for token in ids[b, real[b]])
            last[b] = got[b, real[b]][-1] if real[b].any() else last[b]
        number += 1
    whole = np.stack(at_once(model, rows))
    what = "logits of the last tokens of full rows"
    alike(np.stack(last), whole[:, -1], dtype, what, change=whole[:, -2] - whole[:, -1], among=whole)
