"""impl/ is reference/ in every row of a covering array over the options: forward, loss, gradients, every way to decode."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from attnspec.impl import layers, positions
from attnspec.impl.decoding import beam, greedy, sample
from attnspec.impl.loss import cross_entropy
from attnspec.impl.speculative import speculative
from attnspec.reference import sampling
from attnspec.reference.beam_search import beam_search, length_penalty
from attnspec.reference.cross_entropy import cross_entropy as reference_cross_entropy
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.key_value_cache import reorder
from attnspec.reference.softmax import log_sum_exp, softmax
from attnspec.reference.training_step import loss_and_gradients
from attnspec.reference.transformer import transformer
from tests.authorities.agreement import agrees, bounds, carried, compare
from tests.authorities.torch_transformers import projected
from tests.impl.covering_array import Row, covering_array, pairs
from tests.impl.covering_models import OPTIONS, ROWS, WIDTH, WORDS, fits, model_of_row, name_of, net_of
from tests.impl.impl_models import gradients, logits, masks, reference_steps, started, tensor
from tests.reference.drawn_models import Model

START, END, LIMIT, BEAMS = 1, 0, 4, 2
SMOOTHING, PADDING_ID = 0.1, -100
SMOOTHING_OF_IMPL = SMOOTHING
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
# Bounds above this share of a row's spread of logits would let a wrong formula pass.
SHARE = {"float64": 1e-12, "float32": 1e-3, "bfloat16": 0.25}
DECODERS = [row for row in ROWS if row["structure"] != "encoder"]
every_row = pytest.mark.parametrize("row", ROWS, ids=name_of)
every_decoder = pytest.mark.parametrize("row", DECODERS, ids=name_of)


def test_every_pair_of_options_occurs() -> None:
    held = [pair for pair in pairs(OPTIONS, fits) if any(pair.items() <= row.items() for row in ROWS)]
    assert len(held) == len(pairs(OPTIONS, fits)) > 900
    assert all(fits(row) and set(row) == set(OPTIONS) for row in ROWS)
    assert covering_array(OPTIONS, fits) == ROWS


def test_a_row_less_loses_a_pair() -> None:
    for i in range(len(ROWS)):
        fewer = ROWS[:i] + ROWS[i + 1 :]
        if all(any(pair.items() <= row.items() for row in fewer) for pair in pairs(OPTIONS, fits)):
            pytest.fail(f"row {i} holds no pair of its own")


def arguments(model: Model) -> tuple[Any, ...]:
    return model.source, model.target, model.parameters


def sharp(want: Any, unit: str) -> None:
    """Raises unless the bounds of logits are small beside how much these differ from word to word."""
    spread, allowed = float(np.median(np.ptp(want.value, axis=-1))), float(np.median(bounds(want, unit)))
    assert allowed < SHARE[unit] * spread, f"the bound {allowed:.1e} says nothing about logits that differ by {spread:.1e}"


def in_pieces(net: Any, model: Model, cuts: list[int]) -> Tensor:
    """The logits of the target, read in pieces that end at the cuts."""
    ids, real, state, found = tensor(model.target), masks(model).get("target_mask"), started(net, model), []
    for start, stop in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        new, state = net.extend(ids[:, start:stop], state, None if real is None else real[:, start:stop])
        found.append(new)
    return torch.cat(found, dim=1)


def every_way(net: Any, model: Model) -> list[Tensor]:
    """The logits of a whole sequence, and those of its words one by one and in chunks if there is a decoder."""
    if model.target is None:
        return [logits(net, model)]
    T = model.target.shape[1]
    return [logits(net, model), in_pieces(net, model, list(range(1, T))), in_pieces(net, model, [2, 2])]


@every_row
def test_logits_of_the_whole_of_single_words_and_of_chunks(row: Row) -> None:
    model = model_of_row(row)
    want = carried(transformer, *arguments(model), **model.arguments)
    sharp(want, "float64")
    for got in every_way(net_of(model), model):
        compare(got.detach().numpy(), want, "float64", "logits")


def words_of(model: Model) -> np.ndarray:
    """What the model should say at each token; nothing where that is padding."""
    ids = model.source if model.target is None else model.target
    real = model.masks.get("source_mask" if model.target is None else "target_mask", np.ones(ids.shape, dtype=bool))
    return np.where(real, np.random.default_rng(len(model.parameters)).integers(model.V, size=ids.shape), PADDING_ID)


def mean_loss(out: Tensor, words: np.ndarray) -> Tensor:
    targets = torch.tensor(words)
    total, count = cross_entropy(out, targets, targets != PADDING_ID, smoothing=SMOOTHING_OF_IMPL)
    return total / count


@every_row
def test_loss_and_all_gradients(row: Row) -> None:
    model = model_of_row(row)
    net, words = net_of(model), words_of(model)
    loss = mean_loss(logits(net, model), words)
    loss.backward()
    got = (loss.detach().numpy(), gradients(net))
    asked = {"padding_id": PADDING_ID, "smoothing": SMOOTHING}
    agrees(*projected(got, loss_and_gradients), *arguments(model)[:2], words, model.parameters, **model.arguments, **asked)


class Decoded(NamedTuple):
    """Sentences of impl: words and log-probabilities [N,T], scores [N]; the words of the reference; the rows of the batch."""

    tokens: np.ndarray
    log_probs: np.ndarray
    want: np.ndarray
    rows: np.ndarray
    scores: np.ndarray
    penalties: np.ndarray


def decoded(got: Any, want: np.ndarray) -> Decoded:
    """Of a search that gives one sentence for each row; all sentences are filled up to the same length."""
    (B, T), log_probs = want.shape, got.log_probs.numpy()
    longer = ((0, 0), (0, LIMIT - T))
    tokens, want = (np.pad(one, longer, constant_values=END) for one in (got.tokens.numpy(), want))
    return Decoded(tokens, np.pad(log_probs, longer), want, np.arange(B), log_probs.sum(axis=1), np.ones(B))


def by_greedy(net: Any, model: Model) -> Decoded:
    got = greedy(net, started(net, model), torch.full((len(model.target), 1), START), END, LIMIT)
    step, state = reference_steps(model)
    return decoded(got, greedy_search(step, state, np.full(len(model.target), START), END, LIMIT))


def by_sampling(net: Any, model: Model) -> Decoded:
    """impl and the reference get the same uniform numbers."""
    B, asked = len(model.target), {"temperature": 0.8, "k": 5, "p": 0.9}
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    got = sample(net, started(net, model), torch.full((B, 1), START), END, LIMIT, **asked, generator=generators[0])
    step, state = reference_steps(model)
    token, ended, words = np.full(B, START), np.zeros(B, dtype=bool), []
    while len(words) < LIMIT and not ended.all():
        found, state = step(token, state)
        kept = sampling.top_p(sampling.top_k(sampling.with_temperature(found, asked["temperature"]), asked["k"]), asked["p"])
        u = torch.rand((B, 1), generator=generators[1], dtype=torch.float64)[:, 0].numpy()
        token = np.where(ended, END, sampling.draw(softmax(kept), u))
        ended = ended | (token == END)
        words.append(token)
    return decoded(got, np.stack(words, axis=1))


def by_beam(net: Any, model: Model, alpha: float = 0.6, offset: float = 5.0) -> Decoded:
    B = len(model.target)
    got = beam(net, started(net, model), torch.full((B, 1), START), END, LIMIT, BEAMS, alpha=alpha, offset=offset)
    step, state = reference_steps(model)
    want, _ = beam_search(step, state, np.full(B, START), END, LIMIT, BEAMS, reorder, alpha, offset)
    lengths = (np.cumsum(want == END, axis=2) - (want == END) == 0).sum(axis=2).ravel()
    penalties = np.array([length_penalty(int(n), alpha, offset) for n in lengths])
    each = [one.numpy().reshape(B * BEAMS, LIMIT) for one in (got.tokens, got.log_probs)]
    rows = np.repeat(np.arange(B), BEAMS)
    return Decoded(*each, want.reshape(B * BEAMS, LIMIT), rows, got.scores.numpy().ravel(), penalties)


def by_speculation(net: Any, model: Model) -> Decoded:
    """The draft is the model with noise in its output: some of its guesses are right."""
    draft, prompt = copy.deepcopy(net), torch.full((len(model.target), 1), START)
    with torch.no_grad():
        for one in draft.decoder.parameters():
            one.add_(0.1 * torch.randn(one.shape, generator=torch.Generator().manual_seed(0), dtype=one.dtype))
    states = started(net, model), draft, started(draft, model)
    got = speculative(net, *states, prompt, END, LIMIT, ahead=2)
    step, state = reference_steps(model)
    return decoded(got, greedy_search(step, state, np.full(len(model.target), START), END, LIMIT))


DECODING: dict[str, Callable[[Any, Model], Decoded]] = {
    "greedy": by_greedy, "speculative": by_speculation, "sampling": by_sampling, "beam": by_beam,
}  # fmt: skip


def said(source: Any, words: Any, parameters: Any, penalties: Any, **options: Any) -> Any:
    """The log-probability of each word, given those before it, and the score of each sentence."""
    target = np.concatenate([np.full((len(words), 1), START), words[:, :-1]], axis=1)
    found = transformer(source, target, parameters, **options)
    chosen = np.sum(np.where(np.arange(found.shape[2]) == words[:, :, None], found, 0.0), axis=2)
    ended = np.cumsum(words == END, axis=1) - (words == END) > 0
    log_probs = np.where(ended, 0.0, chosen - log_sum_exp(found))
    return {"log_probs": log_probs, "scores": np.sum(log_probs, axis=1) / penalties}


@every_decoder
def test_every_decoding_mode(row: Row) -> None:
    model = model_of_row(row)
    net, found = net_of(model), []
    for name, mode in DECODING.items():
        one = mode(net, model)
        np.testing.assert_array_equal(one.tokens, one.want, err_msg=name)
        found.append(one)
    every = Decoded(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    source = None if model.source is None else model.source[every.rows]
    real = {name: one[every.rows] for name, one in model.masks.items() if name == "source_mask"}
    got = {"log_probs": every.log_probs, "scores": every.scores}
    agrees(got, said, source, every.tokens, model.parameters, every.penalties, **real, **model.options)


def representable(model: Model, unit: str) -> Model:
    """The model with the weights that it has in a shorter format: both sides get the same numbers."""
    return model._replace(
        parameters={name: torch.tensor(one).to(DTYPES[unit]).double().numpy() for name, one in model.parameters.items()}
    )


def with_greedy_words(net: Any, model: Model, limit: int = 2) -> tuple[Model, np.ndarray]:
    """The model with a target that goes on as greedy search says, and that search's words [B,limit]."""
    real = masks(model).get("target_mask")
    found = greedy(net, started(net, model), tensor(model.target), END, limit, mask=real).tokens.numpy()
    found = np.pad(found, ((0, 0), (0, limit - found.shape[1])), constant_values=END)
    longer = np.concatenate([model.target, found[:, :-1]], axis=1)
    kept = dict(model.masks)
    if real is not None:
        kept["target_mask"] = np.concatenate([kept["target_mask"], np.ones((len(longer), limit - 1), dtype=bool)], axis=1)
    return model._replace(target=longer, masks=kept), found


def best_or_tied(want: Any, words: np.ndarray, prompt: np.ndarray, unit: str) -> None:
    """Raises unless each word of a greedy search is the best in float64, up to the errors of its logit and of the best."""
    allowed = want.enclosure() if unit == "bfloat16" else None
    for b in range(len(words)):
        last = int(np.flatnonzero(prompt[b])[-1])
        for i, t in enumerate([last, *range(prompt.shape[1], prompt.shape[1] + words.shape[1] - 1)]):
            best, word = int(np.argmax(want.value[b, t])), int(words[b, i])
            reach = sum(want.first_order((b, t, v)) if allowed is None else allowed[b, t, v] for v in (best, word))
            gap = want.value[b, t, best] - want.value[b, t, word]
            assert gap <= reach, f"word {word} of row {b} is worse than {best} by {gap:.1e}, more than rounding's {reach:.1e}"
            if word == END:
                break


def logits_and_loss(source: Any, target: Any, parameters: Any, words: Any, **options: Any) -> Any:
    found = transformer(source, target, parameters, **options)
    return found, reference_cross_entropy(found, words, PADDING_ID, SMOOTHING)


@pytest.mark.parametrize("unit", ["float32", "bfloat16"])
@every_row
def test_logits_loss_and_greedy_words_in_shorter_formats(row: Row, unit: str) -> None:
    sizes = {"B": 1, "S": 4, "T": 2} if unit == "bfloat16" else {"T": 4}  # the enclosure takes time, and grows with sizes
    model = representable(model_of_row(row, **sizes, size=0.4), unit)
    net, words, prompt = net_of(model, DTYPES[unit]), None, None
    if model.target is not None:
        prompt = model.masks.get("target_mask", np.ones(model.target.shape, dtype=bool))
        model, words = with_greedy_words(net, model)
    targets = words_of(model)
    want, loss = carried(logits_and_loss, *arguments(model), targets, unit=unit, **model.arguments)
    compare(mean_loss(logits(net, model), targets).detach().double().numpy(), loss, unit, "loss")
    sharp(want, unit)
    for got in every_way(net, model):
        assert got.dtype == DTYPES[unit]
        compare(got.detach().double().numpy(), want, unit, "logits")
    if words is not None:
        best_or_tied(want, words, prompt, unit)


def test_a_worse_word_is_no_tie() -> None:
    model = representable(model_of_row(ROWS[0], T=4, size=0.4), "float32")
    model, words = with_greedy_words(net_of(model, torch.float32), model)
    want = carried(transformer, *arguments(model), unit="float32", **model.arguments)
    prompt = np.ones((3, 4), dtype=bool)
    best_or_tied(want, words, prompt, "float32")
    second = np.argsort(want.value[:, 3], axis=-1)[:, -2:-1]
    with pytest.raises(AssertionError, match="is worse than"):
        best_or_tied(want, second, prompt, "float32")


def with_attention(change: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """A defect of every call of `attention`, whose arguments are changed."""

    def plant(patch: pytest.MonkeyPatch, _: Any) -> None:
        patch.setattr(layers, "attention", lambda q, k, v, **options: ATTENTION(**change(q=q, k=k, v=v, **options)))

    return plant


def ahead(q: Tensor, **options: Any) -> dict[str, Any]:
    T = q.shape[2]
    return {"q": q} | options | ({"causal": False, "mask": torch.ones(T, T).tril(1) > 0} if options["causal"] else {})


def tiled(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> dict[str, Any]:
    n = q.shape[1] // k.shape[1]
    return {"q": q, "k": k.repeat(1, n, 1, 1), "v": v.repeat(1, n, 1, 1)} | options


def configured(**wrong: Any) -> Callable[..., None]:
    """A model that takes another option than it was built with."""

    def plant(_: Any, net: Any) -> None:
        net.config = dataclasses.replace(net.config, **wrong)

    return plant


def of_layers(change: Callable[[Any], None]) -> Callable[..., None]:
    """A defect in every layer of a model."""
    return lambda _, net: [change(one) for one in net.modules() if isinstance(one, layers.Layer)]


def swap_gate(layer: Any) -> None:
    feed_forward = layer.feed_forward
    feed_forward.up, feed_forward.gate = feed_forward.gate, feed_forward.up


def no_last_norm(_: Any, net: Any) -> None:
    for stack in (one for one in net.modules() if isinstance(one, layers.Stack)):
        stack.norm = torch.nn.Identity()


def no_scaling(_: Any, net: Any) -> None:
    for side in {"source", "target"} & set(dict(net.named_children())):
        getattr(net, side).factor = 1.0


def root_mean_square(self: Any, x: Tensor) -> Tensor:
    return x * x.square().mean(dim=-1, keepdim=True).rsqrt() * self.weight


def another_table(_: Any, net: Any) -> None:
    net.output.weight = torch.nn.Parameter(torch.ones(WORDS, WIDTH, dtype=torch.float64))


def without_padding(_: Any, net: Any) -> None:
    net.register_forward_pre_hook(lambda _, args, __: (args, {}), with_kwargs=True)


ATTENTION = layers.attention
# What is wrong, the rows that it concerns, and how to plant it.
DEFECTS: list[tuple[str, dict[str, Any], Callable[..., Any]]] = [
    ("the next key is seen", {"structure": "decoder", "padding": "none", "window": None}, with_attention(ahead)),
    ("no scale", {}, with_attention(lambda **one: one | {"scale": 1.0})),
    ("queries in float32", {}, with_attention(lambda **one: one | {"q": one["q"].float().double()})),
    ("no soft cap", {"softcap": 5.0}, with_attention(lambda **one: one | {"softcap": None})),
    ("key/value heads tiled", {"kv_heads": 2}, with_attention(tiled)),
    ("a window wider by one", {"window": 3}, configured(window=4)),
    ("the other pairs of channels", {"positions": "rotary half", "head_width": 6}, configured(rotary_pairs="interleaved")),
    ("the other pairs of channels", {"positions": "rotary interleaved", "head_width": 6}, configured(rotary_pairs="half")),
    ("no eps", {"norm": "rms"}, lambda patch, _: patch.setattr(torch.nn.RMSNorm, "forward", root_mean_square)),
    ("gelu for gelu_tanh", {"activation": "gelu_tanh"}, of_layers(lambda one: setattr(one.feed_forward, "activation", GELU))),
    ("up and gate swapped", {"gated": True}, of_layers(swap_gate)),
    ("the norm before", {"order": "post"}, of_layers(lambda one: setattr(one, "pre", True))),
    ("the norm after", {"order": "pre"}, of_layers(lambda one: setattr(one, "pre", False))),
    ("not tied", {"tied": True}, another_table),
    ("slopes of ALiBi", {"positions": "alibi"},
     lambda patch, _: patch.setattr(positions, "alibi_slopes", lambda H: [2.0 ** -(h + 1) for h in range(H)])),
    ("no last norm", {"last_norm": True}, no_last_norm),
    ("embeddings not scaled", {"scale_embeddings": True}, no_scaling),
    ("padding is read", {"padding": "left"}, without_padding),
    ("padding is read", {"padding": "both"}, without_padding),
]  # fmt: skip
GELU = layers.ACTIVATIONS["gelu"]


@pytest.mark.parametrize("defect", DEFECTS, ids=[f"{i}: {name}" for i, (name, _, _) in enumerate(DEFECTS)])
def test_defects_are_noticed_by_a_row(monkeypatch: pytest.MonkeyPatch, defect: tuple[str, dict[str, Any], Any]) -> None:
    """With two channels, rotary pairs are the same in both layouts; with ALiBi no call is marked as causal."""
    name, concerns, plant = defect
    row = next(row for row in ROWS if (row | concerns) == row and row["positions"] in (concerns.get("positions"), "learned"))
    model = model_of_row(row)
    net = net_of(model)
    want = carried(transformer, *arguments(model), **model.arguments)
    compare(logits(net, model).detach().numpy(), want, "float64", name)
    plant(monkeypatch, net)
    with pytest.raises(AssertionError, match="error"):
        compare(logits(net, model).detach().numpy(), want, "float64", name)


def test_smoothing_without_the_right_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smoothing that spares the right word is that of another share: s V / (V - 1)."""
    test_loss_and_all_gradients(ROWS[0])
    monkeypatch.setitem(globals(), "SMOOTHING_OF_IMPL", SMOOTHING * WORDS / (WORDS - 1))
    with pytest.raises(AssertionError, match="error"):
        test_loss_and_all_gradients(ROWS[0])


def test_a_gradient_that_does_not_come_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with_attention(lambda **one: one | {"v": one["v"].detach()})(monkeypatch, None)
    with pytest.raises(AssertionError, match="error"):
        test_loss_and_all_gradients(ROWS[0])


SEARCH = torch.searchsorted


def second_best(x: Tensor, dim: int) -> Tensor:
    return x.topk(2, dim=dim).indices[..., 1]


def other_numbers(totals: Tensor, u: Tensor, right: bool) -> Tensor:
    return SEARCH(totals, totals[:, -1:] - u, right=right).clamp(max=WORDS - 1)


@pytest.mark.parametrize(
    ("where", "name", "wrong"), [(Tensor, "argmax", second_best), (torch, "searchsorted", other_numbers)]
)
def test_defects_of_decoding_are_noticed(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, wrong: Any) -> None:
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError, match="not equal"):
        test_every_decoding_mode(ROWS[0])
