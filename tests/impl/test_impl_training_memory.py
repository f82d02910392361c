"""Training with less memory: float32 masters of a bfloat16 copy, and layers that run again in the backward pass."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch

from attnspec.impl import layers, master_weights
from attnspec.impl.layers import Layer
from attnspec.impl.training import Trainer, teacher_forced_loss
from tests.impl.impl_models import small

START, PADDING = 1, 0
WORDS = torch.arange(24).view(4, 6) % 11
BATCHES = [(WORDS[:2], WORDS[:2].flip(1)), (WORDS[2:], WORDS[2:].flip(1))]
NORM = "decoder.0.attention_norm.weight"  # starts at 1


def trainer_of(dtype: torch.dtype = torch.float32, rate: float = 1e-4, dropout: float = 0.0, **options: Any) -> Trainer:
    net = small(encoder_layers=1, dropout=dropout).to(dtype)
    return Trainer(net, lambda _: rate, start_id=START, **options)


# Master weights


def weight(net: Any) -> torch.Tensor:
    return dict(net.named_parameters())[NORM].detach()


def moved(trainer: Trainer, steps: int) -> list[bool]:
    """Whether each step has left the norm's weights at one."""
    found = []
    for _ in range(steps):
        trainer.step(BATCHES)
        found.append(not torch.equal(weight(trainer.computing), torch.ones(8, dtype=weight(trainer.computing).dtype)))
    return found


def check_small_steps_add_up() -> None:
    """A step of 1e-4 is below the resolution of bfloat16 at 1, which is 2^-9 downwards and 2^-8 upwards."""
    trainer = trainer_of(masters=True)
    assert weight(trainer.computing).dtype == torch.bfloat16
    first = moved(trainer, 1)
    assert first == [False]
    assert (weight(trainer.model) != 1).all()
    later = moved(trainer, 30)
    assert not later[5]
    assert later[-1]
    for master, working in zip(trainer.model.parameters(), trainer.computing.parameters(), strict=True):
        assert torch.equal(master.detach().bfloat16(), working.detach())


def test_masters_keep_what_bfloat16_loses():
    check_small_steps_add_up()
    assert not any(moved(trainer_of(torch.bfloat16), 30))


def check_gradients_are_added_in_float32() -> None:
    trainer = trainer_of(masters=True)
    twin = copy.deepcopy(trainer.model).bfloat16().train()
    want: dict[str, torch.Tensor] = {}
    for source, words in BATCHES:
        twin.zero_grad()
        total, _ = teacher_forced_loss(twin, source, words, start_id=START)
        (total / WORDS.numel()).backward()
        for name, one in twin.named_parameters():
            want[name] = want.get(name, 0) + one.grad.float()
    trainer.step(BATCHES)
    for name, one in trainer.model.named_parameters():
        assert one.grad.dtype == torch.float32
        assert torch.equal(one.grad, want[name]), name
    assert all(one.grad is None for one in trainer.computing.parameters())


def test_gradients_are_added_in_float32():
    check_gradients_are_added_in_float32()


def test_shared_weights_have_one_master():
    net = small(encoder_layers=1, shared=True, tied=True).float()
    trainer = Trainer(net, lambda _: 1e-2, start_id=START, masters=True)
    assert len(list(trainer.computing.parameters())) == len(list(net.parameters()))
    before = net.source.embedding.weight.detach().clone()
    trainer.step(BATCHES)
    assert not torch.equal(net.source.embedding.weight, before)
    assert set(trainer.computing.state_dict()) == set(net.state_dict())


def never_refreshed(self: Any) -> None:
    pass


def added_in_bfloat16(master: torch.Tensor, working: torch.Tensor) -> None:
    if working.grad is not None:
        grad = working.grad if master.grad is None else master.grad.bfloat16() + working.grad
        master.grad, working.grad = grad.float(), None


def kept_the_last(master: torch.Tensor, working: torch.Tensor) -> None:
    if working.grad is not None:
        master.grad, working.grad = working.grad.float(), None


@pytest.mark.parametrize(
    ("where", "name", "wrong", "check"),
    [
        (master_weights.WorkingCopy, "refresh", never_refreshed, check_small_steps_add_up),
        (master_weights, "_hand_over", added_in_bfloat16, check_gradients_are_added_in_float32),
        (master_weights, "_hand_over", kept_the_last, check_gradients_are_added_in_float32),
    ],
)
def test_defects_of_masters_are_noticed(monkeypatch, where, name, wrong, check):
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError):
        check()


def test_masters_are_wide():
    message = "parameter=source.embedding.weight, dtype=torch.bfloat16: masters are float32; call .float() on the model"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        trainer_of(torch.bfloat16, masters=True)


# Layers that run again


def gradients(dropout: float, recompute: bool, count: list[int] | None = None) -> list[torch.Tensor]:
    trainer = trainer_of(torch.float64, dropout=dropout, recompute=recompute)
    for module in trainer.model.modules():
        if count is not None and isinstance(module, Layer):
            module.register_forward_pre_hook(lambda *_: count.append(1))
    torch.manual_seed(3)
    trainer.step(BATCHES)
    return [one.grad for one in trainer.model.parameters()]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_recomputed_gradients_are_the_same_to_the_last_bit(dropout):
    runs: list[int] = []
    again = gradients(dropout, True, runs)
    assert len(runs) == 2 * 3 * len(BATCHES)  # one layer of the encoder, two of the decoder, forward and once again
    for one, other in zip(gradients(dropout, False), again, strict=True):
        assert torch.equal(one, other)


def test_both_at_once():
    found = []
    for recompute in (False, True):
        trainer = trainer_of(dropout=0.4, masters=True, recompute=recompute)
        torch.manual_seed(3)
        trainer.step(BATCHES)
        found.append(trainer.model.state_dict())
    assert all(torch.equal(one, found[1][name]) for name, one in found[0].items())


def test_other_dropout_in_the_second_run_is_noticed(monkeypatch):
    careless = layers.checkpoint
    monkeypatch.setattr(layers, "checkpoint", lambda *args, **kw: careless(*args, **kw, preserve_rng_state=False))
    pairs = zip(gradients(0.4, False), gradients(0.4, True), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


def test_recomputing_keeps_less():
    def kept(recompute: bool) -> int:
        trainer, sizes = trainer_of(recompute=recompute), []
        trainer.computing.train()

        def pack(x: torch.Tensor) -> torch.Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            teacher_forced_loss(trainer.computing, *BATCHES[0], start_id=START)
        return sum(sizes)

    assert kept(True) < kept(False) / 2


def test_decoding_does_not_recompute():
    net = small(encoder_layers=1)
    net.decoder.recompute = True
    state = net.start(net.encode(WORDS))
    logits, _ = net.extend(WORDS, state)
    assert not logits.requires_grad
