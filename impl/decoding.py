"""Decoding with any model that takes steps: greedy search, beam search, sampling."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from attnspec.impl.errors import require


class Extends(Protocol):
    """A model that takes steps."""

    def extend(self, ids: Tensor, state: Any, mask: Tensor | None = None, /) -> tuple[Tensor, Any]:
        """Reads further tokens [B,T]: logits [B,T,V] and the state."""


class Steps(Extends, Protocol):
    """What a model must offer: CausalLM and Seq2Seq do."""

    def reorder(self, state: Any, index: Tensor) -> Any:
        """Takes rows of the state."""


class Generated(NamedTuple):
    """Words and what the model gave them: tokens [B,T] and the natural log of their probabilities [B,T].

    After the first end_id of a row tokens are end_id and log_probs 0. The prompt is not part of it. With a draft: how many
    words it proposed for each row [B], and how many of these are in the text.
    """

    tokens: Tensor
    log_probs: Tensor
    accepted: Tensor | None = None
    proposed: Tensor | None = None


class Beams(NamedTuple):
    """Sentences of a beam search, best first: tokens [B,K,T], log_probs [B,K,T] as in Generated, scores [B,K]."""

    tokens: Tensor
    log_probs: Tensor
    scores: Tensor


def greedy(
    model: Steps, state: Any, prompt: Tensor, end_id: int, limit: int, *, mask: Tensor | None = None
) -> Generated:  # fmt: skip
    """Feeds the model its own most likely word until every sentence has ended.

        y[b, t] = argmax_v logits[b, t, v],  logits[b, 0] those of the last real token of the prompt     (1)

    Shapes:  prompt, mask [B,P] with P >= 1; state belongs to the same B -> tokens, log_probs [B,T], T <= limit.
    Units:   mask is True at real tokens; of equal logits the lowest id wins. The state is used up.
    Empty:   a model that never ends is cut after limit words.
    Errors:  ValueError if limit < 1, end_id is out of range, or a prompt has no real token.
    Source:  arXiv:1409.3215 sec. 3.2 with a beam of 1.
    Differs: n/a.
    """
    return _generate(model, state, prompt, end_id, limit, mask, lambda logits: logits.argmax(dim=-1))


def sample(
    model: Steps, state: Any, prompt: Tensor, end_id: int, limit: int, *, mask: Tensor | None = None,
    temperature: float = 1.0, k: int | None = None, p: float | None = None, generator: torch.Generator | None = None,
) -> Generated:  # fmt: skip
    """Draws each word by its probability, made less daring by temperature, top-k and top-p in this order.

        y[b, t] = draw(softmax(top_p(top_k(logits[b, t] / temperature))))                (1)

    Shapes:  as in greedy.
    Units:   log_probs are those of the model, before temperature, top-k and top-p.
    Empty:   as in greedy.
    Errors:  those of greedy; ValueError if temperature <= 0, k < 1, or p is not in (0, 1].
    Source:  arXiv:1503.02531 eq. 1; arXiv:1805.04833 sec. 5.4; arXiv:1904.09751 sec. 3.1.
    Differs: n/a.
    """
    rule = "it is positive and finite; use greedy instead of a temperature of 0"
    require(0 < temperature < math.inf, rule, temperature=temperature)
    require(k is None or k >= 1, "at least 1 word stays; use None for all", k=k)
    require(p is None or 0 < p <= 1, "the share of the nucleus lies in (0, 1]; use None for all", p=p)

    def choose(logits: Tensor) -> Tensor:
        logits = logits.double() / temperature
        logits = logits if k is None else top_k(logits, k)
        return draw((logits if p is None else top_p(logits, p)).softmax(dim=-1), generator)

    return _generate(model, state, prompt, end_id, limit, mask, choose)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Rules out all but the k most likely words.

        out[v] = logits[v] where logits[v] >= the k-th largest logit, else -inf          (1)

    Shapes:  logits [...,V] -> the same shape.
    Units:   natural-log weights. Words equal to the k-th stay too; k > V rules out nothing.
    Empty:   no rows, no output.
    Errors:  none.
    Source:  arXiv:1805.04833 sec. 5.4.
    Differs: the paper does not speak of equal words.
    """
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return torch.where(logits < least, -torch.inf, logits)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Rules out all but the nucleus: the fewest most likely words with a total probability of at least p.

        out[v] = logits[v] where total(v) > 1 - p, or v is the most likely word, else -inf     (1)
        total(v) = sum of softmax(logits)[w] over v and all words w that are less likely than v     (2)

    Shapes:  logits [...,V] -> the same shape.
    Units:   p is a probability. Of equal words the lower id counts as more likely.
    Empty:   no rows, no output.
    Errors:  none.
    Source:  arXiv:1904.09751 sec. 3.1.
    Differs: (1) adds up the tail, so that p = 1 rules out nothing; the paper's sum of the head could round to 1 early.
    """
    order = logits.sort(dim=-1, descending=True, stable=True).indices.flip(-1)  # from the least likely word up
    inside = logits.softmax(dim=-1).gather(-1, order).cumsum(dim=-1) > 1 - p
    inside[..., -1] = True
    return torch.where(torch.zeros_like(inside).scatter(-1, order, inside), logits, -torch.inf)


def draw(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws a word of each row by one uniform number, u = torch.rand.

        v = the first with probabilities[0] + .. + probabilities[v] > u                  (1)

    Shapes:  probabilities [B,V] in float64 -> [B].
    Units:   u is multiplied by the total, which rounding may leave unlike 1; a word of probability 0 is never drawn.
    Empty:   no rows, no words.
    Errors:  none.
    Source:  Devroye, "Non-uniform random variate generation" (1986), sec. III.2: inversion.
    Differs: n/a.
    """
    totals = probabilities.cumsum(dim=-1)
    u = torch.rand((len(totals), 1), generator=generator, dtype=totals.dtype, device=totals.device)
    return torch.searchsorted(totals, u * totals[:, -1:], right=True)[:, 0]


@torch.no_grad()
def _generate(
    model: Steps, state: Any, prompt: Tensor, end_id: int, limit: int, mask: Tensor | None, choose: Callable[[Tensor], Tensor]
) -> Generated:  # fmt: skip
    logits, state = read_prompt(model, state, prompt, end_id, limit, mask)
    ended = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    tokens, log_probs = [], []
    while True:
        token = torch.where(ended, end_id, choose(logits))
        log_prob = log_softmax(logits).gather(1, token[:, None])[:, 0]
        tokens.append(token)
        log_probs.append(torch.where(ended, 0.0, log_prob))
        ended = ended | (token == end_id)
        if len(tokens) == limit or bool(ended.all()):
            return Generated(torch.stack(tokens, dim=1), torch.stack(log_probs, dim=1))
        logits, state = model.extend(token[:, None], state)
        logits = logits[:, -1]


def read_prompt(
    model: Extends, state: Any, prompt: Tensor, end_id: int, limit: int, mask: Tensor | None
) -> tuple[Tensor, Any]:  # fmt: skip
    """The logits [B,V] of the last real token of each prompt, and the state after it."""
    require(limit >= 1, "a search returns at least 1 word; use 1 or more", limit=limit)
    whole = prompt.ndim == 2 and prompt.shape[1] >= 1
    require(whole, "a prompt is [B,P] with P >= 1; pass the start symbol [B,1]", prompt=prompt.shape)
    last = torch.full((len(prompt),), prompt.shape[1] - 1, device=prompt.device)
    if mask is not None:
        index = torch.arange(prompt.shape[1], device=prompt.device)
        last = torch.where(mask != 0, index, -1).max(dim=1).values
        require(bool((last >= 0).all()), "each prompt has a real token; leave out the empty rows", last=last.tolist())
    logits, state = model.extend(prompt, state, mask)
    require(0 <= end_id < logits.shape[2], "it is a word of the vocabulary; use its id", end_id=end_id, V=logits.shape[2])
    return logits[torch.arange(len(prompt), device=prompt.device), last], state


def log_softmax(logits: Tensor) -> Tensor:
    """In float32 at least: sums over a sentence would lose all digits in bfloat16."""
    return functional.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def beam(
    model: Steps, state: Any, prompt: Tensor, end_id: int, limit: int, beams: int, *, alpha: float = 0.0,
    offset: float = 0.0, mask: Tensor | None = None,
) -> Beams:  # fmt: skip
    """Searches each sentence of a batch with a beam of its own, all of them in the same steps.

        candidates = live hypotheses, each with every next word; s = sum of log p        (1)
        finished = best K of finished and of those among the best K candidates that end with end_id or reach limit     (2)
        live = best K candidates that do not end with end_id                             (3)
        score = s / ((offset + length) / (offset + 1))^alpha, by which (2) compares; (1) and (3) compare s     (4)

    Shapes:  prompt, mask as in greedy -> tokens, log_probs [B,K,T], scores [B,K]; K is beams, T <= limit.
    Units:   natural logarithm; lengths count the end symbol, not the prompt. Of equal candidates the one of the better
             hypothesis and lower id wins. alpha = 0 compares sums, alpha = 1 with offset = 0 means.
    Empty:   if fewer than K sentences are possible, the rest is end_id with a score of -inf.
    Errors:  those of greedy; ValueError if beams < 1 or offset < 0.
    Source:  arXiv:1409.3215 sec. 3.2; arXiv:1609.08144 sec. 7 for the length penalty, with offset = 5.
    Differs: no coverage penalty and no pruning. It stops as soon as no live hypothesis can still be among the best.
    """
    require(beams >= 1, "a beam has hypotheses; use 1 or more", beams=beams)
    require(offset >= 0, "lengths are counted from it; use 0 or 5", offset=offset)
    logits, state = read_prompt(model, state, prompt, end_id, limit, mask)
    (B, V), K, device = logits.shape, beams, logits.device
    sentence = torch.arange(B, device=device)[:, None]
    logits, rows = logits.repeat_interleave(K, dim=0), sentence.expand(B, K)
    state = model.reorder(state, rows.flatten())
    penalties = [((offset + t) / (offset + 1)) ** alpha for t in range(1, limit + 1)]
    tokens = torch.full((B, K, limit), end_id, device=device)
    log_probs = torch.zeros(B, K, limit, dtype=log_softmax(logits[:1]).dtype, device=device)
    finished = Beams(tokens, log_probs, torch.full_like(log_probs[:, :, 0], -torch.inf))
    live = Beams(tokens, log_probs, finished.scores.clone())
    live.scores[:, 0] = 0.0  # only one of the K equal beginnings counts
    for t in range(limit):
        if t:
            # Scores only fall, and the largest penalty to come makes the most of them.
            if bool((live.scores[:, 0] / max(penalties[t:]) <= finished.scores[:, -1]).all()):
                break
            logits, state = model.extend(live.tokens[:, :, t - 1].reshape(-1, 1), model.reorder(state, rows.flatten()))
            logits = logits[:, -1]
        found = log_softmax(logits).view(B, K, V)  # (1)
        s, candidate = _best((live.scores[:, :, None] + found).flatten(1), min(2 * K, K * V))
        parent, word = candidate // V, candidate % V
        grown = Beams(live.tokens[sentence, parent], live.log_probs[sentence, parent], s)
        grown.tokens[:, :, t], grown.log_probs[:, :, t] = word, found[sentence, parent, word]
        ended = (word == end_id) | (t == limit - 1)
        new = [one[:, :K] for one in grown._replace(scores=torch.where(ended, s / penalties[t], -torch.inf))]  # (2), (4)
        both = Beams(*(torch.cat(pair, dim=1) for pair in zip(finished, new, strict=True)))
        finished = _chosen(both, _order(both.scores)[:, :K])
        on = torch.where(ended, -torch.inf, s)  # (3)
        order = _order(on)[:, :K]
        live, rows = _chosen(grown._replace(scores=on), order), parent.gather(1, order) + K * sentence
    return finished


def _best(candidates: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n largest of each row, sorted, and where they stand; of equal ones the first: topk promises none."""
    least = candidates.topk(n).values[:, -1:]
    more, equal = candidates > least, candidates == least
    kept = more | (equal & (equal.cumsum(dim=1) <= n - more.sum(dim=1, keepdim=True)))
    index = kept.nonzero()[:, 1].view(-1, n)
    values = candidates.gather(1, index)
    order = _order(values)
    return values.gather(1, order), index.gather(1, order)


def _order(scores: Tensor) -> Tensor:
    return scores.sort(dim=1, descending=True, stable=True).indices


def _chosen(beams: Beams, order: Tensor) -> Beams:
    rows = torch.arange(len(order), device=order.device)[:, None]
    return Beams(*(one[rows, order] for one in beams))
