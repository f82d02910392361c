"""What a model of transformers offers beside its logits and its cache: the ways to the same logits that users take.

`Offers` is mixed into CausalModel and Seq2SeqModel. `given` are the arguments of their `logits`: (source,) ids, then masks.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attnspec.hugging_face.offline import library

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # the label of what the library's losses leave out
OTHER = {"eager": "sdpa", "sdpa": "eager"}
ROOM = 64  # slots of a static cache: as many as a model built here has positions


class Offers:
    """Routes to the same logits, `generate`, the loss, attention weights, gradients, and other models made from one.

    What a model has not raises an error; an audit takes that for an answer.
    """

    model: Any
    accepts: set[str]
    side: str  # what the arguments for the ids that are read on begin with: "" or "decoder_"
    attentions_name: str

    def inputs(self, *given: Any) -> dict[str, Any]:
        """The arguments of the library's forward pass that `logits` makes of its own."""
        raise NotImplementedError

    @property
    def routes(self) -> dict[str, Callable[..., Tensor]]:
        """Other ways to what `logits` gives, each with its arguments."""
        found: dict[str, Callable[..., Tensor]] = {
            "use_cache=True": lambda *given: self._logits(given, use_cache=True),
            "output_hidden_states=True": lambda *given: self._logits(given, output_hidden_states=True),
            "inputs_embeds": self._embedded,
            "a mask of ones": self._masked,
        }
        if (other := OTHER.get(self.model.config._attn_implementation)) is not None:
            found[f"attention {other}"] = lambda *given: self._with_attention(other, given)
        if "position_ids" in self.accepts and not self.side:
            found["no position_ids"] = self._without_positions
        return found

    def _logits(self, given: Sequence[Any], **more: Any) -> Tensor:
        return self.model(**self.inputs(*given) | {"use_cache": False} | more, return_dict=True).logits  # type: ignore[no-any-return]

    def _embedded(self, *given: Any) -> Tensor:
        arguments = self.inputs(*given)
        ids = arguments.pop(f"{self.side}input_ids")
        table = (self.model.get_decoder() if self.side else self.model).get_input_embeddings()
        arguments[f"{self.side}inputs_embeds"] = table(ids)
        return self.model(**arguments, use_cache=False, return_dict=True).logits  # type: ignore[no-any-return]

    def _masked(self, *given: Any) -> Tensor:
        arguments = self.inputs(*given)
        ids = arguments[f"{self.side}input_ids"]
        arguments.setdefault(f"{self.side}attention_mask", ids.new_ones(ids.shape))
        return self.model(**arguments, use_cache=False, return_dict=True).logits  # type: ignore[no-any-return]

    def _without_positions(self, *given: Any) -> Tensor:
        """The library's own positions; beside padding they count slots, so there they are passed as ever."""
        arguments = self.inputs(*given)
        if "attention_mask" not in arguments:
            arguments.pop("position_ids", None)
        return self.model(**arguments, use_cache=False, return_dict=True).logits  # type: ignore[no-any-return]

    def _with_attention(self, name: str, given: Sequence[Any]) -> Tensor:
        before = self.model.config._attn_implementation
        try:
            self.model.set_attn_implementation(name)
            if self.model.config._attn_implementation != name:
                raise ValueError(f"attention {name}: the model keeps {before}")
            return self._logits(given)
        finally:
            self.model.set_attn_implementation(before)

    # Searches

    def _generated(self, given: Sequence[Any], count: int, *, cache: Any = None, **settings: Any) -> Any:
        """What the library's `generate` returns for `count` more words; no word ends a search and none is special."""
        arguments = self.inputs(*given)
        ids = arguments[f"{self.side}input_ids"]
        for name in [n for n in arguments if n.endswith("position_ids")]:
            del arguments[name]  # it makes its own
        arguments.setdefault("attention_mask", ids.new_ones(arguments["input_ids"].shape))
        if self.side:
            # A prefix that does not begin with the word of the start would get it in front.
            settings["decoder_start_token_id"] = ids[:, 0].tolist()
        config = library().GenerationConfig(
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
            output_scores=True,
            return_dict_in_generate=True,
            **settings,
        )
        given_cache = {} if cache is None else {"past_key_values": cache}
        before, self.model.generation_config = self.model.generation_config, config
        try:
            return self.model.generate(**arguments, **given_cache, generation_config=config)
        finally:
            self.model.generation_config = before

    def generate(self, *given: Any) -> Tensor:
        """(source,) ids, count, masks -> [B,count]: the words of a greedy search by the library's `generate`."""
        ids, count, given = self._count(given)
        return self._generated(given, count).sequences[:, ids.shape[1] :]  # type: ignore[no-any-return]

    def _count(self, given: tuple[Any, ...]) -> tuple[Tensor, int, tuple[Any, ...]]:
        """The ids, the count behind them, and the arguments without it."""
        at = 2 if self.side else 1
        return given[at - 1], given[at], given[:at] + given[at + 1 :]

    def converse(self, *given: Any) -> list[Tensor]:
        """(source,) turns, count -> [B,count] after each turn; the cache that `generate` returns goes into its next call."""
        import torch

        *source, turns, count = given
        ids, cache, said = turns[0][:, :0], None, []
        for turn in turns:
            ids = torch.cat([ids, turn], 1)
            found = self._generated((*source, ids), count, cache=cache)
            if found.past_key_values is None:
                raise ValueError("generate returns no cache")
            said.append(found.sequences[:, ids.shape[1] :])
            ids, cache = found.sequences, found.past_key_values
        return said

    def beams(self, *given: Any) -> tuple[Tensor, Tensor]:
        """(source,) ids, count, width -> words [B,width,count] and log p [B,width], by the library's beam search."""
        *before, width = given
        ids, count, left = self._count(tuple(before))
        found = self._generated(left, count, num_beams=width, num_return_sequences=width, length_penalty=0.0)
        words = found.sequences[:, ids.shape[1] :]
        if width == 1:  # which is greedy search, without scores of sequences
            each = self.model.compute_transition_scores(found.sequences, found.scores, normalize_logits=True)
            return words[:, None], each.sum(1)[:, None]
        return words.view(len(ids), width, count), found.sequences_scores.view(len(ids), width)

    # Training

    def loss(self, *given: Any) -> Tensor:
        """The loss that the library computes; the labels of a decoder's first word and of padding are left out."""
        if not self.side:
            ids, mask = (*given, None)[:2]
            labels = ids if mask is None else ids.masked_fill(mask == 0, IGNORED)
            return self.model(**self.inputs(*given), labels=labels, use_cache=False, return_dict=True).loss  # type: ignore[no-any-return]
        source, target, source_mask, mask = (*given, None, None)[:4]
        labels = target if mask is None else target.masked_fill(mask == 0, IGNORED)
        kept = None if mask is None else mask[:, :-1]
        arguments = self.inputs(source, target[:, :-1], source_mask, kept)
        return self.model(**arguments, labels=labels[:, 1:].contiguous(), use_cache=False, return_dict=True).loss  # type: ignore[no-any-return]

    def attentions(self, *given: Any) -> list[Tensor]:
        """The weights of each layer of self-attention [B,H,T,T]."""
        out = self.model(**self.inputs(*given), output_attentions=True, use_cache=False, return_dict=True)
        found = getattr(out, self.attentions_name, None)
        if not found or any(weights is None for weights in found):
            raise ValueError(f"{type(self.model).__name__} returns no attention weights")
        return list(found)

    def gradients(self, *given: Any) -> dict[str, Tensor]:
        """The gradients of the sum of -log p(word | words before it); with True behind the ids, by checkpointing."""
        import torch

        checkpointing, given = (True, given[:-1]) if given[-1] is True else (False, given)
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)  # checkpointing leaves hooks behind
        other.model.requires_grad_(True)
        other.model.train()  # without dropout: configurations made here have none
        if checkpointing:
            other.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        named = {name: p for name, p in other.model.named_parameters() if p.is_floating_point()}
        with torch.enable_grad():
            logs = other._logits(given)[:, :-1].log_softmax(-1)
            total = -logs.gather(-1, given[-1][:, 1:, None]).sum()
            found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        return {name: slope for name, slope in zip(named, found, strict=True) if slope is not None}

    # Models made from it

    def around(self, model: Any) -> Any:
        """Another model of this configuration, which is not asked again what it takes; it gives logits, and has no states."""
        other = copy.copy(self)
        other.model = model
        for method in ("start", "extend", "reorder", "crop", "fork", "caches"):
            vars(other).pop(method, None)  # those are this one's
        return other

    def reloaded(self) -> Any:
        """The model that `save_pretrained` wrote, read by `from_pretrained`."""
        from attnspec.hugging_face.build import folder

        with tempfile.TemporaryDirectory() as path:
            self.model.save_pretrained(path)
            dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
            return folder(path, attn=self.model.config._attn_implementation, dtype=dtype)
