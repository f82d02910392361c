"""The Transformer: encoder and decoder, or one of them; a language model and a translator that decode with a cache."""

from typing import cast

import torch
from torch import Tensor, nn

from attnspec.impl.config import TransformerConfig
from attnspec.impl.decoder_cache import PIECE, Call, DecoderCache
from attnspec.impl.embedding import Output, TokenEmbedding
from attnspec.impl.errors import require
from attnspec.impl.layers import Stack
from attnspec.impl.padding_groups import rows_by_length
from attnspec.impl.positions import Sight, sight_of_sequence, token_positions, turn_by


class Transformer(nn.Module):
    """An encoder and a decoder, or one of them, from one configuration.

        logits = decode(target, encode(source)) W^T + b                                  (1)
        logits = decode(target) W^T + b without an encoder, encode(source) W^T + b without a decoder     (2)

    Shapes:  source, source_mask [B,S]  target, target_mask [B,T] -> [B,T,V], or [B,S,V] without a decoder. Names in
             state_dict are those of docs/notation.md.
    Units:   masks are True, or 1, at real tokens, whose positions count from 0: padding may stand on either side.
             encoder_mask and decoder_mask [B|1,H|1,T,T] are boolean, True = may attend, beside padding and causality.
    Empty:   S and T may be zero; what comes out at padding means nothing.
    Errors:  ValueError for ids or masks of another shape or kind, and for more real tokens than max_length.
    Source:  arXiv:1706.03762 sec. 3; arXiv:1801.10198 sec. 4.2.3 (no encoder); arXiv:1810.04805 sec. 3 (no decoder).
    Differs: the first paper has probabilities: the softmax of the logits.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.vocab_size, self.max_length = config.vocab_size, config.max_length
        of_source = config.vocab_size if config.source_vocab_size is None else config.source_vocab_size
        if config.encoder_layers:
            self.source = TokenEmbedding(config, of_source)
            self.encoder = Stack(config, config.encoder_layers, cross=False)
        if config.decoder_layers:
            self.target = TokenEmbedding(config, None if config.shared else config.vocab_size)
            self.decoder = Stack(config, config.decoder_layers, cross=config.encoder_layers > 0)
        self.output = Output(config, config.vocab_size if config.decoder_layers else of_source)

    def forward(
        self, source: Tensor | None, target: Tensor | None, source_mask: Tensor | None = None,
        target_mask: Tensor | None = None, *, encoder_mask: Tensor | None = None, decoder_mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Scores the next word at each token (class docstring)."""
        for name, ids, depth in (
            ("source", source, self.config.encoder_layers), ("target", target, self.config.decoder_layers),
        ):  # fmt: skip
            fits = (ids is None) == (depth == 0)
            rule = f"a model with {name} layers reads a {name}, one without does not; pass ids, or None"
            require(fits, rule, **{name: None if ids is None else ids.shape}, layers=depth)
        memory = None if source is None else self.encode(source, source_mask, encoder_mask)
        if target is not None:
            return self.score(self.decode(target, memory, target_mask, source_mask, decoder_mask))
        return self.score(cast(Tensor, memory))

    def encode(self, source: Tensor, source_mask: Tensor | None = None, encoder_mask: Tensor | None = None) -> Tensor:
        """Reads a source: memory [B,S,M] (class docstring)."""
        real, places = self._real("source", source, source_mask)
        if real is None or encoder_mask is not None or source.device.type != "cpu":
            return self._encode(source, real, places, encoder_mask)
        groups = rows_by_length(real)
        if len(groups) == 1:
            return self._encode(source, real, places, None)
        found = []
        for rows, columns in groups:
            some = real[rows, columns]
            found.append(self._encode(source[rows, columns], None if bool(some.all()) else some, places[rows, columns], None))
        memory = found[0].new_zeros(*source.shape, found[0].shape[2])
        for (rows, columns), one in zip(groups, found, strict=True):
            memory[rows, columns] = one
        return memory

    def _encode(self, source: Tensor, real: Tensor | None, places: Tensor, encoder_mask: Tensor | None) -> Tensor:
        x = self.source(source, places, self._table("source"))
        sight = sight_of_sequence(source.shape[1], real, encoder_mask, False, self.config, x)
        out: Tensor = self.encoder(x, sight, turn_by(places, self.config, x.dtype))
        return out

    def decode(
        self, target: Tensor, memory: Tensor | None, target_mask: Tensor | None = None,
        source_mask: Tensor | None = None, decoder_mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Reads a target so far, and the memory of a source if there is one: state [B,T,M] (class docstring)."""
        real, places = self._real("target", target, target_mask)
        x = self.target(target, places, self._table("target"))
        sight = sight_of_sequence(target.shape[1], real, decoder_mask, True, self.config, x)
        memories = None if memory is None else self.decoder.memories(memory, _sight_of_memory(memory, source_mask))
        out: Tensor = self.decoder(x, sight, turn_by(places, self.config, x.dtype), memories)
        return out

    def score(self, state: Tensor) -> Tensor:
        """Scores words by the state of the last layer: logits [B,T,V] (class docstring)."""
        logits: Tensor = self.output(state, self._table("target" if self.config.decoder_layers else "source"))
        return logits

    def _table(self, side: str) -> Tensor:
        """The words of the source, or those of the target, which may be shared."""
        shared = self.config.shared or side == "source"
        return cast(nn.Embedding, (self.source if shared else self.target).embedding).weight

    def _real(self, name: str, ids: Tensor, mask: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Which tokens are real [B,T], or None if all are, and where they stand, [B,T] or [1,T]."""
        real, T = _checked(name, ids, mask), ids.shape[1]
        if self.max_length < T:
            longest = T if real is None else int(real.sum(dim=1).max())
            rule = "a sequence has at most max_length real tokens; shorten it, or build a longer model"
            require(longest <= self.max_length, rule, **{name: longest}, max_length=self.max_length)
        return real, torch.arange(T, device=ids.device)[None] if real is None else token_positions(real)


class Decoding(Transformer):
    """What the two models with a decoder share: taking steps with a cache.

        logits of extend = the last T of those of forward on all tokens so far           (1)

    Shapes:  ids, mask [B,T] -> logits [B,T,V] and the state; index [B'] counts rows of the state; length [B] or a number.
    Units:   T is any number: a prompt, a word, a chunk. capacity and length count real tokens of a row, piece those that
             a ring takes in one go (DecoderCache). Call eval() first: in training there is dropout here too.
    Empty:   T may be zero.
    Errors:  those of Transformer and DecoderCache, which leave the state as it was.
    Source:  arXiv:1911.02150 sec. 2.4.
    Differs: n/a. extend and crop use up the state that they are given, and take no gradient; reorder and fork copy it.
    """

    def _start(self, B: int, capacity: int | None, piece: int, memory: Tensor | None, mask: Tensor | None) -> DecoderCache:
        rule = "a state holds between 1 and max_length tokens a row; use such a capacity, or None for max_length"
        capacity = self.max_length if capacity is None else capacity
        require(1 <= capacity <= self.max_length, rule, capacity=capacity, max_length=self.max_length)
        memories = None
        if memory is not None:
            found = self.decoder.memories(memory, _sight_of_memory(memory, mask))
            memories = [one._replace(k=one.k.contiguous(), v=one.v.contiguous()) for one in found]
        device = self._table("target").device
        return DecoderCache(B, self.config.decoder_layers, capacity, device, self.config.window, memories, piece)

    @torch.no_grad()
    def _extend(self, ids: Tensor, state: DecoderCache, mask: Tensor | None) -> tuple[Tensor, DecoderCache]:
        real, (B, T), n = _checked("ids", ids, mask), ids.shape, state.piece
        call = state.plan(B, T, real)
        x = self.target(ids, call.places, self._table("target"))
        if n >= T:
            return self.score(self._step(x, call, state)), state
        found = []
        for t in range(0, T, n):  # all of it fits: nothing can go wrong after the first piece
            piece = x[:, t : t + n]
            call = state.plan(B, piece.shape[1], None if real is None else real[:, t : t + n])
            found.append(self._step(piece, call, state))
        return self.score(torch.cat(found, dim=1)), state

    def _step(self, x: Tensor, call: Call, state: DecoderCache) -> Tensor:
        """Passes new tokens through the decoder, and those that it remembers."""
        turn, sight = turn_by(call.places, self.config, x.dtype), state.sight(call, self.config, x)
        out: Tensor = self.decoder(x, sight, turn, state.memories, state.keeps(call))
        state.finish(call)
        return out

    @torch.no_grad()
    def reorder(self, state: DecoderCache, index: Tensor) -> DecoderCache:
        """Takes other rows of the batch (class docstring)."""
        return state.reorder(index)

    def crop(self, state: DecoderCache, length: int | Tensor) -> DecoderCache:
        """Forgets all but the first `length` real tokens of each row (class docstring)."""
        return state.crop(length)

    @torch.no_grad()
    def fork(self, state: DecoderCache) -> DecoderCache:
        """Copies the state, so that both can go on (class docstring)."""
        return state.fork()


class CausalLM(Decoding):
    """A language model: a decoder without a source. Docstrings of Transformer and Decoding."""

    def __init__(self, config: TransformerConfig) -> None:
        rule = "a language model has a decoder only; use encoder_layers=0"
        require(config.encoder_layers == 0, rule, encoder_layers=config.encoder_layers)
        super().__init__(config)

    def logits(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Scores the word after each token."""
        logits: Tensor = self(None, ids, target_mask=attention_mask)
        return logits

    def start(self, batch: int, capacity: int | None = None, *, piece: int = PIECE) -> DecoderCache:
        """A state without a past."""
        return self._start(batch, capacity, piece, None, None)

    def extend(self, ids: Tensor, state: DecoderCache, attention_mask: Tensor | None = None) -> tuple[Tensor, DecoderCache]:
        """Reads further tokens; attention_mask [B,T] covers these."""
        return self._extend(ids, state, attention_mask)


class Seq2Seq(Decoding):
    """A translator: an encoder and a decoder. Docstrings of Transformer and Decoding."""

    def __init__(self, config: TransformerConfig) -> None:
        layers = {"encoder_layers": config.encoder_layers, "decoder_layers": config.decoder_layers}
        require(min(layers.values()) > 0, "a translator has an encoder and a decoder; give both layers", **layers)
        super().__init__(config)

    def logits(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        """Scores the word after each token of the target."""
        logits: Tensor = self(source, target, source_mask, target_mask)
        return logits

    @torch.no_grad()
    def start(
        self, memory: Tensor, source_mask: Tensor | None = None, capacity: int | None = None, *, piece: int = PIECE
    ) -> DecoderCache:
        """A state without a past, with the keys and values of the memory for all layers, computed once."""
        return self._start(memory.shape[0], capacity, piece, memory, source_mask)

    def extend(self, target: Tensor, state: DecoderCache, target_mask: Tensor | None = None) -> tuple[Tensor, DecoderCache]:
        """Reads further tokens of the target; target_mask [B,T] covers these."""
        return self._extend(target, state, target_mask)


def _checked(name: str, ids: Tensor, mask: Tensor | None) -> Tensor | None:
    whole = ids.ndim == 2 and not (ids.is_floating_point() or ids.dtype == torch.bool)
    require(whole, "ids are whole numbers [B,T]; add an axis, or take the argmax", **{name: ids.shape}, dtype=ids.dtype)
    return _checked_mask(name, ids.shape, mask)


def _checked_mask(name: str, tokens: torch.Size, mask: Tensor | None) -> Tensor | None:
    if mask is None:
        return None
    got = {f"{name}_mask": mask.shape, "dtype": mask.dtype, name: tokens}
    rule = "a mask has an entry for each token, True or 1 where it is real; pass ids != padding_id"
    require(mask.shape == tokens[:2] and not mask.is_floating_point(), rule, **got)
    return mask != 0


def _sight_of_memory(memory: Tensor, mask: Tensor | None) -> Sight:
    require(memory.ndim == 3, "a memory is [B,S,M]; pass what encode gives", memory=memory.shape)
    real = _checked_mask("source", memory.shape, mask)
    return Sight() if real is None else Sight(mask=real[:, None, None, :])
