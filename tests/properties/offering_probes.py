"""Probes of what a model may offer beside its logits: each says how far it is from what its own logits make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu, one_hot

from attnspec.properties.model_mutants.offering import Offering
from attnspec.reference.rotary_position import rotate

Probe = Callable[[Offering], float]


# Words of a probe: each row of a batch is drawn as "..xx", x a token and . padding.


def batch(drawn: str, seed: int = 3) -> tuple[Tensor, Tensor]:
    """ids and mask [B,T]; padding holds tokens too."""
    mask = torch.tensor([[token == "x" for token in row] for row in drawn.split()])
    return torch.randint(0, 29, mask.shape, generator=torch.Generator().manual_seed(seed)), mask.long()


def alone(model: Offering, row: Tensor) -> Tensor:
    """The logits [N,V] of a row without padding."""
    return model.logits(row[None])[0] if len(row) else torch.zeros(0, model.vocab_size, dtype=torch.float64)


def far(got: Tensor, want: Tensor) -> float:
    """The largest difference, as a share of the largest number; infinite if that cannot be said."""
    if got.shape != want.shape or not bool(got.isfinite().all()):
        return float("inf")
    return float((got.double() - want.double()).abs().max() / want.double().abs().max()) if want.numel() else 0.0


def farthest(pairs: Iterator[tuple[Tensor, Tensor]]) -> float:
    return max(far(got, want) for got, want in pairs)


def route(name: str, *drawn: str) -> Probe:
    """The real tokens of batches, one after another, by one route."""

    def pairs(model: Offering) -> Iterator[tuple[Tensor, Tensor]]:
        for n, rows in enumerate(drawn):
            words, mask = batch(rows, n)
            got = model.routes.get(name, model.logits)(words, None if bool(mask.all()) else mask)
            yield from ((got[b, mask[b] == 1], alone(model, words[b, mask[b] == 1])) for b in range(len(words)))

    return lambda model: farthest(pairs(model))


def cached(kind: str, program: str) -> Probe:
    """A program of states: "a=2" starts one, "b=a" forks, "a@1,0" reorders, "a<3" crops, "a+5,3" reads so many a row."""

    def pairs(model: Offering) -> Iterator[tuple[Tensor, Tensor]]:
        states, rows = {}, dict[str, list[Tensor]]()
        for n, (name, verb, rest) in enumerate((word[0], word[1], word[2:]) for word in program.split()):
            if verb == "=" and rest in states:
                states[name], rows[name] = model.fork(states[rest]), list(rows[rest])
            elif verb == "=":
                rows[name] = [torch.zeros(0, dtype=torch.int64)] * int(rest)
                states[name] = model.caches.get(kind, model.start)(int(rest))
            elif verb == "<":
                states[name], rows[name] = model.crop(states[name], int(rest)), [row[: int(rest)] for row in rows[name]]
            elif verb == "@":
                index = [int(row) for row in rest.split(",")]
                states[name], rows[name] = model.reorder(states[name], index), [rows[name][row] for row in index]
            else:
                many = [int(m) for m in rest.split(",")]
                many = many * len(rows[name]) if len(many) == 1 else many
                words, mask = batch(" ".join("x" * m + "." * (max(many) - m) for m in many), n)
                logits, states[name] = model.extend(words, states[name], mask)
                rows[name] = [torch.cat([row, words[b, mask[b] == 1]]) for b, row in enumerate(rows[name])]
                for b, m in enumerate(many):
                    yield logits[b, :m], alone(model, rows[name][b])[len(rows[name][b]) - m :]

    return lambda model: farthest(pairs(model))


def said(model: Offering, row: Tensor, count: int) -> Tensor:
    """The greedy words after a row, which is read anew for each."""
    for _ in range(count):
        row = torch.cat([row, alone(model, row)[-1].argmax()[None]])
    return row[len(row) - count :]


def greedy(*drawn: str, count: int = 6, first: Tensor | None = None) -> Probe:
    """Searches, one after another; `first` are words that all rows begin with."""

    def pairs(model: Offering) -> Iterator[tuple[Tensor, Tensor]]:
        for n, rows in enumerate(drawn):
            words, mask = batch(rows, n)
            words[:, : 0 if first is None else len(first)] = 0 if first is None else first
            got = model.generate(words, count, None if bool(mask.all()) else mask)
            yield got, torch.stack([said(model, row[real == 1], count) for row, real in zip(words, mask, strict=True)])

    return lambda model: farthest(pairs(model))


def turns(*lengths: int, count: int = 4, rows: int = 2) -> Probe:
    def pairs(model: Offering) -> Iterator[tuple[Tensor, Tensor]]:
        words = [batch(f"{'x' * length} " * rows, n)[0] for n, length in enumerate(lengths)]
        past = torch.zeros(rows, 0, dtype=torch.int64)
        for turn, got in zip(words, model.converse(words, count), strict=True):
            past = torch.cat([past, turn], dim=1)
            want = torch.stack([said(model, row, count) for row in past])
            past = torch.cat([past, want], dim=1)
            yield got, want

    return lambda model: farthest(pairs(model))


def searched(rows: int = 2, count: int = 4, width: int = 3, seed: int = 3) -> Probe:
    """Beam search with lists of words, each read anew."""

    def pairs(model: Offering) -> Iterator[tuple[Tensor, Tensor]]:
        words = batch("xxxxx " * rows, seed)[0]
        got, scores = model.beams(words, count, width)
        for b in range(rows):
            beams = [(0.0, list[int]())]
            for _ in range(count):
                logs = [
                    alone(model, torch.cat([words[b], torch.tensor(beam).long()]))[-1].log_softmax(-1) for _, beam in beams
                ]
                more = [
                    (p + float(log[w]), [*beam, w]) for (p, beam), log in zip(beams, logs, strict=True) for w in range(29)
                ]
                beams = sorted(more, key=lambda one: -one[0])[:width]
            yield got[b], torch.tensor([beam for _, beam in beams])
            yield scores[b], torch.tensor([p for p, _ in beams], dtype=torch.float64)

    return lambda model: farthest(pairs(model))


def lost(drawn: str, seed: int = 3) -> Probe:
    def pairs(model: Offering) -> Iterator[tuple[Tensor, Tensor]]:
        words, mask = batch(drawn, seed)
        rows = [row[real == 1] for row, real in zip(words, mask, strict=True)]
        each = [-alone(model, row)[:-1].log_softmax(-1)[torch.arange(len(row) - 1), row[1:]] for row in rows]
        yield model.loss(words, None if bool(mask.all()) else mask), torch.cat(each).mean()

    return lambda model: farthest(pairs(model))


def weighed(drawn: str) -> Probe:
    """Weights among the real tokens of each row, those of padding zero."""

    def pairs(model: Offering) -> Iterator[tuple[Tensor, Tensor]]:
        words, mask = batch(drawn)
        got = model.attentions(words, None if bool(mask.all()) else mask)
        for i, layer in enumerate(got):
            for b, real in enumerate(mask == 1):
                want = by_hand(model, model.weights, words[b, real])[1][i]
                yield layer[b][:, real][:, :, real], want
                yield layer[b][:, real][:, :, ~real] + 1, torch.ones(4, int(real.sum()), int((~real).sum()))
        yield torch.tensor([len(got)]), torch.tensor([len(model.layers)])

    return lambda model: farthest(pairs(model))


def derived(drawn: str, checkpointing: bool = False, times: int = 1) -> Probe:
    """Gradients of the sum of -log p, the last time."""

    def pairs(model: Offering) -> Iterator[tuple[Tensor, Tensor]]:
        words = batch(drawn)[0]
        weights = {name: w.clone().requires_grad_() for name, w in model.weights.items() if name != "position"}
        logits = torch.stack([by_hand(model, weights, row)[0] for row in words])
        total = -(logits[:, :-1].log_softmax(-1) * one_hot(words[:, 1:], 29)).sum()
        want = dict(zip(weights, torch.autograd.grad(total, list(weights.values())), strict=True))
        got = [model.gradients(words, checkpointing) for _ in range(times)][-1]
        yield torch.tensor(sorted(got) == sorted(want)).long(), torch.ones((), dtype=torch.int64)
        yield from ((got[name], gradient) for name, gradient in want.items())

    return lambda model: farthest(pairs(model))


def by_hand(model: Offering, weights: dict[str, Tensor], row: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and weights of attention of one row, written down once more; rotation as the reference has it."""
    T, D, found = len(row), model.D, []
    turn = torch.from_numpy(rotate(torch.eye(D).double()[None, :, None].expand(1, D, T, D).numpy(), np.arange(T)))[0]
    behind = torch.arange(T)[:, None] - torch.arange(T)
    there = (behind >= 0) & (behind < (model.window or T))

    def norm(x: Tensor, name: str) -> Tensor:
        return weights[name] * x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()

    x = weights["embedding"][row]
    for i in range(len(model.layers)):
        q, k, v = ((norm(x, f"{i}.norm") @ weights[f"{i}.{name}"].T).view(T, -1, D) for name in "qkv")
        q, k = (torch.einsum("thd,dte->hte", y, turn) for y in (q, k))
        k, v = (y.repeat_interleave(model.H // model.kv_heads, dim=0) for y in (k, v.transpose(0, 1)))
        found.append((q @ k.mT / D**0.5).masked_fill(~there, -torch.inf).softmax(-1))
        x = x + (found[-1] @ v).transpose(0, 1).flatten(1) @ weights[f"{i}.o"].T
        x = x + gelu(norm(x, f"{i}.up.norm") @ weights[f"{i}.up"].T) @ weights[f"{i}.down"].T
    return norm(x, "norm") @ weights["output"].T, found


def reread(drawn: str) -> Probe:
    return lambda model: far(model.reloaded().logits(batch(drawn)[0]), model.logits(batch(drawn)[0]))


def renamed(permutation: Tensor) -> Probe:
    """The permuted model on permuted words."""
    words = torch.arange(29)[None]
    return lambda model: far(model.renamed(permutation).logits(permutation[words])[..., permutation], model.logits(words))


def narrowed(dtype: str, drawn: str) -> Probe:
    """0 if all is finite in 16 bits, and the model what it was."""

    def measure(model: Offering) -> float:
        words, mask = batch(drawn)
        before = model.logits(words, mask)
        narrow = model.narrowed(dtype)
        finite = bool(narrow.logits(words, mask).isfinite().all())
        after = model.logits(words, mask)
        return far(after, before) if finite and after.dtype == before.dtype else float("inf")

    return measure


def unaltered(call: str, drawn: str) -> Probe:
    """What is altered of the arrays given."""

    def measure(model: Offering) -> float:
        words, mask = batch(drawn)
        before = words.clone(), mask.clone()
        model.logits(words, mask) if call == "logits" else model.extend(words, model.start(len(words)), mask)
        return float(not (torch.equal(words, before[0]) and torch.equal(mask, before[1])))

    return measure


@contextmanager
def world(change: str) -> Iterator[None]:
    """Something global that is none of a model's business."""
    kept = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state(), torch.is_grad_enabled()
    changes: dict[str, Callable[[], object]] = {
        "": lambda: None,
        "grad": lambda: torch.set_grad_enabled(not kept[3]),
        "dtype": lambda: torch.set_default_dtype(torch.bfloat16),
        "one thread": lambda: torch.set_num_threads(1),
        "two threads": lambda: torch.set_num_threads(2),
        "seed": lambda: torch.manual_seed(4711),
    }
    try:
        changes[change]()
        yield
    finally:
        torch.set_default_dtype(kept[0])
        torch.set_num_threads(kept[1])
        torch.set_rng_state(kept[2])
        torch.set_grad_enabled(kept[3])


def under(change: str, drawn: str, other: str = "") -> Probe:
    """The real tokens' logits in one world and another."""

    def measure(model: Offering) -> float:
        words, mask = batch(drawn)
        found = []
        for each in (change, other):
            with world(each):
                found.append(model.logits(words, mask)[mask == 1].detach())
        return far(*found)

    return measure


def leaves(drawn: str) -> Probe:
    """What a call leaves changed in the world, be it refused or not."""

    def measure(model: Offering) -> float:
        with world(""):
            before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state()
            try:
                model.logits(batch(drawn)[0])
            except ValueError:
                assert len(drawn) > model.max_length
            same = torch.equal(before[2], torch.get_rng_state())
            return float(not (same and before[:2] == (torch.get_default_dtype(), torch.is_grad_enabled())))

    return measure


def ahead(t: int) -> Probe:
    """The derivative of the logits at t by the words behind it, each of which is there once."""

    def measure(model: Offering) -> float:
        words, before = torch.arange(8)[None], model.weights
        model.weights = before | {"embedding": before["embedding"].clone().requires_grad_()}
        (slope,) = torch.autograd.grad(model.logits(words)[0, t].square().sum(), model.weights["embedding"])
        model.weights = before
        return float(slope[t + 1 :].abs().max() / slope.abs().max()) if t < 7 else 0.0

    return measure


def grafted(drawn: str, by: int) -> Probe:
    """The upper layers on what the lower ones made, in a call for words that are `by` further on."""

    def measure(model: Offering) -> float:
        words, _ = batch(drawn)
        return far(model.grafted(words, (words + by) % model.vocab_size), model.logits(words))

    return measure
