"""Planted defects of caches, recurrent states and rows: a short program sees each, and one close to it sees nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnspec.properties.model_mutants import ids, load
from attnspec.properties.model_mutants.plain import Decoder, State
from attnspec.properties.model_mutants.recurrent import Recurrent

# Words of a program: "a=2" starts a with 2 rows; "a+5" reads 5 tokens a row, "a+5,0" as many as each row has; "a<3" crops;
# "b=a" forks; "a@1,0" reorders. First what a mutant gets wrong, then what comes close and is right ("" where nothing does).
PROGRAMS = {
    "cache.crop_keeps_one_more": ("a=1 a+8 a<5 a+2", "a=1 a+8 a<8 a+2"),
    "cache.crop_first_layer_only": ("a=1 a+8 a<5 a+2", "a=1 a+3 a+4 a<7 a+2"),
    "cache.crop_to_nothing_keeps_all": ("a=1 a+6 a<0 a+3", "a=1 a+6 a<1 a+3"),
    "cache.fork_shares_open_block": ("a=1 a+6 b=a a+3 b+3 a+2", "a=1 a+8 b=a a+3 b+3 a+2"),
    "cache.sequences_share_buffer": ("a=1 b=1 a+4 b+4 a+1", "a=1 a+4 a+1 b=1 b+4 b+1 c=2 b+1"),
    "cache.ring_written_before_read": ("a=1 a+6 a+2", "a=1 a+1 a+5 a+1 a+1 a+1 a+1 a+1"),
    "cache.ring_keeps_head_of_long_chunk": ("a=1 a+6 a+1", "a=1 a+5 a+1 a+5 a+4"),
    "cache.ring_full_one_step_early": ("a=1 a+4 a+1", "a=1 a+5 a+1 a+1 a+4 a+1"),
    "cache.ring_cropped_in_place": ("a=1 a+9 a<7 a+2", "a=1 a+6 a<3 a+7 a<9 a+2"),
    "cache.overflow_wraps": ("a=1 a+39 a+2", "a=1 a+39 a+1"),
    "cache.refused_call_counts": ("a=1 a+36 a+9 a+2", "a=1 a+36 a+4"),
    "cache.kept_in_float32": ("a=1 a+8 a+1", ""),
    "cache.last_key_lost_at_block_boundary": ("a=1 a+8 a+1", "a=1 a+7 a+2 a+8 a+9"),
    "cache.growth_clears_upper_layer": ("a=1 a+8 a+1", "a=1 a+9 a+1 a+8"),
    "cache.step_tiles_heads": ("a=1 a+4 a+1", "a=1 a+4 a+2"),
    "cache.alibi_lost_in_steps": ("a=1 a+4 a+1", "a=1 a+4 a+2"),
    "cache.last_draft_not_stored": ("a=1 a+4 a+2 a+1", "a=1 a+4 a+1 a+1 a+2"),
    "cache.upper_layer_counts_twice": ("a=1 a+4 a+1", "a=1 a+3 a+3 a+3"),
    "state.chunk_keeps_first_token": ("a=1 a+4 a+2 a+1", "a=1 a+4 a+1 a+1 a+2"),
    "state.short_chunk_loses_tail": ("a=1 a+4 a+2 a+1", "a=1 a+2 a+1 a+3 a+1 a+4"),
    "state.tail_after_convolution": ("a=1 a+4 a+1", "a=1 a+1 a+1 a+1 a+1"),
    "state.one_token_start_reads_old_slot": ("a=1 a+3 b=1 b+1", "a=1 a+1 b=1 b+2 b+1"),
    "state.kept_on_module": ("a=1 a+3 b=a a+1 b+1", "a=1 a+3 a+1 b=1 b+2 b+1"),
    "state.slot_by_number_modulo": ("a=1 b=1 c=1 a+3 c+3 a+1", "a=1 b=1 a+3 b+3 a+1 c=1 c+3 b+1"),
    "state.crop_leaves_recurrent": ("a=1 a+6 a<4 a+1", "a=1 a+6 a<6 a+1"),
    "state.crop_to_checkpoint": ("a=1 a+9 a<6 a+1", "a=1 a+9 a<8 a+1"),
    "state.rollback_of_last_call_ignored": ("a=1 a+4 a+3 a<4 a+1", "a=1 a+4 a+3 a<5 a+1 a<4 a+1"),
    "state.reorder_skips_recurrent": ("a=2 a+4 a@1,0 a+1", "a=2 a+4 a@0,1,0 a+1"),
    "state.fork_shares_state": ("a=1 a+4 b=a a+1 b+1", "a=1 a+4 b=a b+1"),
    "state.prompt_state_in_bfloat16": ("a=1 a+8 a+1", "a=1 a+1 a+1 a+1"),
    "state.running_statistics": ("a=1 a+4 a+2", "a=1 a+4"),
    "batch.reorder_in_place": ("a=3 a+4 a@1,0,2 a+1", "a=3 a+4 a@1,2,2 a+1"),
    "batch.reorder_keeps_lengths": ("a=2 a+4,3 a@1,0 a+1", "a=2 a+4 a@1,0 a+1"),
    "batch.first_row_decides_what_is_past": ("a=2 a+0,3 a+1", "a=2 a+3,0 a+1 a+0,1"),
    "batch.crop_leaves_phantoms": ("a=2 a+3,5 a<4 a+1", "a=2 a+5 a<4 a+1"),
    "batch.slots_of_first_row": ("a=2 a+2,5 a+1", "a=2 a+5 a+1"),
    "batch.rotation_of_first_row_only": ("a=2 a+4 a+1", "a=2 a+4 a+2 b=1 b+4 b+1"),
    "batch.idle_row_shifts_others": ("a=2 a+3 a+0,2 a+1", "a=2 a+3 a+2,0 a+1"),
    "batch.capacity_of_longest_row": ("a=2 a+36,2 a+0,9", "a=2 a+36,2 a+0,4 a+4"),
    "batch.tokens_over_capacity": ("a=3 a+14", "a=3 a+13 a+13 b=1 b+40"),
}
PLANTED = [mutant for mutant in ids() if mutant.partition(".")[0] in ("cache", "batch", "state")]
ENOUGH = {"cache.kept_in_float32": 1e-8, "state.prompt_state_in_bfloat16": 1e-5}  # of what is rounded; others are plain wrong


def answers(model: Decoder, program: str) -> list[Tensor]:
    """The logits of the real tokens of each call; none where a call is refused."""
    generator, states, found = torch.Generator().manual_seed(2), dict[str, State](), list[Tensor]()
    for name, verb, rest in ((word[0], word[1], word[2:]) for word in program.split()):
        if verb == "=":
            states[name] = model.fork(states[rest]) if rest in states else model.start(int(rest))
        elif verb == "<":
            states[name] = model.crop(states[name], int(rest))
        elif verb == "@":
            states[name] = model.reorder(states[name], [int(row) for row in rest.split(",")])
        else:
            many = torch.tensor([int(n) for n in rest.split(",")]).expand(len(states[name].length))
            mask = (torch.arange(int(many.max())) < many[:, None]).long()
            row = torch.randint(0, model.vocab_size, mask.shape, generator=generator)
            try:
                logits, states[name] = model.extend(row, states[name], None if mask.all() else mask)
            except ValueError:
                mask, logits = mask[:0], torch.zeros(0, mask.shape[1], model.vocab_size, dtype=torch.float64)
            found.append(logits[mask == 1])
    return found


def apart(model: Decoder, program: str) -> float:
    """The largest difference from the correct model, as a share of its largest logit; infinite where one is refused."""
    want, got = answers(correct(model), program), answers(model, program)
    if [x.shape for x in want] != [x.shape for x in got]:
        return float("inf")
    return max(float((x - y).abs().max() / y.abs().max()) if len(y) else 0.0 for x, y in zip(got, want, strict=True))


def correct(model: Decoder) -> Decoder:
    """The variant that a mutant breaks, with a grown cache: which one it is makes no difference."""
    kind = Recurrent if isinstance(model, Recurrent) else Decoder
    return kind(positions=model.positions, window=model.window, kv_heads=model.kv_heads, layers=model.layers, seed=model.seed)


def test_each_mutant_has_a_program() -> None:
    assert sorted(PROGRAMS) == sorted(PLANTED)


@pytest.mark.parametrize("mutant", PLANTED)
def test_a_mutant_is_wrong_where_its_program_looks(mutant: str) -> None:
    assert apart(load(mutant)(), PROGRAMS[mutant][0]) > ENOUGH.get(mutant, 1e-2)


@pytest.mark.parametrize("mutant", [mutant for mutant, (_, close) in PROGRAMS.items() if close])
def test_a_mutant_is_right_close_by(mutant: str) -> None:
    assert apart(load(mutant)(), PROGRAMS[mutant][1]) <= 1e-12


@pytest.mark.parametrize("mutant", PLANTED)
def test_a_mutant_reads_a_row_without_a_cache_as_it_should(mutant: str) -> None:
    model = load(mutant)()
    row = torch.randint(0, model.vocab_size, (1, 24), generator=torch.Generator().manual_seed(4))
    want = correct(model).logits(row)
    assert float((model.logits(row) - want).abs().max()) <= 1e-12 * float(want.abs().max())
