"""The decoder that offers everything is right in all of it, and each mutant of that is wrong where its probe looks."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import pytest
import torch

from attnspec.properties.model_mutants import describe, ids, load
from attnspec.properties.model_mutants.offering import Offering
from attnspec.properties.model_mutants.slots import Grown, Ring, Static
from tests.properties.offering_probes import (
    Probe,
    ahead,
    alone,
    batch,
    by_hand,
    cached,
    derived,
    far,
    grafted,
    greedy,
    leaves,
    lost,
    narrowed,
    renamed,
    reread,
    route,
    searched,
    turns,
    unaltered,
    under,
    weighed,
)

ROUNDING = 1e-10  # of float64 after two layers, with much to spare; a defect is much larger


class Windowed(Offering):
    """Has a window, and a ring for it."""

    window = 5
    kinds = MappingProxyType({"grown": Grown(), "static": Static(), "windowed": Ring(5)})


class Grouped(Offering):
    """Two query heads to a key head."""

    kv_heads = 2


RIGHT: dict[str, Callable[[], Offering]] = {"plain": Offering, "windowed": Windowed, "grouped": Grouped}

# The permutations that words are renamed by, and a row without room for another word.
CIRCLE, PAIRS = (torch.arange(29) + 1) % 29, torch.arange(28).view(-1, 2).flip(1).flatten().tolist()
SWAPS = torch.tensor([*PAIRS, 28])
LONG = "x" * 40

# Of each pair the mutant is wrong on the first and right on the second.
PROBES: dict[str, tuple[Probe, Probe]] = {
    "routes.first_row_drops_the_mask": (route("kernel", "xxxx ..xx"), route("kernel", "..xx xxxx")),
    "routes.second_call_top_left": (route("two calls", "xxxxxxxx"), route("two calls", "xx")),
    "routes.packed_rows_share_a_boundary": (route("kernel", "xxxx xxxx"), route("kernel", "xxxx")),
    "routes.partial_block_is_full": (route("kernel", "x" * 11), route("kernel", "x" * 9, "x" * 16, "x" * 7)),
    "routes.sorted_rows_put_back_wrongly": (route("kernel", "xx. x.. xxx"), route("kernel", "x.. xxx", "xxx xx. x..")),
    "routes.mask_kept_by_shape": (route("kernel", "..xx", "xxxx"), route("kernel", "..xx", "xxx", "..xx ..xx")),
    "routes.chunks_take_the_first_mask": (route("kernel", "..xxxxxx"), route("kernel", "xxxxx...", "xxxxxxxxx", ".xxx.xxx")),
    "routes.static_sees_unwritten_slots": (cached("static", "a=1 a+5"), cached("static", "a=2 a+8 a+8")),
    "routes.static_one_slot_short": (cached("static", "a=1 a+39 a+1"), cached("static", "a=1 a+38 a+1")),
    "routes.static_states_share_memory": (
        cached("static", "a=1 b=1 a+4 b+4 a+1"),
        cached("static", "a=1 b=2 a+4 b+4 a+1 c=1 c+3"),
    ),
    "routes.static_keeps_its_batch": (
        cached("static", "a=2 a+4 a@0,1,0 a+1"),
        cached("static", "a=2 a+4 a@1,0 a+1 a@0,1,1 a+1"),
    ),
    "routes.windowed_full_one_late": (
        cached("windowed", "a=1 a+5 a+1 a+1"),
        cached("windowed", "a=1 a+4 a+1 a+1 b=1 b+6 b+1"),
    ),
    "generate.last_column_read": (greedy("xx.. x... xxx."), greedy("..xx .xxx")),
    "generate.pads_count_as_words": (greedy("..xx", count=4), greedy("xxxx xxxx")),
    "generate.mask_of_the_first_row": (greedy("xxxxxx ...xxx"), greedy("..xx ..xx")),
    "generate.mask_lost_after_the_prompt": (greedy("...xxx"), greedy("...xxx", count=1)),
    "generate.steps_count_columns": (greedy("....xxxx"), greedy("....xxxx xxxx....", count=1)),
    "generate.columns_trimmed_by_the_first_row": (greedy("...xxx xxxxxx"), greedy("xxxxxx ...xxx", "..xx ..xx")),
    "generate.word_one_ends_the_row": (greedy("xxxxxxx " * 8, count=8), greedy("xxxxxxx " * 8, count=1)),
    "generate.repetition_penalty_inherited": (greedy("xxxxxxxx " * 4), greedy("x", count=1)),
    "generate.draft_accepted_one_too_far": (greedy("xxxxxxxxxxxx " * 4, count=12), greedy("xxxx " * 2, count=1)),
    "generate.prompt_cache_cut_by_length": (
        greedy("xxxxxxxx", "xxxxxx", first=torch.tensor([3, 4])),
        greedy("xxxxxx", "xxxxxxxx", first=torch.tensor([3, 4])),
    ),
    "generate.last_word_unread": (turns(4, 3), turns(4)),
    "generate.said_words_not_counted": (turns(4, 3), turns(4)),
    "generate.only_the_last_word_of_a_turn": (turns(4, 3), turns(4, 1, 1)),
    "generate.turns_share_the_last_row": (turns(4, 3), turns(4, 3, rows=1)),
    "beams.first_row_decides_the_reorder": (searched(), searched(rows=1)),
    "beams.row_offset_missing": (searched(), searched(rows=1)),
    "beams.history_stays": (searched(), searched(count=1)),
    "beams.all_start_equal": (searched(), searched(width=1)),
    "beams.last_word_not_scored": (searched(), greedy("xxxxx")),
    "beams.order_of_the_step_before": (searched(), searched(count=1)),
    "training.shifted_twice": (lost("xxxxxx"), derived("xxxxxx")),
    "training.mask_not_shifted": (lost("xxxx.. xxxxxx"), lost("..xxxx xxxxxx")),
    "training.first_word_scored_from_padding": (lost("..xxxx xxxxxx"), lost("xxxx.. xxxxxx")),
    "training.padding_divides": (lost("xxxx.. xxxxxx"), lost("xxxxxx xxxxxx")),
    "training.means_of_micro_batches": (lost("xxxxxx xxxxxx xxx..."), lost("xxxxxx xxx...")),
    "training.word_zero_ignored": (lost("xxxxxxxx " * 5), lost("xxxx", seed=1)),
    "training.last_chunk_dropped": (lost("x" * 12), lost("x" * 9)),
    "training.odd_row_dropped": (derived("xxxx xxxx xxxx"), derived("xxxx xxxx")),
    "training.gradients_pile_up": (derived("xxxx", times=2), derived("xxxx")),
    "training.recomputed_without_the_window": (derived("xxxxxxxx", True), derived("xxxxx", True)),
    "training.checkpoint_cuts_off_the_embedding": (derived("xxxx", True), derived("xxxx")),
    "training.statistics_detached": (derived("xxxx"), lost("xxxx")),
    "training.shared_keys_of_one_head": (derived("xxxx"), lost("xxxx")),
    "training.tail_without_score_gradient": (derived("x" * 11), derived("xxxxxxx")),
    "copies.reloaded_without_a_norm": (reread("xxxx"), route("", "xxxx")),
    "copies.reloaded_with_tied_words": (reread("xxxx"), route("", "xxxx")),
    "copies.reloaded_squares_transposed": (reread("xxxx"), route("", "xxxx")),
    "copies.reloaded_without_the_window": (reread("xxxxxxxx"), reread("xxxxx")),
    "copies.reloaded_without_angles": (reread("xxxx"), reread("x")),
    "copies.reloaded_from_float32": (reread("xxxx"), route("", "xxxx")),
    "copies.layers_sorted_by_name": (reread("xxxx"), route("", "xxxx")),
    "copies.renamed_the_other_way": (renamed(CIRCLE), renamed(SWAPS)),
    "copies.renamed_without_the_output": (renamed(CIRCLE), renamed(torch.arange(29))),
    "copies.word_zero_is_nothing": (renamed(CIRCLE), renamed(torch.cat([torch.zeros(1).long(), 29 - torch.arange(1, 29)]))),
    "copies.narrowed_below_float16": (narrowed("float16", "xxxx ...."), narrowed("bfloat16", "..xx ....")),
    "copies.narrowed_norm_divides_by_zero": (narrowed("float16", "xx.."), narrowed("bfloat16", "..xx ....")),
    "copies.narrowed_empty_rows_are_nan": (narrowed("bfloat16", "..xx"), narrowed("float16", "xx..")),
    "copies.narrowed_in_place": (narrowed("float16", "..xx"), route("", "..xx")),
    "calls.ids_zeroed_at_padding": (unaltered("logits", "..xx"), unaltered("extend", "..xx")),
    "calls.idle_row_unmasked": (unaltered("extend", "xx .."), unaltered("extend", "xx .x")),
    "calls.static_fork_shares_values": (cached("static", "a=1 a+4 b=a a+2 b+2 a+1"), cached("grown", "a=1 a+4 b=a a+2 b+2")),
    "calls.draws_and_throws_away": (leaves("xxxx"), leaves("x")),
    "calls.default_dtype_after_a_refusal": (leaves(LONG + "x"), leaves(LONG)),
    "calls.no_grad_drops_padding": (under("grad", "..xx"), under("grad", "xxxx")),
    "calls.table_in_the_default_dtype": (under("dtype", "xxxx"), under("grad", "xxxx")),
    "calls.one_thread_other_kernel": (under("one thread", "xxxx", "two threads"), under("dtype", "xxxx")),
    "calls.jitter_of_the_router": (under("seed", "xxxx"), under("dtype", "xxxx")),
    "calls.weights_of_heads_and_rows_mixed": (weighed("xxxx xxxx"), weighed("xxxx")),
    "calls.weights_without_the_mask": (weighed("..xx"), weighed("xxxx xxxx")),
    "calls.weights_in_one_buffer": (weighed("xxxx"), route("", "xxxx")),
    "calls.derivative_by_the_whole_row": (ahead(3), ahead(7)),
    "calls.derivative_through_hidden_keys": (ahead(3), ahead(7)),
    "calls.upper_layer_reads_the_words": (grafted("xxxx", 1), grafted("xxxx", 0)),
    "calls.upper_layer_reads_the_first_word": (grafted("xxxx", 1), grafted("xxxx", 0)),
}
FAINT = {  # of what is rounded, or nearly the same; others are plain wrong
    "copies.reloaded_from_float32": 1e-9,
    "calls.table_in_the_default_dtype": 1e-4,
    "calls.one_thread_other_kernel": 1e-5,
    "calls.jitter_of_the_router": 1e-5,
}


def test_each_mutant_has_its_probes() -> None:
    mine = ("routes", "generate", "beams", "training", "copies", "calls")
    assert list(PROBES) == [mutant for mutant in ids() if mutant.partition(".")[0] in mine]


@pytest.mark.parametrize("mutant", PROBES)
def test_what_offers_everything_is_right_where_a_mutant_is_probed(mutant: str) -> None:
    searches = mutant.partition(".")[0] in ("generate", "beams")  # which know nothing of windows and groups, and take long
    for probe in PROBES[mutant]:
        assert max(probe(make()) for make in ([Offering] if searches else RIGHT.values())) <= ROUNDING


@pytest.mark.parametrize("mutant", PROBES)
def test_a_mutant_is_wrong_where_its_probe_looks(mutant: str) -> None:
    assert PROBES[mutant][0](load(mutant)()) > FAINT.get(mutant, 1e-3)


@pytest.mark.parametrize("mutant", PROBES)
def test_a_mutant_is_right_close_by(mutant: str) -> None:
    assert PROBES[mutant][1](load(mutant)()) <= ROUNDING


@pytest.mark.parametrize("mutant", PROBES)
def test_a_mutant_says_where_it_was_seen(mutant: str) -> None:
    known = ("https://", "huggingface.md: ", "frameworks.md: ", "claims.md: ", "arXiv:")
    assert describe(mutant).source.startswith(known)


# What the mutants leave alone, checked of the decoder that they start from


@pytest.mark.parametrize("kind", RIGHT)
def test_logits_are_those_written_down_once_more(kind: str) -> None:
    model, row = RIGHT[kind](), batch("x" * 13)[0][0]
    assert far(alone(model, row), by_hand(model, model.weights, row)[0]) <= ROUNDING


@pytest.mark.parametrize("kind", RIGHT)
def test_all_routes_and_caches_are_the_logits(kind: str) -> None:
    model = RIGHT[kind]()
    for name in model.routes:
        assert route(name, "xxxxxxx", "..xxxxx xxxxx.. .x.x.x.", "x", "xx ..")(model) <= ROUNDING
    for name in model.caches:
        assert cached(name, "a=3 a+4,0,2 a+1 b=a a@2,0,2,1 a+1 b<2 b+3 a<6 a+3,9,1,2 b+9 b+1")(model) <= ROUNDING


def test_a_narrowed_model_is_near_and_can_be_extended() -> None:
    model, words = Offering(), batch("xxxxxx xxxxxx")[0]
    for dtype, near in (("float16", 2.0**-8), ("bfloat16", 2.0**-5)):
        narrow = model.narrowed(dtype)
        assert narrow.logits(words).dtype == getattr(torch, dtype)
        assert far(narrow.logits(words), model.logits(words)) < near
        for start in (narrow.start, *narrow.caches.values()):
            assert far(narrow.extend(words, start(2))[0], model.logits(words)) < near


def test_a_reloaded_model_has_memory_of_its_own() -> None:
    model, words = Offering(), batch("xxxx")[0]
    other, before = model.reloaded(), model.logits(words)
    for weight in other.weights.values():
        weight.zero_()
    assert torch.equal(model.logits(words), before)
