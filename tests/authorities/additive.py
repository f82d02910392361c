"""A published additive attention, torch's attention as a weighted mean, and torch's gradients.

Where the docstring says "of our forward", the forward pass is written here, from torch's layers; what comes from torch
are the layers and the gradients.
"""

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from transformers.models.slanet.modeling_slanet import SLANetAttentionGRUCell

from attnspec.reference.additive_attention import additive_attention, additive_energies
from attnspec.reference.additive_attention_backward import additive_attention_backward, additive_energies_backward
from attnspec.reference.bahdanau_decoder import bahdanau_logits, bahdanau_start, bahdanau_step
from attnspec.reference.context_vector import context_vectors, context_vectors_backward
from attnspec.reference.parameters import Parameters
from attnspec.reference.shapes import FloatArray, IntArray
from tests.authorities.agreement import Draw, agrees, authority
from tests.authorities.torch_translators import Case, attention_mask, case_of, decode, encoded, hidden_of, leaves

torch.set_num_threads(1)


def attended(draw: Draw) -> tuple[np.random.Generator, FloatArray, FloatArray, np.ndarray]:
    """A generator, queries [B,T,N], states [B,S,N'] and a mask [B,T,S] that hides no row as a whole."""
    B, T, S, N, N2 = (draw(st.integers(1, 4)) for _ in range(5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.random((B, T, S)) < 0.6
    mask[..., 0] |= ~mask.any(-1)
    return rng, rng.normal(size=(B, T, N)), rng.normal(size=(B, S, N2)), mask


def additive_layer(rng: np.random.Generator, N: int, N2: int, A: int, biased: bool) -> dict[str, FloatArray]:
    shapes = {"query.weight": (A, N), "key.weight": (A, N2), "score.weight": (A,), **({"bias": (A,)} if biased else {})}
    return {name: rng.normal(size=shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()}


def slanet_steps(
    inputs: IntArray, state: FloatArray, states: FloatArray, parameters: Parameters
) -> list[tuple[FloatArray, FloatArray]]:
    """States and alignments of the reference, step by step; the output layer is the identity."""
    steps, current = [], (state,)
    for t in range(inputs.shape[1]):
        shown, current, alpha = bahdanau_step(inputs[:, t], current, states, parameters, "gru")
        steps.append((shown, alpha))
    return steps


@authority("I12", "transformers SLANetAttentionGRUCell", of=(bahdanau_step, additive_attention))
def slanet(draw: Draw) -> None:
    """The decoder step of a table reader, a GRU with additive attention: states and alignments, step by step, in float32."""
    B, T, S, N, N2, V = (draw(st.integers(1, 4)) for _ in range(6))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    cell = SLANetAttentionGRUCell(N2, N, V)
    states, state, inputs = torch.randn(B, S, N2), torch.randn(B, N), torch.randint(0, V, (B, T))
    from_context, from_token = cell.rnn.weight_ih.split([N2, V], dim=1)  # here the token comes first
    parameters = {
        "target.embedding.weight": torch.eye(V), "output.weight": torch.eye(N),
        "attention.query.weight": cell.hidden_to_hidden.weight, "attention.bias": cell.hidden_to_hidden.bias,
        "attention.key.weight": cell.input_to_hidden.weight, "attention.score.weight": cell.score.weight[0],
        "decoder.0.input.weight": torch.cat([from_token, from_context], dim=1), "decoder.0.input.bias": cell.rnn.bias_ih,
        "decoder.0.hidden.weight": cell.rnn.weight_hh, "decoder.0.hidden.bias": cell.rnn.bias_hh,
    }  # fmt: skip
    got, current = [], state
    for t in range(T):
        current, alpha = cell(current, states, torch.nn.functional.one_hot(inputs[:, t], V).float())
        got.append((current.detach().numpy(), alpha[:, 0].detach().numpy()))
    parameters = {name: array.detach().numpy() for name, array in parameters.items()}
    agrees(got, slanet_steps, inputs.numpy(), state[None].numpy(), states.numpy(), parameters, unit="float32")


@authority("I11", "torch scaled_dot_product_attention", of=(context_vectors,))
def torch_context(draw: Draw) -> None:
    """Without queries and keys, attention with the energies as bias is the weighted mean of the states."""
    rng, _, states, mask = attended(draw)
    energies = 3 * rng.normal(size=mask.shape)
    bias = torch.tensor(np.where(mask, energies, -np.inf))[:, None]
    nothing = torch.zeros((len(states), 1, mask.shape[1], 1), dtype=torch.float64)
    no_keys = torch.zeros((len(states), 1, mask.shape[2], 1), dtype=torch.float64)
    read = torch.nn.functional.scaled_dot_product_attention
    each = torch.eye(mask.shape[2], dtype=torch.float64).expand(len(states), 1, -1, -1)
    context, weights = (read(nothing, no_keys, v, attn_mask=bias)[:, 0] for v in (torch.tensor(states)[:, None], each))
    agrees((context.numpy(), weights.numpy()), context_vectors, energies, states, mask)


@authority("I11", "torch.autograd of scaled_dot_product_attention", of=(context_vectors_backward,))
def torch_context_backward(draw: Draw) -> None:
    """The gradients of the energies and the states."""
    rng, _, states, mask = attended(draw)
    energies, cotangent = rng.normal(size=mask.shape), rng.normal(size=(*mask.shape[:2], states.shape[2]))
    e, h = leaves(energies, states)
    nothing = torch.zeros((len(states), 1, mask.shape[1], 1), dtype=torch.float64)
    no_keys = torch.zeros((len(states), 1, mask.shape[2], 1), dtype=torch.float64)
    bias = torch.where(torch.tensor(mask), e, -torch.inf)[:, None]
    out = torch.nn.functional.scaled_dot_product_attention(nothing, no_keys, h[:, None], attn_mask=bias)
    out[:, 0].backward(torch.tensor(cotangent))
    agrees((e.grad.numpy(), h.grad.numpy()), context_vectors_backward, energies, states, cotangent, mask)


@authority("I12", "torch.nn.Linear on pairs", of=(additive_energies,))
def torch_energies(draw: Draw) -> None:
    """The concatenated form, two Linear layers with tanh between them on [s; h], against the split form."""
    rng, queries, states, mask = attended(draw)
    p = additive_layer(rng, queries.shape[2], states.shape[2], draw(st.integers(1, 4)), biased=True)
    _, T, S = mask.shape
    pairs = torch.cat([torch.tensor(queries)[:, :, None].expand(-1, -1, S, -1),
                       torch.tensor(states)[:, None].expand(-1, T, -1, -1)], dim=3)  # fmt: skip
    hidden = torch.nn.Linear(pairs.shape[3], len(p["bias"]), dtype=torch.float64)
    hidden.weight.data = torch.tensor(np.concatenate([p["query.weight"], p["key.weight"]], axis=1))
    hidden.bias.data = torch.tensor(p["bias"])
    score = torch.nn.Linear(len(p["bias"]), 1, bias=False, dtype=torch.float64)
    score.weight.data = torch.tensor(p["score.weight"])[None]
    got = torch.nn.Sequential(hidden, torch.nn.Tanh(), score)(pairs)[..., 0]
    agrees(got.detach().numpy(), additive_energies, queries, states, p)


@authority("I12", "torch.autograd of our forward", of=(additive_attention_backward, additive_energies_backward))
def torch_additive_backward(draw: Draw) -> None:
    """The gradients of queries, states and parameters, with hidden states, with and without bias."""
    rng, queries, states, mask = attended(draw)
    p = additive_layer(rng, queries.shape[2], states.shape[2], draw(st.integers(1, 4)), draw(st.booleans()))
    cotangent, energy_cotangent = rng.normal(size=(*mask.shape[:2], states.shape[2])), rng.normal(size=mask.shape)

    def gradients(whole: bool) -> tuple[Any, ...]:
        q, h, *of_p = leaves(queries, states, *p.values())
        named = dict(zip(p, of_p, strict=True))
        e = (hidden_of(q, h, named) @ named["score.weight"][:, None])[..., 0]
        weights = torch.softmax(torch.where(torch.tensor(mask), e, -torch.inf), -1)
        (weights @ h if whole else e).backward(torch.tensor(cotangent if whole else energy_cotangent))
        return q.grad.numpy(), h.grad.numpy(), {name: leaf.grad.numpy() for name, leaf in named.items()}

    agrees(gradients(True), additive_attention_backward, queries, states, p, cotangent, mask)
    agrees(gradients(False), additive_energies_backward, queries, states, p, energy_cotangent)


@authority("I12", "torch.nn layers in our order", of=(bahdanau_logits, bahdanau_start, bahdanau_step))
def torch_bahdanau(draw: Draw) -> None:
    """The whole translator from torch's Embedding, LSTM or GRU, Linear: logits and alignments with padded sources."""
    case: Case = case_of(draw, "additive")
    states, state = encoded(case)
    p, outs, alphas = case.tensors, [], []
    for t in range(case.inputs.shape[1]):
        named = {name.removeprefix("attention."): x for name, x in p.items() if name.startswith("attention.")}
        e = hidden_of(state[0][-1][:, None], states, named) @ named["score.weight"]
        alpha = torch.softmax(torch.where(attention_mask(case), e, -torch.inf), -1)
        token = torch.nn.functional.embedding(torch.tensor(case.inputs[:, [t]]), p["target.embedding.weight"])
        out, state = decode(case, torch.cat([token, alpha @ states], dim=2), state)
        outs, alphas = [*outs, out], [*alphas, alpha]
    logits = torch.nn.functional.linear(torch.cat(outs, 1), p["output.weight"], p.get("output.bias"))
    got = (logits.detach().numpy(), torch.cat(alphas, 1).detach().numpy())
    agrees(got, bahdanau_logits, case.source, case.inputs, case.parameters, case.cell, case.lengths)
