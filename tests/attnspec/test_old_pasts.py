"""What older versions of transformers do otherwise, on stand-ins: tuples as pasts, configurations that are no dataclasses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig

from attnspec.errors import UsageError
from attnspec.hugging_face import past, spelling
from attnspec.hugging_face.causal import CausalModel
from attnspec.hugging_face.past import Past
from attnspec.hugging_face.shrink import shrink, special_ids
from tests.attnspec import hugging_face_measures as measures

SAME, OTHER = 1e-9, 1e-4
H, D = 2, 4


class Attends(torch.nn.Module):
    """One causal layer whose past is a tuple of tuples [B,H,S,D], as before 5.0."""

    def __init__(self) -> None:
        super().__init__()
        self.config = GPT2Config(vocab_size=96, bos_token_id=95, eos_token_id=95)
        draw = torch.Generator().manual_seed(0)
        self.words = torch.nn.Parameter(torch.randn(96, H, D, generator=draw, dtype=torch.float64))
        self.out = torch.nn.Parameter(torch.randn(H * D, 96, generator=draw, dtype=torch.float64))

    def held(self, keys: Tensor) -> Tensor:
        return keys

    def free(self, held: Tensor, _rows: int) -> Tensor:
        return held

    def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = True, **_: Any) -> Any:
        x = self.words[input_ids].transpose(1, 2)
        keys = x if past_key_values is None else torch.cat([self.free(past_key_values[0][0], len(x)), x], 2)
        T, S = x.shape[2], keys.shape[2]
        scores = (x @ keys.mT).masked_fill(~torch.ones(T, S, dtype=torch.bool).tril(S - T), -torch.inf)
        logits = (scores.softmax(-1) @ keys).transpose(1, 2).flatten(2) @ self.out
        return SimpleNamespace(logits=logits, past_key_values=((self.held(keys), self.held(keys)),) if use_cache else None)


class OfRows(Attends):
    """GPT-2: rows are chosen by an index."""

    @staticmethod
    def _reorder_cache(past_key_values: Any, beam_idx: Tensor) -> Any:
        return tuple(tuple(x.index_select(0, beam_idx) for x in layer) for layer in past_key_values)


class Fused(Attends):
    """BLOOM before 4.44: [B*H,S,D], and the number of heads is read off the number of beams."""

    def held(self, keys: Tensor) -> Tensor:
        return keys.flatten(0, 1)

    def free(self, held: Tensor, rows: int) -> Tensor:
        return held.unflatten(0, (rows, H))

    def _reorder_cache(self, past_key_values: Any, beam_idx: Tensor) -> Any:
        rows = len(beam_idx)
        return tuple(
            tuple(x.view(rows, len(x) // rows, *x.shape[1:])[beam_idx].flatten(0, 1) for x in layer)
            for layer in past_key_values
        )


class Forgetful(Attends):
    """Reorders nothing."""

    def _reorder_cache(self, past_key_values: Any, _: Tensor) -> Any:
        return tuple(tuple(x.clone() for x in layer) for layer in past_key_values)


class Object:
    """DynamicCache of 4.36 to 4.51, as far as it is asked."""

    def __init__(self, layers: list[list[Tensor]]) -> None:
        self.layers_of_old = layers

    @classmethod
    def from_legacy_cache(cls, tuples: Any) -> Object:
        return cls([list(layer) for layer in tuples])

    def to_legacy_cache(self) -> Any:
        return tuple(tuple(layer) for layer in self.layers_of_old)

    def reorder_cache(self, index: Tensor) -> None:
        self.layers_of_old = [[x.index_select(0, index) for x in layer] for layer in self.layers_of_old]


class ByObject(Attends):
    """Llama at 4.44: tuples come out, and only a Cache is reordered."""

    _supports_cache_class = True


def cropped(model: Any, tuples: Any, length: int) -> Any:
    """What the generation of 4.28 to 4.51 has."""
    return tuple(tuple(x[..., :length, :] for x in layer) for layer in tuples)


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version whose caches are older."""
    monkeypatch.setattr(past, "library", lambda: SimpleNamespace(__version__="4.44.2", DynamicCache=Object))
    monkeypatch.setattr(past, "_of_assisted_decoding", lambda: cropped)


def continued(model: CausalModel, index: list[int]) -> float:
    """What choosing these of three rows amounts to, beside reading their tokens at once."""
    ids, after = measures.drawn(model, 3, 5, 0), measures.drawn(model, len(index), 2, 1)
    _, state = model.extend(ids, model.start(3))
    got, _ = model.extend(after, model.reorder(state, torch.tensor(index)))
    return measures.apart(got, model.logits(torch.cat([ids[index], after], 1))[:, 5:])


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("kind", [OfRows, Fused, ByObject])
@pytest.mark.parametrize("index", [[2, 0, 1], [1, 1, 1], [2, 2, 0, 1, 0, 0, 1], [2, 0], [1]], ids=str)
def test_rows_of_tuples_are_chosen_repeated_and_left_out(kind: type[Attends], index: list[int]) -> None:
    assert continued(CausalModel(kind()), index) < SAME


@pytest.mark.usefixtures("old")
def test_a_reorder_of_the_library_that_is_wrong_is_seen() -> None:
    assert continued(CausalModel(Forgetful()), [2, 0, 1]) > OTHER


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("kind", [OfRows, Fused, ByObject])
def test_tuples_are_fed_back_as_they_came_out(kind: type[Attends]) -> None:
    model = CausalModel(kind())
    found = measures.results(
        measures.causal(model), ("step", "one by one", "chunks", "reorder", "fork", "crop", "crop twice")
    )
    assert {name: d for name, d in found.items() if not d < SAME} == {}
    assert len(found) == 7
    _, state = model.extend(measures.drawn(model, 2, 3, 0), model.start(2))
    kept = model.fork(state)
    model.reorder(state, torch.tensor([1, 0]))
    model.crop(state, 1)
    assert all(torch.equal(a, b) for a, b in zip(state.cache[0], kept.cache[0], strict=True)), "the state was used up"


@pytest.mark.usefixtures("old")
def test_keys_of_sources_that_the_library_leaves_go_with_their_rows() -> None:
    """Beams share a source, so BART's `_reorder_cache` takes the first two of four."""

    class Pair(Attends):
        @staticmethod
        def _reorder_cache(past_key_values: Any, beam_idx: Tensor) -> Any:
            return tuple((*(x.index_select(0, beam_idx) for x in layer[:2]), *layer[2:]) for layer in past_key_values)

    layer = tuple(torch.arange(3.0)[:, None, None, None] + torch.zeros(3, H, n, D) for n in (1, 1, 5, 5))
    held = Past(Pair(), SimpleNamespace(past_key_values=(layer,)))
    for index in ([2, 0, 1], [1, 1, 2, 0]):
        for x in held.reorder((layer,), torch.tensor(index), 3)[0]:
            assert x[:, 0, 0, 0].tolist() == index


def test_what_tuples_cannot_do_is_said_with_a_reason() -> None:
    found = CausalModel(Attends()).lacks
    assert "Attends has no _reorder_cache" in found["reorder"]
    assert "crops tuples" in found["crop"]
    of_all = {"default-dtype", "generate-padded-right", "padded-loss-left"}  # exemptions.json
    assert set(CausalModel(OfRows()).lacks) - of_all == {"crop"}


@pytest.mark.usefixtures("old")
def test_only_keys_and_values_are_taken_to_have_rows_first() -> None:
    """XLNet's `mems` are [S,B,M], whatever its `_reorder_cache` does."""
    held = Past(OfRows(), SimpleNamespace(mems=(torch.zeros(4, 1, 8),)))
    assert held.name == "mems"
    assert set(held.lacks) == {"reorder", "crop"}


@pytest.mark.usefixtures("old")
def test_what_the_library_raises_is_the_reason() -> None:
    class Broken(Attends):
        def _reorder_cache(self, past_key_values: Any, beam_idx: Tensor) -> Any:
            raise NotImplementedError("no beams here")

    assert "no beams here" in CausalModel(Broken()).lacks["reorder"]


@pytest.mark.usefixtures("old")
def test_a_cache_that_may_hold_a_recurrence_is_not_cropped() -> None:
    class Hybrid(Object):
        def crop(self, length: int) -> None: ...

    held = Past(Attends(), SimpleNamespace(past_key_values=Hybrid([])))
    assert held.lacks == {"crop": "Hybrid has no crop that is known to be right"}


@pytest.mark.usefixtures("old")
def test_recording_is_refused_where_no_cache_records() -> None:
    with pytest.raises(UsageError, match=r"recording=True: no cache of transformers 4\.44\.2 records"):
        CausalModel(OfRows(), recording=True)


def test_slots_are_numbered_where_a_call_asks_for_it() -> None:
    """Mamba from 4.42 to 4.51 does not know how much it has read."""
    held = Past(Attends(), SimpleNamespace(cache_params=object()))
    given = held.given("cache", 5, 2, {"cache_position"})
    assert given["cache_params"] == "cache"
    assert given["cache_position"].tolist() == [5, 6]
    assert set(held.given("cache", 5, 2, set())) == {"cache_params"}
    assert held.given(None, 0, 2, {"cache_position"}) == {}


class OldConfig(PreTrainedConfig):
    """As before 5.0: fields are the arguments of the constructor."""

    model_type = "old"
    attribute_map = {"hidden_size": "n_embd"}  # noqa: RUF012 - as the library has it

    def __init__(self, vocab_size: int = 5000, n_embd: int = 768, n_layer: int = 12, pad_token_id: int = 4999, **rest: Any):
        self.vocab_size, self.n_embd, self.n_layer = vocab_size, n_embd, n_layer
        self.derived = 4 * n_embd
        self.pad_token_id, self.rest = pad_token_id, rest


def test_fields_of_configurations_that_are_no_dataclasses(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = spelling.all_fields
    monkeypatch.setattr(spelling, "is_dataclass", lambda _: False)
    monkeypatch.setattr(spelling, "configuration", lambda: SimpleNamespace)  # one without fields of its own
    assert spelling.own_fields(OldConfig) == ["vocab_size", "n_embd", "n_layer", "pad_token_id"]
    assert plain(OldConfig()) == spelling.own_fields(OldConfig())
    small = shrink(OldConfig, "causal", {"n_layer": 3})
    assert (small.vocab_size, small.n_embd, small.n_layer, small.derived, small.rest) == (97, 64, 3, 256, {})
    assert special_ids(small) == {96}


def test_fields_of_dataclasses_are_asked_of_them() -> None:
    assert "hidden_size" in spelling.own_fields(LlamaConfig)
    assert "architectures" not in spelling.own_fields(LlamaConfig)
    assert set(spelling.own_fields(LlamaConfig())) < set(spelling.all_fields(LlamaConfig))


def test_a_version_without_a_choice_of_attention_has_eager_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spelling.implementations("sdpa") == {"attn_implementation": "sdpa", "experts_implementation": "eager"}
    monkeypatch.setattr(spelling, "configuration", lambda: SimpleNamespace)
    assert spelling.implementations("eager") == {}
    with pytest.raises(UsageError, match="has eager alone"):
        spelling.implementations("sdpa")


def test_folders_are_read_only_where_pickles_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spelling.loading("auto") == {"dtype": "auto", "use_safetensors": True}
    monkeypatch.setattr(spelling, "configuration", lambda: SimpleNamespace)
    assert spelling.loading("auto") == {"torch_dtype": "auto", "use_safetensors": True}
    bare = SimpleNamespace(__version__="4.24.0", PreTrainedModel=SimpleNamespace(from_pretrained=lambda _: None))
    monkeypatch.setattr(spelling, "library", lambda: bare)
    with pytest.raises(UsageError, match="pickled"):
        spelling.loading("auto")


def test_sides_of_text_are_asked_for_by_the_words_that_a_version_has() -> None:
    asked: list[dict[str, bool]] = []
    both = SimpleNamespace(get_text_config=lambda decoder=None, encoder=None: asked.append({"d": decoder, "e": encoder}))
    one = SimpleNamespace(get_text_config=lambda decoder=False: asked.append({"d": decoder}))
    for config in (both, one):
        for side in ("decoder", "encoder"):
            spelling.text_config(config, side)  # type: ignore[arg-type]
    assert asked == [{"d": True, "e": None}, {"d": None, "e": True}, {"d": True}, {"d": False}]
    none = SimpleNamespace()
    assert spelling.text_config(none, "decoder") is none
