"""Positions as torch and transformers write them: learned, sinusoidal, rotary in both layouts, and linear biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from attnspec.reference.alibi import alibi_bias, alibi_slopes
from attnspec.reference.attention import attention
from attnspec.reference.learned_position import learned_position, learned_position_backward
from attnspec.reference.rotary_position import rotate, rotate_backward
from attnspec.reference.sinusoidal_position import sinusoidal_position
from tests.authorities.agreement import Draw, agrees, authority

torch.set_num_threads(1)


def generator(draw: Draw) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@authority("I23", "torch.nn.Embedding", of=(learned_position, learned_position_backward))
def torch_learned_positions(draw: Draw) -> None:
    """The look-up, and its gradient where positions occur more than once."""
    B, T, P, M = (draw(st.integers(1, 5)) for _ in range(4))
    rng = generator(draw)
    weight, do, positions = rng.normal(size=(P, M)), rng.normal(size=(B, T, M)), rng.integers(P, size=(B, T))
    module = torch.nn.Embedding(P, M, _weight=torch.tensor(weight))
    out = module(torch.tensor(positions))
    agrees(out.detach().numpy(), learned_position, positions, {"weight": weight})
    out.backward(torch.tensor(do))
    agrees({"weight": module.weight.grad.numpy()}, learned_position_backward, positions, {"weight": weight}, do)


@authority("I23", "transformers MarianSinusoidalPositionalEmbedding", of=(sinusoidal_position,))
def marian_sinusoids(draw: Draw) -> None:
    """The table, stored in single precision; Marian has all sines before all cosines, a permutation of the columns."""
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    T, M = draw(st.integers(1, 40)), 2 * draw(st.integers(1, 6))
    table = MarianSinusoidalPositionalEmbedding(T, M).create_weight().numpy()
    interleaved = np.stack([table[:, : M // 2], table[:, M // 2 :]], axis=-1).reshape(T, M)
    agrees(interleaved, sinusoidal_position, np.arange(T), M, unit="float32")


def rotary_example(draw: Draw, width: int | None = None) -> tuple[Any, Any, Any, float]:
    """x and a cotangent [B,H,T,D], positions [B,T], and a base."""
    B, H, T, D = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 5)),
        width or 2 * draw(st.integers(1, 4)),
    )
    rng, base = generator(draw), draw(st.sampled_from([10000.0, 500000.0]))
    return rng.normal(size=(B, H, T, D)), rng.normal(size=(B, H, T, D)), rng.integers(0, 60, size=(B, T)), base


def angles(positions: Any, base: float, W: int) -> Any:
    """The angles of each position in float64, which transformers computes in float32 only."""
    return torch.tensor(positions, dtype=torch.float64)[..., None] / base ** (torch.arange(0, W, 2, dtype=torch.float64) / W)


def check_rotation(turn: Any, x: Any, do: Any, positions: Any, *options: Any) -> None:
    """A rotation by foreign code: its output, and its gradient by autograd."""
    input_ = torch.tensor(x, requires_grad=True)
    out = turn(input_)
    agrees(out.detach().numpy(), rotate, x, positions, *options)
    out.backward(torch.tensor(do))
    agrees(input_.grad.numpy(), rotate_backward, do, positions, *options)


@authority("I23", "transformers apply_rotary_pos_emb of Llama", of=(rotate, rotate_backward))
def llama_rotation(draw: Draw) -> None:
    """Half-split pairs in float64: outputs, and the gradients of autograd."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x, do, positions, base = rotary_example(draw)
    phases = torch.cat([angles(positions, base, x.shape[3])] * 2, dim=-1)
    check_rotation(lambda t: apply_rotary_pos_emb(t, t, phases.cos(), phases.sin())[0], x, do, positions, base, "half")


@authority("I23", "transformers LlamaRotaryEmbedding", of=(rotate,))
def llama_rotary_embedding(draw: Draw) -> None:
    """Frequencies, angles and rotation of Llama, all in single precision."""
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    x, _, positions, base = rotary_example(draw)
    D, x = x.shape[3], x.astype(np.float32)
    rope = {"rope_type": "default", "rope_theta": base}
    config = LlamaConfig(hidden_size=D, num_attention_heads=1, head_dim=D, rope_parameters=rope)
    cos, sin = LlamaRotaryEmbedding(config)(torch.tensor(x), torch.tensor(positions))
    got, _ = apply_rotary_pos_emb(torch.tensor(x), torch.tensor(x), cos, sin)
    agrees(got.numpy(), rotate, x, positions, base, "half", unit="float32")


@authority("I23", "transformers apply_rotary_pos_emb of GPT-NeoX", of=(rotate, rotate_backward))
def gpt_neox_rotation(draw: Draw) -> None:
    """Half-split pairs in the first channels only: outputs, and the gradients of autograd."""
    from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb

    W = 2 * draw(st.integers(1, 3))
    x, do, positions, base = rotary_example(draw, W + draw(st.integers(0, 3)))
    phases = torch.cat([angles(positions, base, W)] * 2, dim=-1)
    turn = lambda t: apply_rotary_pos_emb(t, t, phases.cos(), phases.sin())[0]  # noqa: E731
    check_rotation(turn, x, do, positions, base, "half", W)


@authority("I23", "transformers apply_rotary_pos_emb of GPT-J", of=(rotate, rotate_backward))
def gpt_j_rotation(draw: Draw) -> None:
    """Interleaved pairs: outputs, and the gradients of autograd. GPT-J has positions before heads."""
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb

    x, do, positions, base = rotary_example(draw)
    phases = angles(positions, base, x.shape[3])

    def turn(t: Any) -> Any:
        return apply_rotary_pos_emb(t.transpose(1, 2), phases.sin(), phases.cos()).transpose(1, 2)

    check_rotation(turn, x, do, positions, base, "interleaved")


def bias_by_key(H: int, S: int) -> Any:
    """slope * s, which differs from the last row of alibi_bias by a constant."""
    return alibi_bias(H, 1, S) + alibi_slopes(H)[:, None, None] * (S - 1)


@authority("I23", "transformers build_alibi_tensor of Bloom", of=(alibi_bias, alibi_slopes))
def bloom_biases(draw: Draw) -> None:
    """Slopes for any number of heads, in single precision. Bloom adds slope * s, where the paper adds -slope * (t - s)."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    H, S = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    got = build_alibi_tensor(torch.ones(1, S, dtype=torch.int64), H, torch.float32).numpy()
    agrees(got, bias_by_key, H, S, unit="float32")


@authority("I23", "build_alibi_tensor of Bloom in scaled_dot_product_attention", of=(alibi_bias, attention))
def bloom_attention(draw: Draw) -> None:
    """Causal attention of the last T words, in single precision: Bloom's form of the bias has the same weights."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    B, H, T, S, D = draw(st.integers(1, 2)), draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(3, 6)), 3
    rng = generator(draw)
    q, k, v = (rng.normal(size=(B, H, length, D)).astype(np.float32) for length in (T, S, S))
    alibi = build_alibi_tensor(torch.ones(1, S, dtype=torch.int64), H, torch.float32)
    future = torch.ones(T, S, dtype=torch.bool).triu(diagonal=S - T + 1)
    got = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.tensor, (q, k, v)), attn_mask=alibi[None].masked_fill(future, -torch.inf)
    )
    agrees(got.numpy(), with_linear_biases, q, k, v, unit="float32")


def with_linear_biases(q: Any, k: Any, v: Any) -> Any:
    return attention(q, k, v, bias=alibi_bias(q.shape[1], q.shape[2], k.shape[2]), causal="bottom-right")
