"""The models that planted defects start from are right: whichever way a row is read, its logits are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from attnspec.properties.model_mutants import FAMILIES, describe, ids, load
from attnspec.properties.model_mutants.cross import Translator
from attnspec.properties.model_mutants.plain import Call, Decoder, State
from attnspec.properties.model_mutants.recurrent import Recurrent
from attnspec.properties.model_mutants.slots import Ring, Static
from attnspec.properties.model_mutants.variants import VARIANTS
from attnspec.properties.mutant import UnknownMutantError
from attnspec.reference.alibi import alibi_bias
from attnspec.reference.rotary_position import rotate
from attnspec.reference.sinusoidal_position import sinusoidal_position

each = pytest.mark.parametrize("name", VARIANTS)
B, T = 3, 13


def tokens(rows: int = B, length: int = T, seed: int = 5) -> Tensor:
    return torch.randint(0, Decoder.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def same(got: Tensor, want: Tensor) -> None:
    """To 1e-10 of the largest logit: float64 after two layers is ten thousand times closer, a defect much farther."""
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= 1e-10 * float(want.abs().max())


def stepped(model: Decoder, ids: Tensor, state: State, mask: Tensor | None = None, size: int = 1) -> tuple[Tensor, State]:
    """The logits of chunks of this size, and the state after them."""
    found = []
    for start in range(0, ids.shape[1], size):
        part = slice(start, start + size)
        logits, state = model.extend(ids[:, part], state, None if mask is None else mask[:, part])
        found.append(logits)
    return torch.cat(found, dim=1), state


def padded(rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of different length, scattered over more columns with padding anywhere; the mask that tells them apart."""
    generator = torch.Generator().manual_seed(seed)
    width = rows.shape[1] + 6
    ids = torch.randint(0, Decoder.vocab_size, (len(rows), width), generator=generator)
    mask = torch.zeros_like(ids)
    for b in range(len(rows)):
        length = rows.shape[1] - 4 * b
        columns = torch.randperm(width, generator=generator)[:length].sort().values
        mask[b, columns] = 1
        ids[b, columns] = rows[b, :length]
    return ids, mask


@each
def test_parallel_is_step_by_step_is_chunks(name: str) -> None:
    model, row = VARIANTS[name](), tokens()
    want = model.logits(row)
    assert want.dtype == torch.float64
    assert want.shape == (B, T, model.vocab_size)
    for size in (1, 4, 7, T):
        same(stepped(model, row, model.start(B), size=size)[0], want)


@each
def test_later_tokens_change_nothing_before_them(name: str) -> None:
    model, row = VARIANTS[name](), tokens()
    same(model.logits(row[:, :6]), model.logits(row)[:, :6])


@each
@pytest.mark.parametrize("seed", [1, 2])
def test_ragged_rows_with_padding_anywhere_are_each_row_alone(name: str, seed: int) -> None:
    model = VARIANTS[name]()
    ids, mask = padded(tokens(), seed)
    readings = [model.logits(ids, mask)] + [stepped(model, ids, model.start(B), mask, size)[0] for size in (1, 5, 19)]
    for logits in readings:
        assert bool(logits.isfinite().all())
        for b in range(B):
            alone = ids[b : b + 1, mask[b] == 1]
            same(logits[b : b + 1, mask[b] == 1], model.logits(alone))


@each
def test_a_row_of_padding_leaves_its_state_as_it_was(name: str) -> None:
    model, row = VARIANTS[name](), tokens(2)
    mask = torch.ones_like(row[:, :3])
    mask[1] = 0
    state = model.extend(row[:, :6], model.start(2))[1]
    logits, state = model.extend(row[:, 6:9], state, mask)
    assert bool(logits.isfinite().all())
    after = model.extend(row[:, 9:], state)[0]
    same(after[:1], model.logits(row[:1])[:, 9:])
    same(after[1:], model.logits(torch.cat([row[1:, :6], row[1:, 9:]], dim=1))[:, 6:])


@each
def test_reordered_rows_go_on_as_rows_of_their_own(name: str) -> None:
    model, index = VARIANTS[name](), torch.tensor([2, 0, 2, 1])
    ids, mask = padded(tokens(), 3)
    state = model.reorder(model.extend(ids, model.start(B), mask)[1], index)
    more = tokens(4, 5, seed=6)
    logits = model.extend(more, state)[0]
    for b, old in enumerate(index.tolist()):
        alone = torch.cat([ids[old, mask[old] == 1], more[b]])[None]
        same(logits[b : b + 1], model.logits(alone)[:, -5:])


@each
@pytest.mark.parametrize("length", [0, 4, 7, 99])
def test_a_cropped_state_is_that_of_the_first_tokens(name: str, length: int) -> None:
    """Rows shorter than that keep all they have; what was read after the crop does not come back."""
    model = VARIANTS[name]()
    ids, mask = padded(tokens(), 4)
    state = model.crop(model.extend(ids, model.start(B), mask)[1], length)
    more = tokens(B, 6, seed=7)
    logits = stepped(model, more, state, size=4)[0]
    for b in range(B):
        alone = torch.cat([ids[b, mask[b] == 1][:length], more[b]])[None]
        same(logits[b : b + 1], model.logits(alone)[:, -6:])


@each
def test_forks_go_on_independently(name: str) -> None:
    model, row = VARIANTS[name](), tokens()
    first = model.extend(row, model.start(B))[1]
    second = model.fork(first)
    left, right = tokens(B, 6, seed=8), tokens(B, 6, seed=9)
    got_left, first = model.extend(left[:, :4], first)
    got_right, second = model.extend(right[:, :4], second)
    got_left = torch.cat([got_left, model.extend(left[:, 4:], first)[0]], dim=1)
    got_right = torch.cat([got_right, model.extend(right[:, 4:], second)[0]], dim=1)
    same(got_left, model.logits(torch.cat([row, left], dim=1))[:, T:])
    same(got_right, model.logits(torch.cat([row, right], dim=1))[:, T:])


@each
def test_a_program_of_all_of_them_is_the_rows_that_are_left(name: str) -> None:
    """Padding, fork, crop, reorder and appending again, against lists of tokens."""
    model = VARIANTS[name]()
    ids, mask = padded(tokens(), 11)
    rows = [ids[b, mask[b] == 1] for b in range(B)]
    state = stepped(model, ids, model.start(B), mask, 6)[1]
    for seed, length, index in ((12, 8, [1, 0, 0]), (13, 6, [2, 1]), (14, 9, [1, 1, 0])):
        state = model.reorder(model.crop(model.fork(state), length), index)
        ids, mask = padded(tokens(len(index), 11, seed), seed)
        logits, state = model.extend(ids, state, mask)
        rows = [torch.cat([rows[old][:length], ids[b, mask[b] == 1]]) for b, old in enumerate(index)]
        for b, row in enumerate(rows):
            new = int(mask[b].sum())
            same(logits[b : b + 1, mask[b] == 1], model.logits(row[None])[:, -new:])


@each
def test_too_many_tokens_are_refused_and_leave_the_state_as_it_was(name: str) -> None:
    model = VARIANTS[name]()
    ids, limit = tokens(2, 41), model.max_length
    mask = torch.ones_like(ids)
    mask[:, :4] = 0
    assert model.logits(ids, mask).shape == (2, 41, model.vocab_size)  # 41 columns, 37 tokens
    with pytest.raises(ValueError, match=f"max_length={limit}"):
        model.logits(ids)
    state = model.extend(ids[:, :38], model.start(2))[1]
    with pytest.raises(ValueError, match=f"max_length={limit}"):
        model.extend(ids[:, 38:], state)
    with pytest.raises(ValueError, match=f"max_length={limit}"):
        model.extend(ids[:, 38:], state, torch.tensor([[1, 0, 0], [1, 1, 1]]))
    same(model.extend(ids[:, 38:40], state)[0], model.logits(ids[:, :40])[:, 38:])


@each
def test_earlier_tokens_matter(name: str) -> None:
    """The first of twenty; the first within reach of two windows where there are some, less two, as few paths lead so far."""
    model = VARIANTS[name]()
    row = tokens(8, 20 if model.window is None else 2 * model.window - 3)
    other = row.clone()
    other[:, 0] = (other[:, 0] + 1) % model.vocab_size
    last, moved = model.logits(row)[:, -1], model.logits(other)[:, -1]
    assert bool(((last - moved).abs().amax(-1) > 0.01 * last.abs().amax(-1)).all())


@each
def test_the_global_generator_is_left_alone_and_weights_are_the_same_again(name: str) -> None:
    before = torch.get_rng_state()
    want = VARIANTS[name]().logits(tokens())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(VARIANTS[name]().logits(tokens()), want)


# What parallel and step by step could get wrong together


def test_a_token_sees_itself_and_the_others_of_its_window() -> None:
    model, row = Decoder(window=5, layers=("attention",)), tokens(1)
    last = model.logits(row)[0, -1]
    for back in range(T):
        other = row.clone()
        other[0, T - 1 - back] = (other[0, T - 1 - back] + 1) % model.vocab_size
        assert torch.equal(model.logits(other)[0, -1], last) == (back >= 5)


@pytest.mark.parametrize(
    ("model", "twin"), [("window", Decoder(window=5, cache=Ring(5))), ("rotary", Decoder(cache=Static()))]
)
def test_caches_of_other_kinds_are_the_same_model(model: str, twin: Decoder) -> None:
    same(stepped(twin, tokens(), twin.start(B))[0], VARIANTS[model]().logits(tokens()))


def test_positions_are_those_of_the_reference() -> None:
    x, positions = torch.randn(2, 7, 4, 6, generator=torch.Generator().manual_seed(1)).double(), torch.arange(3, 10)
    turned = Decoder().rotate(x, positions.expand(2, 7)).transpose(1, 2)
    same(turned, torch.from_numpy(rotate(x.transpose(1, 2).numpy(), positions.numpy())))
    placed = Decoder(positions="sinusoidal").place(positions)
    same(placed, torch.from_numpy(sinusoidal_position(positions.numpy(), 24)))
    behind = torch.arange(7)[:, None] - torch.arange(7)
    same(Decoder().bias(behind[None])[0].tril(), torch.from_numpy(np.tril(alibi_bias(4, 7, 7))))


def test_the_cell_is_that_of_torch() -> None:
    model, w = Recurrent(layers=("gru",)), Recurrent(layers=("gru",)).weights
    x, h = w["embedding"][:5], w["position"][:5]
    names = ("0.input", "0.hidden", "0.input.bias", "0.hidden.bias")
    same(model.cell(0, x, h), torch.gru_cell(x, h, *(w[name] for name in names)))


def test_linear_attention_is_a_sum_that_decays() -> None:
    """One step of the recurrence at a time, without the form that reads a whole call."""
    model = Recurrent(layers=("linear",))
    row = tokens(2)
    x = model.norm(model.weights["embedding"][row], "0.norm")
    near = torch.cat([torch.zeros(2, 3, 24, dtype=torch.float64), x], dim=1)
    total, out = torch.zeros(2, 4, 6, 6, dtype=torch.float64), []
    for t in range(T):
        seen = silu((model.weights["0.convolution"] * near[:, t : t + 4]).sum(1))
        q, k, v = (y[:, 0] for y in model.project(0, seen[:, None]))
        total = model.decay(torch.ones(2))[..., None, None] * total + k[..., None] * v[..., None, :]
        out.append(model.norm(6**-0.5 * (q[..., None, :] @ total)[..., 0, :], "0.out.norm").flatten(-2))
    want = torch.stack(out, dim=1) @ model.weights["0.o"].T
    call = Call(torch.ones_like(row, dtype=torch.bool), torch.arange(T).expand(2, T), torch.zeros(2, dtype=torch.int64))
    same(model.mix(0, x, call, None)[0], want)


# The mutants


@pytest.mark.parametrize("mutant", ids())
def test_a_mutant_is_a_factory_of_models(mutant: str) -> None:
    record, model = describe(mutant), load(mutant)()
    assert record.id == mutant
    assert record == vars(load(mutant))["__mutant__"]
    assert mutant.partition(".")[0] in FAMILIES
    assert record.where.startswith(f"properties/model_mutants/{mutant.partition('.')[0]}.py::")
    assert model is not load(mutant)()
    inputs = (tokens(), tokens()) if isinstance(model, Translator) else (tokens(),)
    assert model.logits(*inputs).shape == (B, T, model.vocab_size)


def test_an_unknown_mutant_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownMutantError, match=r"the nearest is 'cache\.crop_keeps_one_more'"):
        describe("cache.crop_keeps_one")


def test_the_example_is_wrong_after_a_crop_and_nowhere_else() -> None:
    model, plain, row = load("cache.crop_keeps_one_more")(), Decoder(), tokens()
    logits, state = stepped(model, row, model.start(B), size=4)
    same(logits, plain.logits(row))
    wrong = model.extend(row[:, 7:], model.crop(state, 7))[0]
    assert float((wrong - plain.logits(row)[:, 7:]).abs().max()) > 0.01 * float(logits.abs().max())
