"""Mutants of positions, padding and masks: each is wrong where its docstring says, and right beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnspec.properties.model_mutants import ids, load
from attnspec.properties.model_mutants.plain import Decoder
from attnspec.properties.model_mutants.recurrent import Recurrent

LONG = "x" * 16
CHUNKS, STEPS, SINGLE = ("extend xxx", "extend xx"), ("extend xxx", "extend x", "extend x"), ("extend x",) * 9

# A script: calls on one state ("logits" has none; "ones" is logits under a mask of ones) with a word for each row:
# x a token, 0 the token 0, . padding. Of each pair the mutant is wrong on the first and right on the second.
SCRIPTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "position.columns_of_first_call": (("logits ..xxx xxxxx",), ("extend xxx", "extend .x.x")),
    "position.longest_row": (("extend xxx.. xxxxx", "extend x x"), ("extend .xxx x.xx", "extend xx xx")),
    "position.restarts": (STEPS, ("logits ..xxx",)),
    "position.angles_by_shape": (("extend xxx", "extend xxx"), ("extend xxx", "extend xx", "extend x")),
    "position.chunk_offset_twice": (CHUNKS, STEPS),
    "position.last_of_call": (CHUNKS, STEPS),
    "position.rotated_again": (STEPS, ("extend ..xxx xx.xx",)),
    "position.step_turns_backwards": (STEPS, CHUNKS),
    "position.stretched_by_length": ((f"logits {LONG}x",), (f"extend .{LONG}.",)),
    "position.alibi_from_call_start": (CHUNKS, STEPS),
    "position.table_too_short": ((f"extend {LONG}", "extend x"), (f"logits {LONG}x",)),
    "position.slice_pulled_back": ((f"extend {LONG}{LONG}xxxxx", "extend xx.."), (f"extend {LONG}{LONG}xxxxx", "extend xx.")),
    "position.no_limit": ((f"logits {LONG}{LONG}xxxxxxxxx",), (f"logits {LONG}{LONG}xxxxxxxx",)),
    "padding.forgotten_after_the_call": (("extend ..xx", "extend x"), ("extend ..xx x.x.",)),
    "padding.heads_tiled": (("logits ..xx xxxx",), ("logits x.xx x.xx",)),
    "padding.right_only": (("logits ..xx",), ("extend xx..", "extend x")),
    "padding.state_of_last_column": (("extend xx..", "extend x"), ("extend .x.x", "extend x")),
    "padding.convolution_reads_pads": (("logits .xx",), CHUNKS),
    "padding.decays_the_state": (("extend xx..", "extend x"), ("extend .x.x", "extend x")),
    "padding.token_with_pad_id": (("logits .x0x",), ("logits xx0x",)),
    "padding.last_column_decides": (("logits ..xx",), ("logits ..xx xxx.",)),
    "padding.batch_of_one": (("logits .xxx",), ("logits .xxx xx.x",)),
    "padding.alibi_counts_columns": (("logits xx..xx",), ("logits ..xxxx",)),
    "padding.past_counts_columns": (("extend xx..", "extend x"), ("logits .x.xx.",)),
    "padding.mask_of_one_column_ignored": (("extend xx xx", "extend . x", "extend x x"), ("extend xx xx", "extend .x x.")),
    "padding.fills_the_room": ((f"logits .{LONG}{LONG}xxxxxxxx",), (f"logits .{LONG}{LONG}xxxxxxx",)),
    "mask.top_left_with_a_past": (CHUNKS, STEPS),
    "mask.cached_call_not_causal": (("extend xxx",), ("logits xxx",)),
    "mask.one_ahead_after_sixteen": ((f"extend {LONG}", "extend xx"), (f"extend {LONG[1:]}", "extend xx")),
    "mask.only_last_block_of_keys": (("logits xxxxxxxx",), ("logits xxxxxxx",)),
    "mask.mask_of_ones_drops_causal": (("ones xxx",), ("logits xxx xx.",)),
    "mask.window_wider_in_chunks": (("logits xxxxxx",), SINGLE),
    "mask.window_counts_columns": (("logits xx...xx",), ("logits ...xxxxxxx",)),
    "mask.after_the_softmax": (("logits xxx",), SINGLE),
    "mask.fill_too_small": (("logits xxx",), SINGLE),
    "mask.blocks_see_themselves": (("logits xxx",), SINGLE),
    "mask.norm_over_time": (("logits xxx",), SINGLE),
    "mask.scale_of_the_call": (("logits xxx",), SINGLE),
    "mask.experts_choose_tokens": (("logits xxx",), SINGLE),
}


def correct(mutant: Decoder) -> Decoder:
    """The variant that a mutant breaks."""
    family = Recurrent if isinstance(mutant, Recurrent) else Decoder
    return family(
        positions=mutant.positions,
        window=mutant.window,
        cache=mutant.cache,
        kv_heads=mutant.kv_heads,
        layers=mutant.layers,
        seed=mutant.seed,
    )


def run(model: Decoder, script: tuple[str, ...]) -> Tensor | None:
    """Logits of all real tokens [N,V]; None if a call is refused."""
    generator, found = torch.Generator().manual_seed(3), []
    state = model.start(len(script[0].split()) - 1)
    for kind, *rows in map(str.split, script):
        mask = torch.tensor([[token != "." for token in row] for row in rows])
        tokens = torch.randint(1, model.vocab_size, mask.shape, generator=generator)
        tokens[torch.tensor([[token == "0" for token in row] for row in rows])] = 0
        given = mask.long() if kind == "ones" or not mask.all() else None
        try:
            if kind == "extend":
                logits, state = model.extend(tokens, state, given)
            else:
                logits = model.logits(tokens, given)
        except ValueError:
            return None
        assert bool(logits.isfinite().all())
        found.append(logits[mask])
    return torch.cat(found)


def distance(got: Tensor | None, want: Tensor | None) -> float:
    """The largest difference, relative to the largest logit; infinite where one is refused."""
    if got is None or want is None:
        return 0.0 if got is want else float("inf")
    return float((got - want).abs().max() / want.abs().max())


def test_every_mutant_of_the_three_files_has_its_scripts() -> None:
    assert list(SCRIPTS) == [name for name in ids() if name.partition(".")[0] in ("position", "padding", "mask")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_mutant_is_wrong_where_it_says(name: str) -> None:
    mutant, script = load(name)(), SCRIPTS[name][0]
    assert distance(run(mutant, script), run(correct(mutant), script)) > 1e-6


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_mutant_is_right_elsewhere(name: str) -> None:
    """To 1e-10, as correct models are that read a row in two ways."""
    mutant, script = load(name)(), SCRIPTS[name][1]
    assert distance(run(mutant, script), run(correct(mutant), script)) <= 1e-10
