"""torch on multiplicative attention: its bilinear layer, its dot-product attention, its gradients.

Where the docstring says "of our forward", the forward pass is written here, from torch's layers; what comes from torch
are the layers and the gradients.
"""

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from attnspec.reference.local_attention import local_attention, predicted_positions
from attnspec.reference.luong_attention import attentional_states, luong_attention, luong_scores
from attnspec.reference.luong_attention_backward import attentional_states_backward, luong_attention_backward
from attnspec.reference.luong_decoder import luong_logits, luong_start, luong_step
from tests.authorities.additive import attended, leaves
from tests.authorities.agreement import Draw, agrees, authority
from tests.authorities.torch_translators import attention_mask, case_of, decode, encoded, hidden_of
from tests.reference.attended import weights_for

torch.set_num_threads(1)
SCORES = ("dot", "general", "concat")


@authority("I13", "torch.nn.Bilinear", of=(luong_scores,))
def torch_bilinear(draw: Draw) -> None:
    """The general score of every pair of states."""
    rng, queries, states, mask = attended(draw)
    weight = rng.normal(size=(queries.shape[2], states.shape[2])) / np.sqrt(states.shape[2])
    layer = torch.nn.Bilinear(*weight.shape, 1, bias=False, dtype=torch.float64)
    layer.weight.data = torch.tensor(weight)[None]
    q = torch.tensor(queries)[:, :, None].expand(-1, -1, mask.shape[2], -1).contiguous()
    h = torch.tensor(states)[:, None].expand(-1, mask.shape[1], -1, -1).contiguous()
    agrees(layer(q, h)[..., 0].detach().numpy(), luong_scores, queries, states, {"weight": weight}, "general")


@authority("I13", "torch scaled_dot_product_attention", of=(luong_attention,))
def torch_dot(draw: Draw) -> None:
    """Dot-product attention with scale 1 and a mask, and with projected states as keys: contexts and weights."""
    rng, queries, states, mask = attended(draw)
    score = draw(st.sampled_from(["dot", "general"]))
    states = rng.normal(size=(*states.shape[:2], queries.shape[2])) if score == "dot" else states
    p = weights_for(score, queries.shape[2], states.shape[2], 1, rng)
    q, h = torch.tensor(queries)[:, None], torch.tensor(states)[:, None]
    keys = torch.nn.functional.linear(h, torch.tensor(p["weight"])) if score == "general" else h
    each = torch.eye(mask.shape[2], dtype=torch.float64).expand(len(states), 1, -1, -1)
    read = torch.nn.functional.scaled_dot_product_attention
    got = tuple(read(q, keys, v, attn_mask=torch.tensor(mask)[:, None], scale=1.0)[:, 0].numpy() for v in (h, each))
    agrees(got, luong_attention, queries, states, p, score, mask)


def score_of(q: torch.Tensor, h: torch.Tensor, named: dict[str, torch.Tensor], score: str) -> torch.Tensor:
    if score == "concat":
        return hidden_of(q, h, named) @ named["score.weight"]
    return q @ (h @ named["weight"].mT if score == "general" else h).mT


@authority("I13", "torch.autograd of our forward", of=(luong_attention_backward, luong_scores))
def torch_luong_backward(draw: Draw) -> None:
    """The gradients of queries, states and parameters for the three scores, with hidden states."""
    rng, queries, states, mask = attended(draw)
    score = draw(st.sampled_from(SCORES))
    states = rng.normal(size=(*states.shape[:2], queries.shape[2])) if score == "dot" else states
    p = weights_for(score, queries.shape[2], states.shape[2], 3, rng)
    cotangent = rng.normal(size=(*mask.shape[:2], states.shape[2]))
    q, h, *of_p = leaves(queries, states, *p.values())
    named = dict(zip(p, of_p, strict=True))
    weights = torch.softmax(torch.where(torch.tensor(mask), score_of(q, h, named, score), -torch.inf), -1)
    (weights @ h).backward(torch.tensor(cotangent))
    got = (q.grad.numpy(), h.grad.numpy(), {name: leaf.grad.numpy() for name, leaf in named.items()})
    agrees(got, luong_attention_backward, queries, states, p, cotangent, score, mask)


@authority("I13", "torch.nn.Linear, torch.nn.Tanh and torch.autograd", of=(attentional_states, attentional_states_backward))
def torch_attentional(draw: Draw) -> None:
    """The attentional state and the gradients of contexts, queries and parameters, with and without bias."""
    rng, queries, _, mask = attended(draw)
    contexts, N, biased = rng.normal(size=(*mask.shape[:2], 3)), queries.shape[2], draw(st.booleans())
    layer = torch.nn.Linear(3 + N, N, bias=biased, dtype=torch.float64)
    p = {name: rng.normal(size=tuple(array.shape)) / np.sqrt(3 + N) for name, array in layer.named_parameters()}
    layer.load_state_dict({name: torch.tensor(array) for name, array in p.items()})
    cotangent = rng.normal(size=queries.shape)
    c, q = leaves(contexts, queries)
    out = torch.nn.Sequential(layer, torch.nn.Tanh())(torch.cat([c, q], dim=2))
    out.backward(torch.tensor(cotangent))
    agrees(out.detach().numpy(), attentional_states, contexts, queries, p)
    got = (c.grad.numpy(), q.grad.numpy(), {name: array.grad.numpy() for name, array in layer.named_parameters()})
    agrees(got, attentional_states_backward, contexts, queries, p, cotangent)


@authority("I13", "torch.nn layers in our order", of=(luong_logits, luong_start, luong_step))
def torch_luong(draw: Draw) -> None:
    """The whole translator from torch's Embedding, LSTM or GRU, Linear: three scores, with and without input feeding."""
    score, feeding = draw(st.sampled_from(SCORES)), draw(st.booleans())
    case = case_of(draw, score, feeding)
    states, state = encoded(case)
    p: dict[str, Any] = case.tensors
    named = {name.removeprefix("attention."): x for name, x in p.items() if name.startswith("attention.")}
    fed, joined, alphas = torch.zeros_like(state[0][0])[:, None], [], []
    for t in range(case.inputs.shape[1]):
        token = torch.nn.functional.embedding(torch.tensor(case.inputs[:, [t]]), p["target.embedding.weight"])
        out, state = decode(case, torch.cat([token, fed], dim=2) if feeding else token, state)
        e = score_of(out, states, named, score)
        alpha = torch.softmax(torch.where(attention_mask(case), e, -torch.inf), -1)
        fed = torch.tanh(torch.nn.functional.linear(torch.cat([alpha @ states, out], dim=2), named["combine.weight"]))
        joined, alphas = [*joined, fed], [*alphas, alpha]
    logits = torch.nn.functional.linear(torch.cat(joined, 1), p["output.weight"], p.get("output.bias"))
    got = (logits.detach().numpy(), torch.cat(alphas, 1).detach().numpy())
    agrees(got, luong_logits, case.source, case.inputs, case.parameters, case.cell, score, case.lengths, feeding)


@authority("I13", "torch.nn layers and scaled_dot_product_attention", of=(local_attention, predicted_positions))
def torch_local(draw: Draw) -> None:
    """Local attention: predicted positions, and the softmax inside the window times a Gaussian."""
    rng, queries, states, mask = attended(draw)
    (B, T, S), N, D = mask.shape, queries.shape[2], draw(st.integers(1, 4))
    named = {"hidden.weight": rng.normal(size=(3, N)) / np.sqrt(N), "score.weight": rng.normal(size=3)}
    weight, lengths = rng.normal(size=(N, states.shape[2])) / np.sqrt(N), rng.integers(0, S + 1, size=B)
    hidden = torch.tanh(torch.nn.functional.linear(torch.tensor(queries), torch.tensor(named["hidden.weight"])))
    share = torch.sigmoid(torch.nn.functional.linear(hidden, torch.tensor(named["score.weight"])[None]))[..., 0]
    predicted = (torch.tensor(lengths)[:, None] * share).numpy()
    agrees(predicted, predicted_positions, queries, lengths, S, named)
    positions = rng.uniform(0, S, size=(B, T))
    distance = np.arange(S) - positions[..., None]
    near = torch.tensor(np.abs(distance) <= D)  # D >= 1, and a position lies in 0..S: some state is near
    keys, each = torch.nn.functional.linear(torch.tensor(states), torch.tensor(weight)), torch.eye(S, dtype=torch.float64)
    read = torch.nn.functional.scaled_dot_product_attention
    align = read(torch.tensor(queries), keys, each.expand(B, S, S), attn_mask=near, scale=1.0)
    weights = align * torch.exp(-(torch.tensor(distance) ** 2) / (2 * (D / 2) ** 2))
    got = ((weights @ torch.tensor(states)).numpy(), weights.numpy())
    agrees(got, local_attention, queries, states, positions, D, {"weight": weight}, "general")
