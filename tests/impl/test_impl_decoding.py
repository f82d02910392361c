"""impl.decoding finds what the searches of the reference find, with the log-probabilities of the model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnspec.impl import decoding
from attnspec.impl.decoding import beam, draw, greedy, sample, top_k, top_p
from attnspec.reference import sampling
from attnspec.reference.beam_search import beam_search
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.key_value_cache import reorder
from attnspec.reference.softmax import log_sum_exp
from attnspec.reference.transformer import transformer
from tests.authorities.agreement import agrees
from tests.impl.impl_models import always, built, reference_steps, small, started
from tests.reference.closeness import assert_close
from tests.reference.drawn_models import models

START, END, LIMIT, KINDS = 1, 0, 4, ("both", "decoder")
PROMPT = torch.tensor([[START]])


def log_probs(source: Any, words: Any, parameters: Any, **options: Any) -> Any:
    """The log-probability of each word, given those before it."""
    target = np.concatenate([np.full((len(words), 1), START), words[:, :-1]], axis=1)
    logits = transformer(source, target, parameters, **options)
    chosen = np.sum(np.where(np.arange(logits.shape[2]) == words[:, :, None], logits, 0.0), axis=2)
    ended = np.cumsum(words == END, axis=1) - (words == END) > 0
    return np.where(ended, 0.0, chosen - log_sum_exp(logits))


@always(models(KINDS))
def test_greedy_search(model):
    B, net = len(model.target), built(model)
    got = greedy(net, started(net, model), PROMPT.expand(B, 1), END, LIMIT)
    step, state = reference_steps(model)
    np.testing.assert_array_equal(got.tokens.numpy(), greedy_search(step, state, np.full(B, START), END, LIMIT))
    of_source = {name: one for name, one in model.masks.items() if name == "source_mask"}
    words = got.tokens.numpy()
    agrees(got.log_probs.numpy(), log_probs, model.source, words, model.parameters, **of_source, **model.options)


@always(models(KINDS), st.integers(1, 3), st.sampled_from([(0.0, 0.0), (1.0, 0.0), (0.6, 5.0), (-1.0, 0.0)]))
def test_beam_search(model, beams, penalty):
    if model.options["positions"] != "learned":
        # Sentences that a model cannot tell apart, as without positions, have equal scores, which rounding would order.
        model = model._replace(options=model.options | {"positions": "sinusoidal"})
    B, net = len(model.target), built(model)
    alpha, offset = penalty
    got = beam(net, started(net, model), PROMPT.expand(B, 1), END, LIMIT, beams, alpha=alpha, offset=offset)
    step, state = reference_steps(model)
    tokens, scores = beam_search(step, state, np.full(B, START), END, LIMIT, beams, reorder, alpha, offset)
    np.testing.assert_array_equal(got.tokens.numpy(), tokens)
    assert_close(got.scores.numpy(), scores, terms=4000)
    lengths = (np.cumsum(tokens == END, axis=2) - (tokens == END) == 0).sum(axis=2)
    sums = got.log_probs.numpy().sum(axis=2) / ((offset + lengths) / (offset + 1)) ** alpha
    assert_close(np.where(np.isfinite(scores), sums, -np.inf), scores, terms=4000)


class Table:
    """A model whose logits depend on the last word alone; the state counts the calls and remembers the rows."""

    def __init__(self, logits: list[list[float]]) -> None:
        self.rows, self.calls = torch.tensor(logits, dtype=torch.float64), 0

    def extend(self, ids: Any, state: Any, mask: Any = None) -> Any:  # noqa: ARG002
        self.calls += 1
        return self.rows[ids], state

    def reorder(self, state: Any, index: Any) -> Any:  # noqa: ARG002
        return state


def test_a_beam_with_more_hypotheses_than_sentences():
    got = beam(Table([[0.0]]), None, torch.tensor([[0]]), 0, 3, 2)
    assert got.tokens.tolist() == [[[0, 0, 0]] * 2]
    assert got.scores.tolist() == [[0.0, -np.inf]]


def test_equal_candidates_go_by_hypothesis_and_id():
    equal = Table([[0.0] * 5] * 5)
    got = beam(equal, None, torch.tensor([[1]]), 4, 2, 3)
    tokens, _ = beam_search(lambda y, s: (np.zeros((len(y), 5)), s), None, 1, 4, 2, 3, lambda s, _: s)
    assert got.tokens.tolist() == tokens.tolist()


def test_a_beam_stops_when_nothing_better_can_come():
    certain = Table([[9.0, 0.0], [9.0, 0.0]])
    beam(certain, None, torch.tensor([[1]]), 0, 50, 1)
    assert certain.calls == 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_of_unequal_lengths(side):
    net = small(positions="rotary")
    prompts = [[3, 5, 7], [2], [9, 4]]
    padding = [[0] * (3 - len(one)) for one in prompts]
    pairs = zip(prompts, padding, strict=True)
    ids = torch.tensor([pad + one if side == "left" else one + pad for one, pad in pairs])
    for search in (greedy, lambda *args, **kwargs: beam(*args, 2, **kwargs)):
        together = search(net, net.start(3), ids, 0, 6, mask=(ids > 0).long()).tokens
        for row, prompt in zip(together, prompts, strict=True):
            alone = search(net, net.start(1), torch.tensor([prompt]), 0, 6).tokens[0]
            assert row[..., : alone.shape[-1]].tolist() == alone.tolist()


@always(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_filters_are_those_of_the_reference(seed, k, p):
    logits = np.round(np.random.default_rng(seed).normal(size=(3, 6)) * 2, 1)  # rounded: some are equal
    np.testing.assert_array_equal(top_k(torch.tensor(logits), k).numpy(), sampling.top_k(logits, k))
    np.testing.assert_array_equal(top_p(torch.tensor(logits), p).numpy(), sampling.top_p(logits, p))


def test_draws_are_those_of_the_reference():
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64).expand(500, 5)
    u = torch.rand((500, 1), generator=torch.Generator().manual_seed(3), dtype=torch.float64)[:, 0]
    got = draw(probabilities, torch.Generator().manual_seed(3))
    np.testing.assert_array_equal(got.numpy(), sampling.draw(probabilities.numpy(), u.numpy()))
    assert set(got.tolist()) == {1, 3}


def test_sampling():
    net, prompt = small(), torch.tensor([[3], [4]])

    def sampled(seed: int = 0, **options: Any) -> Any:
        return sample(net, net.start(2), prompt, 0, 8, generator=torch.Generator().manual_seed(seed), **options)

    want = greedy(net, net.start(2), prompt, 0, 8)
    for options in ({"k": 1}, {"p": 1e-9}, {"temperature": 1e-6}):
        got = sampled(**options)
        assert torch.equal(got.tokens, want.tokens)
        assert torch.equal(got.log_probs, want.log_probs)  # those of the model, not of the filtered
    assert torch.equal(sampled(1).tokens, sampled(1).tokens)
    assert len({str(sampled(seed).tokens.tolist()) for seed in range(5)}) > 1


def test_defects_are_noticed(monkeypatch):
    net = small()
    prompt, want = torch.tensor([[3], [4]]), None
    for name, wrong in (
        (None, None),
        ("_order", lambda scores: scores.sort(dim=1, stable=True).indices),
        ("log_softmax", lambda logits: logits),
    ):
        with monkeypatch.context() as patch:
            if name is not None:
                patch.setattr(decoding, name, wrong)
            got = beam(net, net.start(2), prompt, 0, 6, 3, alpha=1.0).tokens
        want = got if want is None else want
        assert torch.equal(got, want) == (name is None), name


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        (greedy, {"limit": 0}, "limit=0: a search returns at least 1 word; use 1 or more"),
        (greedy, {"end_id": 11}, "end_id=11, V=11: it is a word of the vocabulary; use its id"),
        (greedy, {"prompt": PROMPT[0]}, "prompt=[1]: a prompt is [B,P] with P >= 1; pass the start symbol [B,1]"),
        (greedy, {"mask": PROMPT * 0}, "last=[-1]: each prompt has a real token; leave out the empty rows"),
        (
            sample,
            {"temperature": 0.0},
            "temperature=0.0: it is positive and finite; use greedy instead of a temperature of 0",
        ),
        (sample, {"k": 0}, "k=0: at least 1 word stays; use None for all"),
        (sample, {"p": 0.0}, "p=0.0: the share of the nucleus lies in (0, 1]; use None for all"),
        (beam, {"beams": 0}, "beams=0: a beam has hypotheses; use 1 or more"),
        (beam, {"beams": 1, "offset": -1}, "offset=-1: lengths are counted from it; use 0 or 5"),
    ],
)
def test_errors(search, options, message):
    net = small()
    arguments = {"prompt": PROMPT, "end_id": 0, "limit": 3} | options
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        search(net, net.start(1), **arguments)
