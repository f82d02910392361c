"""impl.training is reference.training_step: loss, gradients, optimiser and rate, however a batch is padded and cut up."""

from __future__ import annotations

import copy
import re
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnspec.impl import training
from attnspec.impl.loss import cross_entropy
from attnspec.impl.training import Trainer, evaluate, shift_right, teacher_forced_loss, warmup
from attnspec.reference import cross_entropy as reference_loss
from attnspec.reference.adam import adam, adamw
from attnspec.reference.teacher_forcing import shift_right as reference_shift
from attnspec.reference.training_step import loss_and_gradients
from attnspec.reference.warmup import warmup as reference_warmup
from tests.authorities.agreement import agrees
from tests.authorities.torch_transformers import projections
from tests.impl.impl_models import always, model_of, small

PADDING, START = 0, 1
SMOOTHING = 0.1


def raises(message: str, call: Any, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **kwargs)


# The loss


@always(st.integers(1, 3), st.integers(0, 4), st.integers(1, 5), st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("unit", ["float64", "float32"])
def test_loss_is_that_of_the_reference(unit, B, T, V, smoothing, seed):
    rng = np.random.default_rng(seed)
    logits, target, real = rng.normal(size=(B, T, V)), rng.integers(0, V, (B, T)), rng.random((B, T)) < 0.7
    x = torch.tensor(logits, dtype=getattr(torch, unit), requires_grad=True)
    total, count = cross_entropy(x, torch.tensor(target), torch.tensor(real), smoothing=smoothing)
    mean = total / count.clamp(min=1)
    mean.backward()
    args = x.detach().double().numpy(), np.where(real, target, -1), -1, smoothing
    assert int(count) == real.sum()
    agrees(mean.detach().numpy(), reference_loss.cross_entropy, *args, unit=unit)
    agrees(x.grad.numpy(), reference_loss.cross_entropy_backward, *args, unit=unit)


def test_loss_of_bfloat16_is_taken_in_float32():
    torch.manual_seed(0)
    logits, target = 10 * torch.randn(40, 50), torch.arange(40)
    narrow = logits.bfloat16().requires_grad_()
    wide = narrow.detach().float().requires_grad_()
    (got, _), (want, _) = (cross_entropy(x, target, smoothing=SMOOTHING) for x in (narrow, wide))
    assert got.dtype == torch.float32
    assert torch.equal(got, want)
    got.backward()
    want.backward()
    assert narrow.grad.dtype == torch.bfloat16
    assert torch.equal(narrow.grad, wide.grad.bfloat16())


def test_a_word_that_is_ruled_out():
    logits = torch.tensor([[0.0, -torch.inf, 1.0]], requires_grad=True)
    total, count = cross_entropy(logits, torch.tensor([2]))
    total.backward()
    assert total.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] == 0
    assert int(count) == 1


def test_targets_at_padding_may_be_anything():
    logits, real = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 0, 0]])
    target = torch.tensor([[3, 2, -100], [0, 99, 4]])
    got = cross_entropy(logits, target, real, smoothing=SMOOTHING)
    want = cross_entropy(logits, torch.where(real != 0, target, 1), real, smoothing=SMOOTHING)
    assert torch.equal(got[0], want[0])
    assert int(got[1]) == int(want[1]) == 3


def test_loss_errors():
    x, y = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)
    rule = "logits have a last axis of V > 0 words for each target; pass [B,T,V] and [B,T]"
    raises(f"logits=[2, 3, 4], target=[2]: {rule}", cross_entropy, x, y[:, 0])
    raises(f"logits=[2, 3, 0], target=[2, 3]: {rule}", cross_entropy, x[..., :0], y)
    rule = "logits are floating, targets whole numbers; pass ids"
    raises(f"logits=torch.float32, target=torch.float32: {rule}", cross_entropy, x, y.float())
    rule = "it is a share of the target, in [0, 1]; use 0.0 for none"
    raises(f"smoothing=1.5: {rule}", cross_entropy, x, y, smoothing=1.5)
    rule = "a mask has an entry for each target, True or 1 where it is real; pass target != padding_id"
    raises(f"mask=[2], dtype=torch.bool, target=[2, 3]: {rule}", cross_entropy, x, y, y[:, 0] > 0)
    raises(f"mask=[2, 3], dtype=torch.float32, target=[2, 3]: {rule}", cross_entropy, x, y, y.float())
    rule = "real targets are words of the vocabulary; mask the others"
    raises(f"least=4, most=4, V=4: {rule}", cross_entropy, x, y + 4)
    raises(f"least=-1, most=-1, V=4: {rule}", cross_entropy, x, y - 1)


# A step

SOURCE = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 0, 0], [5, 0, 0, 0, 0], [2, 7, 2, 7, 0]])
WORDS = torch.tensor([[2, 3, 4, 5, 6, 7], [8, 9, 0, 0, 0, 0], [10, 3, 2, 0, 0, 0], [4, 0, 0, 0, 0, 0]])
# Norms that do not multiply errors: bounds of eps = 1e-5 would be too wide to say anything.
TAME = {"eps": 0.3, "activation": "gelu", "decoder_layers": 1}


def net_of(**options: Any) -> Any:
    return small(**TAME | options)


def on_the_left(ids: torch.Tensor) -> torch.Tensor:
    """The same rows with their padding in front."""
    return torch.stack([torch.cat([row[row == PADDING], row[row != PADDING]]) for row in ids])


def longer(ids: torch.Tensor) -> torch.Tensor:
    return torch.cat([ids, torch.full((len(ids), 3), PADDING)], dim=1)


def cut(*at: int) -> Any:
    """The rows in parts, each as short as its longest row."""

    def parts(source: Any, words: Any) -> Any:
        bounds = [0, *at, len(words)]
        for first, last in pairwise(bounds):
            part = [None if ids is None else ids[first:last] for ids in (source, words)]
            yield tuple(None if ids is None else ids[:, : int((ids != PADDING).sum(1).max())] for ids in part)

    return parts


def both(change: Any) -> Any:
    return lambda source, words: [(None if source is None else change(source), change(words))]


WAYS = {
    "whole": both(lambda ids: ids), "longer": both(longer), "left": both(on_the_left), "two parts": cut(2),
    "rows": cut(1, 2, 3),
    "with a part of padding": lambda *ids: [*cut(1)(*ids), *both(lambda one: torch.full_like(one[:2], PADDING))(*ids)],
}  # fmt: skip


def gradients(net: Any) -> dict[str, np.ndarray]:
    """Under the names of state_dict, which splits what is joined inside."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for mine, theirs in zip(twin.parameters(), net.parameters(), strict=True):
            mine.copy_(theirs.grad)
    return {name: one.numpy().copy() for name, one in twin.state_dict().items()}


def check_step(way: str, rate: float = 0.0, **options: Any) -> None:
    """The second of two steps, at a rate that leaves the weights alone, is the reference's step on the whole batch."""
    net = net_of(**options)
    source = SOURCE if net.config.encoder_layers else None
    trainer = Trainer(net, lambda _: rate, start_id=START, padding_id=PADDING, smoothing=SMOOTHING)
    batches = list(WAYS[way](source, WORDS))
    trainer.step(batches)
    found = trainer.step(batches)
    assert int(found.tokens) == int((WORDS != PADDING).sum())
    got = gradients(net)
    real = {"target_mask": (WORDS != PADDING).numpy()}
    if source is not None:
        real |= {"source_mask": (SOURCE != PADDING).numpy()}
    model = model_of(net)
    words = WORDS.numpy()

    def all_of_it(p: Any, **settings: Any) -> Any:
        ids = None if source is None else source.numpy(), reference_shift(words, START), words
        loss, found = loss_and_gradients(*ids, p, padding_id=PADDING, smoothing=SMOOTHING, **real, **settings)
        return loss, np.stack(projections(found, got))  # a number for each parameter: bounds of all would take minutes

    agrees((found.loss.numpy(), np.stack(projections(got, got))), all_of_it, model.parameters, **model.options)


TRANSLATION: dict[str, Any] = {"encoder_layers": 1, "shared": True, "tied": True}


@pytest.mark.parametrize("way", WAYS)
def test_a_step_is_that_of_the_reference(way):
    check_step(way, **TRANSLATION)


@pytest.mark.parametrize("way", ["left", "two parts"])
def test_a_step_of_a_language_model_is_that_of_the_reference(way):
    check_step(way)


def mean_of_means(*args: Any, **kwargs: Any) -> Any:
    total, count = teacher_forced_loss(*args, **kwargs)
    return total / count * int((WORDS != PADDING).sum()) / 2, count


def without_mask(logits: Any, words: Any, real: Any, **kwargs: Any) -> Any:
    return cross_entropy(logits, words, None, **kwargs)


def smoothed_padding(logits: Any, words: Any, real: Any, smoothing: float) -> Any:
    total, count = cross_entropy(logits, words, real, smoothing=smoothing)
    return total - smoothing * (logits.log_softmax(-1).mean(-1) * ~real).sum(), count


DEFECTS: list[tuple[Any, str, Any, str]] = [
    (training, "teacher_forced_loss", mean_of_means, "two parts"),
    (training, "cross_entropy", without_mask, "two parts"),
    (training, "cross_entropy", smoothed_padding, "whole"),
    (training, "cross_entropy", lambda *args, **_: cross_entropy(*args), "whole"),
    (training, "shift_right", lambda words, *_: words, "whole"),
    (training, "shift_right", lambda words, start, _: shift_right(words, start), "left"),
    (torch.optim.AdamW, "zero_grad", lambda _: None, "whole"),
]


@pytest.mark.parametrize(("where", "name", "wrong", "way"), DEFECTS)
def test_defects_are_noticed(monkeypatch, where, name, wrong, way):
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError, match="error"):
        check_step(way)


def test_inputs_are_the_words_one_step_late():
    want = torch.tensor(reference_shift(WORDS.numpy(), START))
    assert torch.equal(shift_right(WORDS, START), want)
    assert torch.equal(shift_right(WORDS, START, WORDS != PADDING), want)
    left = on_the_left(WORDS)
    inputs = shift_right(left, START, left != PADDING)
    for row, kept, right in zip(inputs, left != PADDING, want, strict=True):
        assert row[kept].tolist() == right[: int(kept.sum())].tolist()
    assert shift_right(WORDS[:, :0], START).shape == (4, 0)


# The rate and the optimiser


def test_rate_is_that_of_the_reference():
    steps = np.arange(1, 41)
    got = np.array([warmup(int(step), 128, 10) for step in steps])
    agrees(got, reference_warmup, steps, 128, 10)
    rule = "each is at least 1; count steps from 1"
    raises(f"step=0, M=128, warmup_steps=10: {rule}", warmup, 0, 128, 10)


def check_rates(rate: Any) -> None:
    trainer = Trainer(net_of(), rate, start_id=START)
    rates = [trainer.step([(None, WORDS)]).rate for _ in range(5)]
    agrees(np.array(rates), reference_warmup, np.arange(1, 6), 8, 3)
    assert trainer.optimizer.param_groups[0]["lr"] == rates[-1]


def test_a_trainer_counts_steps_from_one():
    check_rates(partial(warmup, M=8, warmup_steps=3))
    with pytest.raises(AssertionError, match="error"):
        check_rates(lambda step: warmup(step + 1, 8, 3))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_optimiser_is_that_of_the_reference(weight_decay):
    """Adam without decay, AdamW with it; the gradients of each step are given, as near zero Adam multiplies errors."""
    net = net_of()
    trainer = Trainer(net, partial(warmup, M=8, warmup_steps=3), start_id=START, weight_decay=weight_decay)
    start = {name: one.detach().clone().numpy() for name, one in net.named_parameters()}
    each = []
    for _ in range(4):
        trainer.optimizer.zero_grad()
        total, _ = teacher_forced_loss(net, None, WORDS, start_id=START)
        total.backward()
        each.append({name: one.grad.clone().numpy() for name, one in net.named_parameters()})
        trainer.update()

    def steps(w: Any, each: Any) -> Any:
        mean: Any = {}
        square: Any = {}
        for step, g in enumerate(each, 1):
            rate = 8**-0.5 * min(step**-0.5, step * 3**-1.5)
            options = {"rate": rate, "beta1": 0.9, "beta2": 0.98, "eps": 1e-9}
            if weight_decay:
                w, mean, square = adamw(w, g, mean, square, step, **options, weight_decay=weight_decay)
            else:
                w, mean, square = adam(w, g, mean, square, step, **options)
        return w

    names = ["decoder.0.attention.o.weight", "decoder.0.feed_forward_norm.weight"]
    got = {name: one.detach().numpy() for name, one in net.named_parameters() if name in names}
    agrees(got, steps, {name: start[name] for name in names}, [{name: g[name] for name in names} for g in each])


def test_clip():
    net = net_of()
    trainer = Trainer(net, lambda _: 0.1, start_id=START, clip=0.25)
    trainer.step([(None, WORDS)])
    norm = torch.stack([one.grad.norm() for one in net.parameters()]).norm()
    assert 0.2499 < norm <= 0.25
    loose = Trainer(net_of(), lambda _: 0.1, start_id=START, clip=1e6)
    free = Trainer(net_of(), lambda _: 0.1, start_id=START)
    for one in (loose, free):
        one.step([(None, WORDS)])
    for x, y in zip(loose.model.parameters(), free.model.parameters(), strict=True):
        assert torch.equal(x, y)


def test_training_lowers_the_loss_and_evaluation_changes_nothing():
    net = net_of(encoder_layers=1, dropout=0.1)
    options = {"start_id": START, "padding_id": PADDING}
    trainer = Trainer(net, lambda _: 0.01, **options)
    batches = [(SOURCE, WORDS)]
    before = trainer.evaluate(batches)
    for _ in range(10):
        trainer.step(batches)
    state = {name: one.clone() for name, one in net.state_dict().items()}
    after = trainer.evaluate(batches)
    assert after < 0.8 * before
    assert net.training
    assert after == trainer.evaluate(batches)
    assert all(torch.equal(one, state[name]) for name, one in net.state_dict().items())
    net.eval()
    with torch.no_grad():
        total, count = teacher_forced_loss(net, SOURCE, WORDS, **options)
    assert evaluate(net, batches, **options) == float(total) / int(count)
    assert not net.training
    assert evaluate(net, [], **options) == 0


def test_trainer_errors():
    net = net_of()
    raises("weight_decay=-1: weights shrink by it; use 0.0 for none", Trainer, net, float, start_id=START, weight_decay=-1)
    raises("clip=0: a norm is positive; use None for no limit", Trainer, net, float, start_id=START, clip=0)
    rule = "a step has at least one micro-batch; pass [(source, words)]"
    raises(f"batches=0: {rule}", Trainer(net, float, start_id=START).step, [])
