"""Run as a script, in a process of its own because all of it is in float64: prints what differs between right paths, as JSON.

    {"llama": {"seconds": ..., "parameters": ..., "step": ..., "left-padding": ...}, ...}

A discrepancy is the largest difference at real tokens in units of the largest logit; the text of an exception stands for it
where there was one.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from attnspec.hugging_face import build, in_float64

FAMILIES = ("gpt2", "llama", "mistral", "bloom", "t5", "bart", "bert", "mamba")
B, T, S = 3, 12, 11
PADS = (0, 2, 5)  # left of each row
NEAR = 3  # a token so far before the end lies within every window
HOLES = torch.tensor([[1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 0], [1] * 12])


def drawn(model: Any, rows: int, length: int, seed: int) -> Tensor:
    """Distinct tokens without a meaning of their own in each row."""
    low, high = model.tokens
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([low + torch.randperm(high - low, generator=generator)[:length] for _ in range(rows)])


def apart(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    assert bool(got.isfinite().all())
    return float((got - want).abs().max() / want.abs().max())


def fed(
    extend: Callable[..., Any], ids: Tensor, state: Any, lengths: list[int], mask: Tensor | None = None
) -> tuple[Tensor, Any]:
    """The logits of ids that are fed in pieces of these lengths."""
    found = []
    for start, end in zip(_ends([0, *lengths]), _ends([0, *lengths])[1:], strict=False):
        logits, state = extend(ids[:, start:end], state, None if mask is None else mask[:, start:end])
        found.append(logits)
    return torch.cat(found, 1), state


def _ends(lengths: list[int]) -> list[int]:
    return [sum(lengths[: i + 1]) for i in range(len(lengths))]


def with_holes(ids: Tensor, mask: Tensor, seed: int) -> Tensor:
    """Rows of `mask`'s width with the first tokens of ids where it is 1, and junk where it is 0."""
    wide = torch.randint(3, 90, mask.shape, generator=torch.Generator().manual_seed(seed))
    for row, real, tokens in zip(wide, mask.bool(), ids, strict=True):
        row[real] = tokens[: int(real.sum())]
    return wide


def at_real(got: Tensor, mask: Tensor, want: Tensor) -> float:
    """The worst row: real tokens of `got` beside the first ones of `want`."""
    assert bool(got.isfinite().all())
    rows = zip(got, mask.bool(), want, strict=True)
    return max(apart(row[real], alone[: int(real.sum())]) for row, real, alone in rows)


def left(width: int) -> Tensor:
    return torch.stack([torch.arange(width) >= pads for pads in PADS]).long()


STEPS = [5] + [1] * 7
PIECES = {"step": STEPS, "one by one": [1] * 12, "chunks": [3, 4, 1, 4]}


def causal(model: Any) -> Iterator[tuple[str, Callable[[], float]]]:
    ids = drawn(model, B, T, 1)
    full = model.logits(ids)
    other = ids.clone()
    other[:, T - NEAR] = (ids[:, T - NEAR] - model.tokens[0] + 1) % 50 + model.tokens[0]
    yield "influence", lambda: apart(model.logits(other)[:, -1:], full[:, -1:])
    yield "later tokens", lambda: apart(model.logits(other)[:, : T - NEAR], full[:, : T - NEAR])
    for name, lengths in PIECES.items():
        yield name, lambda lengths=lengths: apart(fed(model.extend, ids, model.start(B), lengths)[0], full)
    for name, mask in (("left-padding", left(T)), ("padding-between", HOLES)):
        wide = with_holes(ids, mask, 3)
        yield name, lambda wide=wide, mask=mask: at_real(model.logits(wide, mask), mask, full)
        yield (
            f"{name}, step",
            lambda wide=wide, mask=mask: at_real(fed(model.extend, wide, model.start(B), STEPS, mask)[0], mask, full),
        )
    after = drawn(model, B, 6, 4)
    _, past = fed(model.extend, ids, model.start(B), [9])
    index = torch.tensor([2, 2, 0, 1])
    reordered = model.logits(torch.cat([ids[index, :9], after[index, :3]], 1))[:, 9:]
    yield "reorder", lambda: apart(fed(model.extend, after[index], model.reorder(past, index), [1, 1, 1])[0], reordered)
    yield "fork", lambda: forked(model, past, ids, after)
    if hasattr(model, "crop"):
        want = model.logits(torch.cat([ids[:, :6], after], 1))[:, 6:]
        yield "crop", lambda: apart(fed(model.extend, after, model.crop(model.fork(past), 6), [2, 1, 1, 1, 1])[0], want)
        yield "crop twice", lambda: twice(model, past, after, want)
        yield "ragged crop", lambda: ragged(model, ids, after, want)


def forked(model: Any, past: Any, ids: Tensor, after: Tensor) -> float:
    """One goes on with other tokens, then the other as if nothing had been."""
    kept = model.fork(past)
    fed(model.extend, after, model.fork(past), [1, 1, 1])
    return apart(fed(model.extend, ids[:, 9:], kept, [1, 1, 1])[0], model.logits(ids)[:, 9:])


def twice(model: Any, past: Any, after: Tensor, want: Tensor) -> float:
    """A second crop goes further back than the first one, which a window has to be ready for."""
    _, state = fed(model.extend, after, model.crop(model.fork(past), 8), [1])
    return apart(fed(model.extend, after, model.crop(state, 6), [2, 1, 1, 1, 1])[0], want)


def ragged(model: Any, ids: Tensor, after: Tensor, want: Tensor) -> float:
    """Cropped to 6 real tokens after prompts with 0, 2 and 5 tokens of padding before them."""
    mask = left(14)
    wide = torch.cat([torch.zeros(B, 2, dtype=torch.long), ids], 1)
    for row, pads, tokens in zip(wide, PADS, ids, strict=True):
        row[pads:] = torch.cat([tokens, tokens])[: 14 - pads]
    _, state = fed(model.extend, wide, model.start(B), [14], mask)
    return apart(fed(model.extend, after, model.crop(state, 6), [2, 1, 1, 1, 1])[0], want)


def translator(model: Any) -> Iterator[tuple[str, Callable[[], float]]]:
    source, target = drawn(model, B, S, 1), drawn(model, B, T, 2)
    other = source.clone()
    other[:, -1] = drawn(model, B, S, 3)[:, -1]
    full = model.logits(source, target)
    yield "influence of the source", lambda: apart(model.logits(other, target)[:, :1], full[:, :1])
    changed = torch.cat([other[:, :1], target[:, 1:]], 1)
    yield "influence", lambda: apart(model.logits(source, changed)[:, -1:], full[:, -1:])
    begun = lambda: model.start(model.encode(source))  # noqa: E731
    for name, lengths in PIECES.items():
        yield name, lambda lengths=lengths: apart(fed(model.extend, target, begun(), lengths)[0], full)
    for name, mask in (("left-padding", left(T)), ("padding-between", HOLES)):
        wide = with_holes(target, mask, 3)
        yield name, lambda wide=wide, mask=mask: at_real(model.logits(source, wide, None, mask), mask, full)
        yield (
            f"{name}, step",
            lambda wide=wide, mask=mask: at_real(fed(model.extend, wide, begun(), STEPS, mask)[0], mask, full),
        )
    some = (("source-padding", left(S).flip(1)), ("left-source-padding", left(S)), ("source-padding-between", HOLES[:, :S]))
    for name, mask in some:
        wide = with_holes(source, mask, 4)
        alone = [model.logits(row[: int(n)][None], t[None])[0] for row, n, t in zip(source, mask.sum(1), target, strict=True)]
        want = torch.stack(alone)
        yield name, lambda wide=wide, mask=mask, want=want: apart(model.logits(wide, target, mask), want)
        yield (
            f"{name}, step",
            lambda wide=wide, mask=mask, want=want: apart(
                fed(model.extend, target, model.start(model.encode(wide, mask), mask), STEPS)[0], want
            ),
        )
    _, past = fed(model.extend, target, begun(), [9])
    index = torch.tensor([2, 2, 0, 1])
    yield "fork", lambda: branched(model, past, target, full)
    yield "reorder at the start", lambda: reordered_at_the_start(model, source, target, index)
    yield (
        "reorder",
        lambda: apart(fed(model.extend, target[index, 9:], model.reorder(past, index), [1, 1, 1])[0], full[index, 9:]),
    )


def reordered_at_the_start(model: Any, source: Tensor, target: Tensor, index: Tensor) -> float:
    """Before the first token there are the sources alone, each with its padding."""
    mask = left(S).flip(1)
    wide = with_holes(source, mask, 5)
    state = model.reorder(model.start(model.encode(wide, mask), mask), index)
    return apart(fed(model.extend, target[index], state, STEPS)[0], model.logits(wide, target, mask)[index])


def branched(model: Any, past: Any, target: Tensor, full: Tensor) -> float:
    kept = model.fork(past)
    fed(model.extend, target[:, :3], model.fork(past), [1, 1, 1])
    return apart(fed(model.extend, target[:, 9:], kept, [1, 1, 1])[0], full[:, 9:])


def planted(model: Any) -> dict[str, float]:
    """Defects of a wrapper, to see that the checks that watch for them can fail: GPT-2 knows positions and masks."""
    found = {}
    right = type(model)._hidden

    def late(self: Any, mask: Tensor, state: Any) -> dict[str, Any]:
        hidden = right(self, mask, state)
        return hidden | {"position_ids": hidden["position_ids"] + (state.mask.shape[1] > 0)}

    def unmasked(self: Any, mask: Tensor, state: Any) -> dict[str, Any]:
        # Ones, not nothing: without a mask, positions that start again are taken for several texts in a row.
        hidden = right(self, mask, state)
        return hidden | {name: torch.ones_like(value) for name, value in hidden.items() if name == "attention_mask"}

    for name, wrong in (
        ("step", late),
        ("chunks", late),
        ("crop", late),
        ("left-padding", unmasked),
        ("padding-between", unmasked),
    ):
        type(model)._hidden = wrong
        found[name] = dict(causal(model))[name]()
        type(model)._hidden = right
    return found


def measured() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for family in FAMILIES:
        started = time.perf_counter()
        model = build(family)
        found[family] = {"seconds": round(time.perf_counter() - started, 2), "lacks": dict(model.lacks)}
        found[family]["parameters"] = sum(p.numel() for p in model.model.parameters())
        if "crop" in model.lacks and "recording" in model.lacks["crop"]:
            model = build(family, recording=True)
            kept = ("crop", "crop twice", "ragged crop", "step", "chunks", "one by one")
            found[f"{family}, recording"] = results(causal(model), kept) | {"lacks": dict(model.lacks)}
            model = build(family)
        found[family] |= results(translator(model) if hasattr(model, "encode") else causal(model))
    found["planted"] = planted(build("gpt2"))
    return found


def results(checks: Iterator[tuple[str, Callable[[], float]]], kept: tuple[str, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, check in checks:
        if kept and name not in kept:
            continue
        try:
            found[name] = check()
        except Exception:
            found[name] = traceback.format_exc(limit=-3)
    return found


if __name__ == "__main__":
    in_float64()
    sys.stdout.write(json.dumps(measured()))
