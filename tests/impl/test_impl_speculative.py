"""Speculative decoding finds what greedy finds, with any draft, in fewer steps of the model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnspec.impl import speculative as speculative_module
from attnspec.impl.decoding import Generated, greedy, log_softmax
from attnspec.impl.speculative import speculative
from attnspec.properties.carried import carrying
from attnspec.reference.transformer import transformer
from tests.authorities.agreement import agrees
from tests.impl.impl_models import always, built, model_of, small, started
from tests.impl.test_impl_decoding import log_probs
from tests.reference.drawn_models import models

START, END, LIMIT = 1, 0, 9
SEEDS = st.integers(0, 2**32 - 1)


class Draft:
    """The model itself, with some of its logits turned round: such a guess is wrong."""

    def __init__(self, net: Any, wrong: float, seed: int = 0) -> None:
        self.net, self.wrong, self.calls = net, wrong, 0
        self.rng = torch.Generator().manual_seed(seed)

    def extend(self, ids: Any, state: Any, mask: Any = None) -> Any:
        self.calls += 1
        assert self.calls < 200, "no search here takes so many steps"
        logits, state = self.net.extend(ids, state, mask)
        turned = torch.rand(logits.shape[:2], generator=self.rng) < self.wrong
        return torch.where(turned[:, :, None], -logits, logits), state

    def crop(self, state: Any, length: Any) -> Any:
        return self.net.crop(state, length)


class Counted(Draft):
    """The model, and how many tokens each of its steps read."""

    def __init__(self, net: Any) -> None:
        super().__init__(net, wrong=0.0)
        self.steps: list[int] = []

    def extend(self, ids: Any, state: Any, mask: Any = None) -> Any:
        self.steps.append(ids.shape[1])
        return super().extend(ids, state, mask)


@always(models(("both", "decoder")), st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.integers(1, 5), SEEDS, max_examples=50)
def test_any_draft_finds_what_greedy_finds(model, wrong, ahead, seed):
    net = built(model)
    prompt = torch.full((len(model.target), 1), START)
    want = greedy(net, started(net, model), prompt, END, LIMIT)
    draft, states = Draft(net, wrong, seed), (started(net, model), started(net, model))
    got = speculative(net, states[0], draft, states[1], prompt, END, LIMIT, ahead=ahead)
    assert torch.equal(got.tokens, want.tokens)
    of_source = {name: one for name, one in model.masks.items() if name == "source_mask"}
    words = got.tokens.numpy()
    agrees(got.log_probs.numpy(), log_probs, model.source, words, model.parameters, **of_source, **model.options)
    assert (got.accepted <= got.proposed).all()
    if wrong in (0.0, 1.0):
        assert torch.equal(got.accepted, got.proposed * int(wrong == 0))


PROMPTS = torch.tensor([[0, 0, 3, 5, 7], [0, 0, 0, 0, 2], [9, 4, 1, 1, 5], [9, 4, 1, 1, 9]])


def searched(net: Any, draft: Any, ahead: int = 3, **options: Any) -> tuple[Generated, Generated]:
    """What is found with the draft, and what greedy finds, from prompts of unlike lengths."""
    mask, others = PROMPTS > 0, {"limit": 10, "end_id": 0} | options
    capacity = PROMPTS.shape[1] + others["limit"] - 1
    states = [net.start(4, capacity=capacity) for _ in range(3)]
    want = greedy(net, states[0], PROMPTS, **others, mask=mask)
    return speculative(net, states[1], draft, states[2], PROMPTS, **others, ahead=ahead, mask=mask), want


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("ahead", [1, 3, 20])
@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
def test_prompts_of_unlike_lengths_in_a_state_as_small_as_greedys(window, ahead, wrong):
    net = small(positions="rotary", window=window, max_length=14)
    got, want = searched(net, Draft(net, wrong), ahead)
    assert torch.equal(got.tokens, want.tokens)
    assert (got.accepted > 0).any() == (wrong < 1)


def test_steps_and_accepted_words():
    net = Counted(small(max_length=40))
    prompt = torch.tensor([[3]])
    for wrong, steps, accepted in ((0.0, [1, 5, 5, 5, 4], 15), (1.0, [1, *[5] * 15, 4, 3, 2, 1], 0)):
        net.steps.clear()
        states = [net.net.start(1) for _ in range(2)]
        got = speculative(net, states[0], Draft(net.net, wrong), states[1], prompt, 0, 20, ahead=4)
        assert net.steps == steps
        assert got.accepted.tolist() == [accepted]
        assert got.proposed.tolist() == [sum(steps[1:]) - len(steps) + 1]
        assert torch.equal(got.tokens, greedy(net.net, net.net.start(1), prompt, 0, 20).tokens)


def test_a_text_goes_on_from_a_state_with_a_past():
    net, draft = small(max_length=40), small(max_length=40, width=4, heads=2, decoder_layers=1)
    past, prompt = torch.tensor([[3, 4, 5], [6, 7, 8]]), torch.tensor([[1], [2]])
    states = [one.extend(past, one.start(2))[1] for one in (net, net, draft)]
    want = greedy(net, states[0], prompt, 0, 12)
    got = speculative(net, states[1], draft, states[2], prompt, 0, 12)
    assert torch.equal(got.tokens, want.tokens)


class Bigrams:
    """A model whose state is a list of words for each row; the next word follows from the last two."""

    def extend(self, ids: Any, state: Any, mask: Any = None) -> Any:
        logits = torch.zeros(*ids.shape, 7, dtype=torch.float64)
        for b, t in np.ndindex(*ids.shape):
            if mask is None or mask[b, t]:
                state[b].append(int(ids[b, t]))
                logits[b, t, (3 * sum(state[b][-2:]) + len(state[b])) % 7] = 1.0
        return logits, state

    def crop(self, state: Any, length: Any) -> Any:
        return [words[:n] for words, n in zip(state, length.tolist(), strict=True)]


@pytest.mark.parametrize("wrong", [0.0, 0.4, 1.0])
def test_a_model_needs_extend_and_crop_only(wrong):
    prompt, states = torch.tensor([[1], [4]]), [[[], []] for _ in range(3)]
    want = greedy(Bigrams(), states[0], prompt, 0, 15)
    got = speculative(Bigrams(), states[1], Draft(Bigrams(), wrong), states[2], prompt, 0, 15)
    assert torch.equal(got.tokens, want.tokens)
    assert torch.equal(got.log_probs, want.log_probs)


@always(SEEDS, st.sampled_from([0.2, 1.0]), st.sampled_from(["float32", "bfloat16"]), max_examples=40)
def test_words_are_those_of_greedy_but_for_ties(seed, wrong, unit):
    search_in(unit, seed, wrong)


def search_in(unit: str, seed: int, wrong: float) -> None:
    """Words come in pairs with nearly the same logits: rounding may choose between them, and nothing else may."""
    dtype = getattr(torch, unit)
    net = small(max_length=20, decoder_layers=1, order="pre").to(dtype)
    with torch.no_grad():
        weight = net.output.weight
        weight[1::2] = weight[: len(weight) // 2 * 2 : 2] * (1 + torch.finfo(dtype).eps)
    prompt = torch.randint(1, 11, (3, 2), generator=torch.Generator().manual_seed(seed))
    states = [net.start(3) for _ in range(3)]
    want = greedy(net, states[0], prompt, 0, 12).tokens
    got = speculative(net, states[1], Draft(net, wrong, seed), states[2], prompt, 0, 12).tokens
    for found in (got, want):
        largest_to_rounding(unit, net, prompt, found)


def largest_to_rounding(unit: str, net: Any, prompt: torch.Tensor, found: torch.Tensor) -> None:
    """Each word has the largest logit of the reference, less at most what rounding in that unit may do to the two."""
    model, P = model_of(net.double()), prompt.shape[1]
    net.to(getattr(torch, unit))
    with carrying(unit) as numbers:
        ids = torch.cat([prompt, found[:, :-1]], dim=1).numpy()
        logits = transformer(None, ids, numbers(model.parameters), **model.options)
    for b, t in np.ndindex(*found.shape):
        row, word = logits.value[b, P - 1 + t], int(found[b, t])
        best = int(row.argmax())
        if best != word and (found[b, :t] != 0).all():
            errors = [logits.first_order((b, P - 1 + t, v)) for v in (best, word)]
            assert row[best] - row[word] <= sum(errors), f"row {b}, word {t}: {word} for {best}"


def keep(more: int) -> Any:
    def wrong(self: Any, words: Any) -> None:
        self.words, self.state = words, self.model.crop(self.state, self.past + words + more)

    return wrong


def never_taken_back(self: Any, words: Any) -> None:
    self.words = words


def all_accepted(self: Any, logits: Any, guesses: Any, room: Any) -> Any:
    del guesses
    return ADD(self, logits, logits.argmax(dim=-1)[:, :-1], room)


def one_more_accepted(self: Any, logits: Any, guesses: Any, room: Any) -> Any:
    found = logits.argmax(dim=-1)[:, :-1]
    first_wrong = (found == guesses).cumprod(dim=1).sum(dim=1, keepdim=True) == torch.arange(guesses.shape[1])
    return ADD(self, logits, torch.where(first_wrong, found, guesses), room)


def one_fewer_accepted(self: Any, logits: Any, guesses: Any, room: Any) -> Any:
    return ADD(self, logits, torch.cat([guesses[:, :-1], -guesses[:, -1:] - 1], dim=1), room)


def no_correction(self: Any, logits: Any, guesses: Any, room: Any) -> Any:
    before = self.length
    left = ADD(self, logits, guesses, room)
    for b, count in enumerate((self.length - before).tolist()):
        if 0 < count <= guesses.shape[1]:
            self.tokens[b, self.length[b] - 1] = guesses[b, count - 1]
    return left


def of_the_draft(logits: Any) -> Any:
    return log_softmax(-logits)


def without_mask(room: Any, n: int) -> Any:
    return torch.ones(len(room), n, dtype=torch.bool)


READER, TEXT = speculative_module._Reader, speculative_module._Text
ADD = TEXT.add
DEFECTS = {
    "one word too few is taken back": (READER, "keep", keep(1)),
    "one word too many is taken back": (READER, "keep", keep(-1)),
    "no word is taken back": (READER, "keep", never_taken_back),
    "all guesses are accepted": (TEXT, "add", all_accepted),
    "the first wrong guess is accepted": (TEXT, "add", one_more_accepted),
    "the last right guess is refused": (TEXT, "add", one_fewer_accepted),
    "the correction is forgotten": (TEXT, "add", no_correction),
    "log_probs are not the model's": (speculative_module, "log_softmax", of_the_draft),
    "finished rows read on": (speculative_module, "_real", without_mask),
}


def check() -> None:
    """What must hold of the search with two drafts."""
    net = small(positions="rotary", max_length=14)
    for wrong in (0.0, 0.5):
        got, want = searched(net, Draft(net, wrong), ahead=3)
        assert torch.equal(got.tokens, want.tokens)
        assert wrong > 0 or torch.equal(got.accepted, got.proposed)
        prompt, states = torch.tensor([[1], [4]]), [[[], []] for _ in range(3)]
        want = greedy(Bigrams(), states[0], prompt, 0, 15)
        got = speculative(Bigrams(), states[1], Draft(Bigrams(), wrong), states[2], prompt, 0, 15)
        assert torch.equal(got.log_probs, want.log_probs)  # exactly, as these logits do not depend on the size of a step


def test_what_must_hold_of_two_drafts():
    check()


@pytest.mark.parametrize("name", DEFECTS)
def test_defects_are_noticed(monkeypatch, name):
    where, attribute, wrong = DEFECTS[name]
    monkeypatch.setattr(where, attribute, wrong)
    with pytest.raises((AssertionError, ValueError), match=r"assert|no search|capacity"):
        check()


FORGETS = "wrong guesses are taken back, and a recurrent state cannot forget; use greedy, or a model with crop"


@pytest.mark.parametrize("name", ["all guesses are accepted", "one word too few is taken back"])
def test_the_rule_for_ties_notices_defects(monkeypatch, name):
    monkeypatch.setattr(*DEFECTS[name])
    with pytest.raises(AssertionError, match=r"row \d, word \d+: \d+ for \d+"):
        search_in("float32", 0, 0.2)


class Forgetless:
    def extend(self, *_: Any) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit=0: a search returns at least 1 word; use 1 or more"),
        ({"end_id": 11}, "end_id=11, V=11: it is a word of the vocabulary; use its id"),
        ({"ahead": 0}, "ahead=0: the draft guesses words; use 1 or more"),
        (
            {"draft": small(vocab_size=12)},
            "V=11, draft=12: both models speak of the same words; use a draft with the model's vocabulary",
        ),
        (
            {"draft": Forgetless()},
            f"draft=Forgetless: {FORGETS}",
        ),
        (
            {"model": Forgetless()},
            f"model=Forgetless: {FORGETS}",
        ),
        (
            {"limit": 13},
            "length=11, longer=13, capacity=12: the tokens of a row must stay within the capacity; crop, or start with a "
            "larger one (at most max_length)",
        ),
    ],
)  # fmt: skip
def test_errors(options, message):
    net = small()
    draft = options.get("draft", net)
    states = net.start(1), draft.start(1) if hasattr(draft, "start") else None
    arguments = {"model": net, "draft": net, "prompt": torch.tensor([[3]]), "end_id": 10, "limit": 3} | options
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        speculative(arguments.pop("model"), states[0], arguments.pop("draft"), states[1], **arguments)


@pytest.mark.parametrize("piece", [4, 5])
def test_a_ring_needs_room_for_the_guesses(piece):
    net = small(window=2, max_length=40)
    prompt = torch.tensor([[3], [4]])

    def search() -> torch.Tensor:
        states = [net.start(2, piece=piece) for _ in range(2)]
        return speculative(net, states[0], Draft(net, 0.6), states[1], prompt, 10, 30, ahead=5).tokens

    if piece == 5:
        assert torch.equal(search(), greedy(net, net.start(2), prompt, 10, 30).tokens)
    else:
        with pytest.raises(ValueError, match="has left the ring"):
            search()
