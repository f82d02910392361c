"""transformers on choosing words: greedy search, beam search, and the distributions that sampling draws from.

Two models are searched: GPT-2 with random weights, whose tokens must be the same, and a table of logits for each prefix.
The table's logits are exact, so that scores can be held to the derived bound; generate() computes them in float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from transformers import GenerationMixin, GPT2Config, GPT2LMHeadModel, PretrainedConfig, PreTrainedModel
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.modeling_outputs import CausalLMOutput

from attnspec.reference.beam_search import beam_search
from attnspec.reference.greedy_search import Step, greedy_search
from attnspec.reference.sampling import top_k, top_p, with_temperature
from attnspec.reference.softmax import softmax
from attnspec.reference.teacher_forcing import log_probability
from tests.authorities.agreement import Draw, agrees, authority

torch.set_num_threads(1)
SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = 15  # generate() takes some 20 ms a call
ROWS = 61  # of the table: a prime, so that most prefixes have a row of their own
NUDGE = 1e-4  # far above what float32 loses; a choice that such a change of logits turns is a tie
V, START, END = 7, 0, 1


def row_of(prefixes: Any) -> Any:
    """Which row of the table a prefix reads: its ids as digits to the base 10, modulo the number of rows."""
    row = prefixes[..., 0] * 0
    for t in range(prefixes.shape[-1]):
        row = (10 * row + prefixes[..., t] + 1) % ROWS
    return row


class TableModel(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A language model whose logits stand in a table, one row for each prefix, more or less."""

    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig, table: np.ndarray[Any, Any]) -> None:
        super().__init__(config)
        self.table = torch.nn.Parameter(torch.tensor(table))

    def forward(self, input_ids: torch.Tensor, **_: Any) -> CausalLMOutput:
        prefixes = [row_of(input_ids[:, : t + 1]) for t in range(input_ids.shape[1])]
        return CausalLMOutput(logits=self.table[torch.stack(prefixes, dim=1)])


@cache
def gpt2() -> GPT2LMHeadModel:
    config = GPT2Config(vocab_size=V, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=START, eos_token_id=END)
    return GPT2LMHeadModel(config).double().eval()


def redrawn(model: torch.nn.Module, seed: int) -> Any:
    """The model with other weights, far more varied than the initial ones, whose logits are all nearly alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7, generator=generator)
    return model


def table_step(token: np.ndarray[Any, Any], state: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The table model for the reference; a state is the prefixes so far, and the table."""
    prefixes = np.concatenate([state["prefixes"], token[:, None]], axis=1)
    return state["table"][row_of(prefixes)], {**state, "prefixes": prefixes}


def gpt2_step(token: np.ndarray[Any, Any], state: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """GPT-2 for the reference, without a cache; its logits rounded to float32, as generate() does."""
    prefixes = np.concatenate([state["prefixes"], token[:, None]], axis=1)
    with torch.no_grad():
        logits = gpt2()(torch.tensor(prefixes)).logits[:, -1].float().double()
    return logits.numpy(), {**state, "prefixes": prefixes}


def reorder(state: dict[str, Any], index: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {**state, "prefixes": state["prefixes"][index]}


def beginning(B: int, **more: Any) -> dict[str, Any]:
    return {"prefixes": np.zeros((B, 0), dtype=np.int64), **more}


def generated(model: Any, starts: list[int], limit: int, **options: Any) -> Any:
    return model.generate(
        torch.tensor(starts)[:, None], attention_mask=torch.ones(len(starts), 1), max_new_tokens=limit, do_sample=False,
        pad_token_id=END, eos_token_id=END, return_dict_in_generate=True, output_scores=True, **options,
    )  # fmt: skip


def table_of(seed: int) -> np.ndarray[Any, Any]:
    """Normal logits, with a preference for the end symbol, as float32 values."""
    logits = 1.5 * np.random.default_rng(seed).normal(size=(ROWS, V)) + np.eye(V)[END]
    return logits.astype(np.float32).astype(np.float64)


def table_model(table: np.ndarray[Any, Any], **config: Any) -> TableModel:
    return TableModel(PretrainedConfig(vocab_size=V, num_hidden_layers=1, **config), table).eval()


def has_no_tie(step: Step, state: dict[str, Any], starts: list[int], limit: int, *search: Any) -> bool:
    """Whether the search finds the same tokens when all logits move a little, eight times."""
    rng = np.random.default_rng(0)

    def nudged(token: np.ndarray[Any, Any], state: Any) -> tuple[Any, Any]:
        logits, state = step(token, state)
        return logits + NUDGE * (rng.random(logits.shape) - 0.5), state

    want = beam_search(step, state, np.array(starts), END, limit, *search)[0]
    return all((beam_search(nudged, state, np.array(starts), END, limit, *search)[0] == want).all() for _ in range(8))


def gpt2_without_tie(draw: Draw, starts: list[int], limit: int, *search: Any) -> Any:
    def clear(seed: int) -> bool:
        redrawn(gpt2(), seed)
        return has_no_tie(gpt2_step, beginning(len(starts)), starts, limit, *search)

    return redrawn(gpt2(), draw(SEEDS.filter(clear)))


def table_without_tie(draw: Draw, starts: list[int], limit: int, *search: Any) -> Any:
    tables = SEEDS.map(table_of)
    return draw(
        tables.filter(lambda table: has_no_tie(table_step, beginning(len(starts), table=table), starts, limit, *search))
    )


@authority("I09", "transformers generate, greedy, on GPT-2", of=(greedy_search, log_probability), examples=EXAMPLES)
def transformers_greedy(draw: Draw) -> None:
    """Same tokens on a random GPT-2 and on the table model, whose sums of log p are compared too."""
    B, limit = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    starts = draw(st.permutations([v for v in range(V) if v != END]))[:B]  # sentences that end at different steps
    got = generated(gpt2_without_tie(draw, starts, limit, 1, reorder), starts, limit).sequences[:, 1:].numpy()
    np.testing.assert_array_equal(got, greedy_search(gpt2_step, beginning(B), np.array(starts), END, limit))

    table = table_without_tie(draw, starts, limit, 1, reorder)
    out = generated(table_model(table), starts, limit, use_cache=False)
    tokens = out.sequences[:, 1:].numpy()
    np.testing.assert_array_equal(tokens, greedy_search(table_step, beginning(B, table=table), np.array(starts), END, limit))
    log_p = torch.stack(out.scores, dim=1).log_softmax(-1).gather(-1, out.sequences[:, 1:, None])[..., 0]
    real = (tokens == END).cumsum(1) - (tokens == END) == 0
    got = torch.where(torch.tensor(real), log_p, 0.0).sum(1).numpy()
    agrees(got[:1], log_probability, table_step, beginning(1, table=table), tokens[:1], starts[0], END, unit="float32")


@authority("I09", "transformers generate, beam search", of=(beam_search,), examples=EXAMPLES)
def transformers_beam(draw: Draw) -> None:
    """Same hypotheses in the same order on GPT-2 and on the table model, there with the same scores."""
    limit, beams = draw(st.integers(1, 5)), draw(st.integers(2, 5))
    alpha = draw(st.sampled_from([0.0, 1.0, 0.6, 2.0, -0.5]))
    options = {"num_beams": beams, "num_return_sequences": beams, "early_stopping": "never", "length_penalty": alpha}
    search = (beams, reorder, alpha)
    got = generated(gpt2_without_tie(draw, [START], limit, *search), [START], limit, **options).sequences[:, 1:].numpy()
    want, _ = beam_search(gpt2_step, beginning(1), START, END, limit, *search)
    np.testing.assert_array_equal(got, want[0, :, : got.shape[1]])

    table = table_without_tie(draw, [START], limit, *search)
    out = generated(table_model(table), [START], limit, use_cache=False, **options)
    tokens = out.sequences[:, 1:].numpy()
    padded = np.concatenate([tokens, np.full((beams, limit - tokens.shape[1]), END)], axis=1)
    args = (table_step, beginning(1, table=table), START, END, limit, *search)
    agrees((padded[None], out.sequences_scores.numpy()[None]), beam_search, *args, unit="float32")


@authority("I09", "transformers Temperature-, TopK- and TopPLogitsWarper", of=(with_temperature, top_k, top_p))
def transformers_warpers(draw: Draw) -> None:
    """Logits and probabilities after each warper, and after all three in a row."""
    B, words = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    temperature, k = draw(st.floats(0.1, 10)), draw(st.integers(1, 9))
    p = draw(st.just(1.0) | st.floats(0.01, 0.99))
    logits = np.random.default_rng(draw(SEEDS)).normal(size=(B, words))
    x = torch.tensor(logits)
    warpers = (TemperatureLogitsWarper(temperature), TopKLogitsWarper(k), TopPLogitsWarper(p))
    agrees(warpers[0](None, x).numpy(), with_temperature, logits, temperature)
    agrees(warpers[1](None, x).numpy(), top_k, logits, k)
    agrees(warpers[2](None, x).numpy(), top_p, logits, p)
    for warper in warpers:
        x = warper(None, x)
    agrees(
        x.softmax(-1).numpy(),
        lambda logits: softmax(top_p(top_k(with_temperature(logits, temperature), k), p)),
        logits,
    )
