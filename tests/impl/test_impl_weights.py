"""impl.weights: models of transformers keep their logits and their words, and the same flat names run in reference/."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume
from hypothesis import strategies as st

from attnspec.impl import weights
from attnspec.impl.decoding import greedy
from attnspec.impl.hugging_face_config import FAMILIES
from attnspec.impl.weight_names import Cut
from tests.authorities.hugging_face import END, TIE, inputs
from tests.authorities.hugging_face_translators import START
from tests.impl.impl_models import always
from tests.impl.models_of_transformers import MODELS, TRANSLATORS, in_unit, pair


@pytest.mark.parametrize("family", MODELS)
@always(st.data(), max_examples=6)
def test_logits_are_theirs_and_those_of_the_reference(family, data):
    with in_unit(family, "float64"):
        both = pair(data.draw, family)
        both.check(both.their_logits)
    both.check(both.our_logits)


@pytest.mark.parametrize("family", TRANSLATORS)
@always(st.data(), max_examples=1)
def test_padding_on_the_left_of_a_source_moves_no_position_here(family, data):
    with in_unit(family, "float64"):
        both = pair(data.draw, family)
    both.source_mask = both.source_mask[:, ::-1].copy()
    both.check(both.our_logits)


@pytest.mark.parametrize("family", MODELS)
@always(st.data(), max_examples=2)
def test_logits_in_float32(family, data):
    both = pair(data.draw, family, "float32")
    assert both.our_logits.dtype == torch.float32
    both.check(both.their_logits)
    both.check(both.our_logits)


@pytest.mark.parametrize("family", MODELS)
@always(st.data(), max_examples=2)
def test_logits_step_by_step_with_a_cache(family, data):
    with in_unit(family, "float64"):
        both = pair(data.draw, family)
    state, found = both.started(), []
    for step in np.split(np.arange(both.target.shape[1]), [2, 3, 4]):
        ids, mask = torch.tensor(both.target[:, step]), torch.tensor(both.target_mask[:, step])
        logits, state = both.ours.extend(ids, state, mask)
        found.append(logits)
    both.check(torch.cat(found, dim=1))


@pytest.mark.parametrize("family", MODELS)
@always(st.data(), max_examples=3)
def test_greedy_search_finds_the_words_of_generate(family, data):
    limit = 3
    how: dict[str, Any] = {"max_new_tokens": limit, "do_sample": False, "num_beams": 1, "pad_token_id": END}
    with in_unit(family, "float64"):
        both = pair(data.draw, family, left=True)
        how["use_cache"] = both.ours.config.window != 1  # their cache keeps keys -1 + 1: of a window of one, all
        if family in TRANSLATORS:
            words = inputs(both.source, both.source_mask, places=False)
            out = both.theirs.generate(**words, **how, forced_eos_token_id=None)[:, 1:]
            prompt, mask = torch.full((2, 1), START), None
        else:
            out = both.theirs.generate(**inputs(both.target, both.target_mask, places=False), **how)
            out = out[:, both.target.shape[1] :]
            prompt, mask = torch.tensor(both.target), torch.tensor(both.target_mask)
    got = greedy(both.ours, both.started(), prompt, END, limit, mask=mask)
    best = both.our_logits.topk(2).values
    assume((best[..., 0] - best[..., 1]).min() > TIE)
    np.testing.assert_array_equal(got.tokens, out)


def options(**changed: Any) -> Callable[[Any], Any]:
    """A family that reads some options wrongly; a callable changes the right value."""

    def change(family: Any) -> Any:
        def wrong(given: Any) -> dict[str, Any]:
            right = family.options(given)
            return right | {name: new(right.get(name)) if callable(new) else new for name, new in changed.items()}

        return replace(family, options=wrong)

    return change


def names(**changed: Any) -> Callable[[Any], Any]:
    """A family with another table: the words in the keys are those of one entry each."""

    def change(family: Any) -> Any:
        def wrong(given: Any) -> dict[str, Any]:
            table = dict(family.names(given))
            for word, place in changed.items():
                found = [name for name in table if name.endswith((f".{word}.{{w}}", f".{word}.weight"))]
                table |= dict.fromkeys(found, place)
                assert found, word
            return table

        return replace(family, names=wrong)

    return change


def swapped(first: str, second: str) -> Callable[[Any], Any]:
    """Two parts of the layers take each other's weights."""

    def change(family: Any) -> Any:
        def other(place: Any) -> Any:
            if isinstance(place, Cut):
                return replace(place, names=tuple(map(other, place.names)))
            swap = {f".{first}.": f".{second}.", f".{second}.": f".{first}."}
            return place and re.sub("|".join(map(re.escape, swap)), lambda match: swap[match.group()], place)

        return replace(family, names=lambda given: {name: other(one) for name, one in family.names(given).items()})

    return change


def opposite(value: Any) -> bool:
    return not value


def other_gelu(value: str) -> str:
    assume(value.startswith("gelu"))
    return {"gelu": "gelu_tanh"}.get(value, "gelu")


def narrower(window: int | None) -> int:
    assume(window == 2)
    return 1


def keys_as_values(family: Any) -> Any:
    """For tables that have one line for queries, keys and values."""

    def wrong(given: Any) -> dict[str, Any]:
        table = dict(family.names(given))
        [line] = [name for name in table if "self_attn.{x}_proj" in name]
        place = table.pop(line)
        for theirs, ours in zip("qkv", "qvk", strict=True):
            table[line.replace("{x}", theirs)] = place.replace("{x}", ours)
        return table

    return replace(family, names=wrong)


ROLLED = Cut(("target.position.weight",), lambda x: [x.roll(1, 0)])
FIRST_ROWS, OTHER_ROWS = (Cut(("{text}.position.weight",), cut) for cut in (lambda x: [x[:-2]], lambda x: [x[1:-1]]))
SIDE_BY_SIDE = Cut(tuple(f"decoder.{{i}}.attention.{x}.{{w}}" for x in "qkv"), lambda x: x.tensor_split(3))
DEFECTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "gpt2: another eps": ("gpt2", options(eps=lambda eps: eps + 1e-4)),
    "gpt2: post-norm": ("gpt2", options(order="post", last_norm=True)),
    "gpt2: the other gelu": ("gpt2", options(activation=other_gelu)),
    "gpt2: scores scaled or not": ("gpt2", options(scale=lambda scale: 1.0 if scale is None else None)),
    "gpt2: embeddings scaled": ("gpt2", options(scale_embeddings=True)),
    "gpt2: positions one too late": ("gpt2", names(wpe=ROLLED)),
    "gpt2: keys are values": ("gpt2", swapped("k", "v")),
    "gpt2: Conv1D not transposed": (
        "gpt2", lambda family: names(**{"attn.c_proj": "decoder.{i}.attention.o.{w}"})(family),
    ),
    "gpt2: sinusoids": ("gpt2", options(positions="sinusoidal")),
    "llama: another base": ("llama", options(rotary_base=lambda base: 2 * base)),
    "llama: interleaved pairs": ("llama", options(rotary_pairs="interleaved")),
    "llama: up is the gate": ("llama", swapped("up", "gate")),
    "llama: norms swapped": ("llama", swapped("attention_norm", "feed_forward_norm")),
    "llama: another eps": ("llama", options(eps=lambda eps: eps + 1e-4)),
    "mistral: no window": ("mistral", options(window=lambda w: assume(w == 2) and None)),
    "mistral: a window of one less": ("mistral", options(window=narrower)),
    "bloom: fused as in GPT-2": ("bloom", names(query_key_value=SIDE_BY_SIDE)),
    "bloom: no distances": ("bloom", options(positions=None)),
    "bloom: keys are values": ("bloom", swapped("k", "v")),
    "bart: positions start at row 0": ("bart", names(embed_positions=FIRST_ROWS)),
    "bart: positions start at row 1": ("bart", names(embed_positions=OTHER_ROWS)),
    "bart: embeddings scaled or not": ("bart", options(scale_embeddings=opposite)),
    "bart: cross-attention is self-attention": ("bart", swapped("cross", "attention")),
    "bart: pre-norm": ("bart", options(order="pre", last_norm=False)),
    "marian: embeddings scaled or not": ("marian", options(scale_embeddings=opposite)),
    "marian: keys are values": ("marian", keys_as_values),
    "marian: no positions": ("marian", options(positions=None)),
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_wrong_reading_is_noticed(defect, monkeypatch):
    family, change = DEFECTS[defect]
    monkeypatch.setitem(FAMILIES, family, change(FAMILIES[family]))
    is_noticed(family)


def test_channels_in_the_order_of_marian_are_noticed(monkeypatch):
    monkeypatch.setattr(weights, "with_channels", lambda given, _: given)
    is_noticed("marian")


def is_noticed(family: str) -> None:
    """Every drawn model fails by the bound, or cannot be loaded at all as its weights do not fit."""

    @always(st.data(), max_examples=2, phases=[Phase.generate])
    def run(data: Any) -> None:
        def checked() -> None:
            both = pair(data.draw, family)
            both.check(both.their_logits)

        wrong = "> bound|pass the configuration and the weights of one model"
        with in_unit(family, "float64"), pytest.raises((AssertionError, ValueError), match=wrong):
            checked()

    run()
