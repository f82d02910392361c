"""Padded sources are encoded in groups of like length: the same memory, wherever the padding stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnspec.impl import padding_groups, transformer
from attnspec.impl.padding_groups import rows_by_length
from attnspec.reference.transformer import encode
from attnspec.reference.transformer_backward import transformer_backward
from tests.authorities.agreement import agrees
from tests.authorities.torch_transformers import projected
from tests.impl.impl_models import gradients, logits, model_of, small


def padded(lengths: list[int], T: int, side: str) -> Tensor:
    t = torch.arange(T)
    n = torch.tensor(lengths)[:, None]
    return t < n if side == "right" else t >= T - n


def test_groups_hold_each_row_once_and_all_of_its_tokens() -> None:
    for side in ("right", "left"):
        real = padded([32, 128, 46, 59, 0, 101, 114, 128, 73], 128, side)
        groups = rows_by_length(real)
        assert len(groups) > 1
        assert torch.cat([rows for rows, _ in groups]).sort().values.tolist() == [*range(9)]
        for rows, columns in groups:
            assert real[rows].sum() == real[rows, columns].sum()
        tokens = sum(len(rows) * (columns.stop - columns.start) for rows, columns in groups)
        assert tokens < 0.75 * real.numel()


@pytest.mark.parametrize("lengths", [[128] * 8, [3, 5, 9], [0, 0], [300]])
def test_one_group_where_nothing_is_saved(lengths: list[int]) -> None:
    real = padded(lengths, max(*lengths, 1) if len(lengths) > 1 else lengths[0], "right")
    ((rows, columns),) = rows_by_length(real)
    assert rows.tolist() == [*range(len(lengths))]
    assert columns == slice(0, real.shape[1])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "alibi", "learned"])
def test_the_memory_is_that_of_the_reference(side: str, positions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[Any] = []

    def two_or_three(real: Tensor) -> list[tuple[Tensor, slice]]:
        groups.append(rows_by_length(real))
        return groups[-1]

    monkeypatch.setattr(padding_groups, "TOKENS", 8)  # groups of one row and of two
    monkeypatch.setattr(transformer, "rows_by_length", two_or_three)
    net = small(encoder_layers=1, positions=positions)
    real = padded([1, 4, 7, 2, 7], 7, side)
    source = torch.randint(1, 11, real.shape)
    parameters = {name: one.numpy() for name, one in net.state_dict().items()}
    options: Any = {"heads": 4, "positions": positions, "scale_embeddings": True}
    with torch.no_grad():
        memory = net.encode(source, real)
    assert len(groups[0]) > 1

    def at_real_tokens(source: Any, parameters: Any, mask: Any) -> Any:
        return encode(source, parameters, mask, **options)[mask]

    agrees(memory[real].numpy(), at_real_tokens, source.numpy(), parameters, real.numpy())
    assert torch.equal(memory[~real].isfinite(), torch.ones_like(memory[~real], dtype=torch.bool))


@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_are_those_of_the_reference(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padding_groups, "TOKENS", 8)  # groups of one row and of two
    net = small(encoder_layers=1, eps=0.3)
    real, rng = padded([1, 4, 7, 2, 7], 7, side), np.random.default_rng(0)
    assert len(rows_by_length(real)) > 1
    source, target = rng.integers(1, 11, (5, 7)), rng.integers(1, 11, (5, 3))
    model = model_of(net, source=source, target=target, masks={"source_mask": real.numpy()})
    out = logits(net, model)
    cotangent = rng.normal(size=out.shape)
    out.backward(torch.tensor(cotangent))
    found = projected(gradients(net), transformer_backward)
    agrees(*found, source, target, model.parameters, cotangent, **model.arguments)
