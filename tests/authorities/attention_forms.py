"""Attention in all the forms of the notes, as torch computes it: plain, learned, scaled, masked, crossed, many heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch.nn import functional

from attnspec.reference.attention import attention, attention_weights
from attnspec.reference.cross_attention import cross_attention
from attnspec.reference.linear import linear
from attnspec.reference.mask import additive_mask, causal_mask, padding_mask
from attnspec.reference.multi_head import multi_head_attention, split_heads
from attnspec.reference.parameters import part
from attnspec.reference.self_attention import plain_self_attention, plain_self_attention_by_rows, self_attention
from tests.authorities.agreement import Draw, agrees, authority

torch.set_num_threads(1)


def generator(draw: Draw) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def sdpa(q: Any, k: Any, v: Any, **options: Any) -> Any:
    return functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), **options).numpy()


def qkv(draw: Draw, grouped: bool = False) -> tuple[Any, Any, Any, np.random.Generator]:
    """q [B,H,T,D], k [B,G,S,D], v [B,G,S,E], all sizes drawn, and the generator they came from."""
    B, G, T, S, D, E = (draw(st.integers(1, 5)) for _ in range(6))
    H, rng = G * (draw(st.integers(1, 3)) if grouped else 1), generator(draw)
    return rng.normal(size=(B, H, T, D)), rng.normal(size=(B, G, S, D)), rng.normal(size=(B, G, S, E)), rng


def words(draw: Draw) -> tuple[Any, np.random.Generator]:
    B, T, M = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = generator(draw)
    return rng.normal(size=(B, T, M)) / np.sqrt(M), rng


@authority("I16", "torch.nn.functional.scaled_dot_product_attention", of=(plain_self_attention, plain_self_attention_by_rows))
def torch_plain_self_attention(draw: Draw) -> None:
    """Queries, keys and values are the words themselves, with a scale of one; all rows at once and one by one."""
    x, _ = words(draw)
    got = sdpa(x[:, None], x[:, None], x[:, None], scale=1.0)[:, 0]
    agrees(got, plain_self_attention, x)
    agrees(got, plain_self_attention_by_rows, x)


@authority("I17", "torch.nn.Linear and scaled_dot_product_attention", of=(self_attention,))
def torch_self_attention(draw: Draw) -> None:
    """One head with learned maps, with and without biases, masks and causality; d_v differs from d_k."""
    x, rng = words(draw)
    (T, M), D, E = x.shape[1:], draw(st.integers(1, 5)), draw(st.integers(1, 5))
    biased, causal, masked = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    parameters, projected = {}, {}
    for name, width in (("q", D), ("k", D), ("v", E)):
        module = torch.nn.Linear(M, width, bias=biased, dtype=torch.float64)
        arrays = {key: rng.normal(size=tuple(tensor.shape)) / np.sqrt(M) for key, tensor in module.state_dict().items()}
        module.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()})
        parameters |= {f"{name}.{key}": array for key, array in arrays.items()}
        projected[name] = module(torch.tensor(x)).detach().numpy()
    mask = (rng.random((T, T)) < 0.7) | np.eye(T, dtype=bool) if masked else None
    visible = (True if mask is None else mask) & (causal_mask(T, T) if causal else np.ones((T, T), dtype=bool))
    got = sdpa(projected["q"], projected["k"], projected["v"], attn_mask=torch.tensor(visible))
    agrees(got, self_attention, x, parameters, mask=mask, causal="top-left" if causal else None)


@authority("I19", "torch.nn.functional.scaled_dot_product_attention", of=(attention,))
def torch_scale(draw: Draw) -> None:
    """The default scale 1/sqrt(D), and others: zero, negative, one."""
    q, k, v, _ = qkv(draw, grouped=True)
    scale = draw(st.sampled_from([None, -0.5, 0.0, 1.0, 2.0]))
    agrees(sdpa(q, k, v, scale=scale, enable_gqa=True), attention, q, k, v, scale=scale)


@authority("I25", "torch.nn.functional.scaled_dot_product_attention, is_causal", of=(attention, causal_mask))
def torch_causal(draw: Draw) -> None:
    """The causal flag, where queries and keys may differ in number: the top-left alignment."""
    q, k, v, _ = qkv(draw, grouped=True)
    agrees(sdpa(q, k, v, is_causal=True, enable_gqa=True), attention, q, k, v, causal="top-left")


@authority("I25", "torch.nn.attention.bias.causal_lower_right", of=(attention, causal_mask))
def torch_causal_at_the_end(draw: Draw) -> None:
    """The bottom-right alignment, for no fewer keys than queries, as in decoding with a cache."""
    from torch.nn.attention.bias import causal_lower_right, causal_upper_left

    q, k, v, rng = qkv(draw)
    k, v = (np.concatenate([rng.normal(size=(*x.shape[:2], q.shape[2], x.shape[3])), x], axis=2) for x in (k, v))
    T, S = q.shape[2], k.shape[2]
    agrees(sdpa(q, k, v, attn_mask=causal_lower_right(T, S)), attention, q, k, v, causal="bottom-right")
    agrees(sdpa(q, k, v, attn_mask=causal_upper_left(T, S)), attention, q, k, v, causal="top-left")


@authority("I25", "torch.nn.functional.scaled_dot_product_attention, attn_mask", of=(attention, additive_mask))
def torch_masks(draw: Draw) -> None:
    """Boolean masks and their additive form, with biases, empty rows included: torch's are zero, as by default here."""
    q, k, v, rng = qkv(draw, grouped=True)
    shape = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    mask, bias = rng.random(shape) < draw(st.sampled_from([0.3, 0.8])), rng.normal(size=shape)
    agrees(sdpa(q, k, v, attn_mask=torch.tensor(mask), enable_gqa=True), attention, q, k, v, mask=mask)
    got = sdpa(q, k, v, attn_mask=torch.tensor(additive_mask(mask) + bias), enable_gqa=True)
    agrees(got, attention, q, k, v, mask=mask, bias=bias)


def module_and_parameters(
    draw: Draw, M: int, memory_width: int, rng: np.random.Generator
) -> tuple[torch.nn.MultiheadAttention, dict[str, Any], int]:
    """torch.nn.MultiheadAttention with drawn weights, and these under the names of the reference."""
    heads = draw(st.sampled_from([h for h in range(1, M + 1) if M % h == 0]))
    biased = draw(st.booleans())
    widths = {} if memory_width == M else {"kdim": memory_width, "vdim": memory_width}  # torch then keeps three matrices
    module = torch.nn.MultiheadAttention(M, heads, bias=biased, batch_first=True, dtype=torch.float64, **widths)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    state = {name: rng.normal(size=shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()}
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    stacked = np.split(state["in_proj_weight"], 3) if "in_proj_weight" in state else None
    parameters = {"o.weight": state["out_proj.weight"]}
    for i, name in enumerate("qkv"):
        parameters[f"{name}.weight"] = state[f"{name}_proj_weight"] if stacked is None else stacked[i]
        if biased:
            parameters |= {f"{name}.bias": np.split(state["in_proj_bias"], 3)[i], "o.bias": state["out_proj.bias"]}
    return module, parameters, heads


def head_weights(x: Any, memory: Any, parameters: Any, heads: int, **options: Any) -> Any:
    """The weights of every head, by the functions of the reference."""
    q = split_heads(linear(x, part(parameters, "q")), heads)
    return attention_weights(q, split_heads(linear(memory, part(parameters, "k")), heads), **options)


@authority("I22", "torch.nn.MultiheadAttention", of=(multi_head_attention, split_heads, attention_weights))
def torch_multi_head(draw: Draw) -> None:
    """Self-attention with 1 to M heads, biases, boolean and additive masks, causality: outputs, and each head's weights."""
    x, rng = words(draw)
    T, M = x.shape[1:]
    module, parameters, heads = module_and_parameters(draw, M, M, rng)
    options: dict[str, Any] = {"causal": draw(st.sampled_from([None, "top-left"]))}
    hidden = ~causal_mask(T, T) if options["causal"] else np.zeros((T, T), dtype=bool)
    kind = draw(st.sampled_from(["none", "boolean", "additive"]))
    if kind == "boolean":
        options["mask"] = (rng.random((T, T)) < 0.7) | np.eye(T, dtype=bool)
        hidden = hidden | ~options["mask"]
    torch_mask = torch.tensor(hidden)  # torch's polarity is the other one: True hides
    if kind == "additive":
        options["bias"] = rng.normal(size=(T, T))
        torch_mask = torch.tensor(additive_mask(~hidden) + options["bias"])
    input_ = torch.tensor(x)
    out, weights = module(input_, input_, input_, attn_mask=torch_mask, average_attn_weights=False)
    agrees(out.detach().numpy(), multi_head_attention, x, x, parameters, heads, **options)
    agrees(weights.detach().numpy(), head_weights, x, x, parameters, heads, **options)


@authority("I27", "torch.nn.MultiheadAttention", of=(cross_attention, multi_head_attention, padding_mask))
def torch_cross_attention(draw: Draw) -> None:
    """Queries from one sequence, keys and values from a padded other one, of the same or another width."""
    x, rng = words(draw)
    B, _, M = x.shape
    S, memory_width = draw(st.integers(1, 5)), draw(st.sampled_from([M, M + 2]))
    memory = rng.normal(size=(B, S, memory_width))
    module, parameters, heads = module_and_parameters(draw, M, memory_width, rng)
    lengths = rng.integers(1, S + 1, size=B)
    mask = padding_mask(lengths, S)
    read = torch.tensor(memory)
    out, _ = module(torch.tensor(x), read, read, key_padding_mask=torch.tensor(~mask[:, 0, 0]))
    agrees(out.detach().numpy(), cross_attention, x, memory, parameters, heads, memory_mask=mask[:, 0, 0])


@authority("I27", "torch.nn.functional.scaled_dot_product_attention", of=(cross_attention,))
def torch_cross_attention_by_head(draw: Draw) -> None:
    """One head without output map: the T by S table applied to the values of the other sequence."""
    x, rng = words(draw)
    B, _, M = x.shape
    memory = rng.normal(size=(B, draw(st.integers(1, 6)), M))
    weights = {name: rng.normal(size=(M, M)) / np.sqrt(M) for name in ("q.weight", "k.weight", "v.weight")}
    q, k, v = x @ weights["q.weight"].T, memory @ weights["k.weight"].T, memory @ weights["v.weight"].T
    agrees(sdpa(q, k, v), cross_attention, x, memory, weights | {"o.weight": np.eye(M)}, 1)
