"""Defects of how the keys and values of the past are kept."""

from attnspec.properties.model_mutants.plain import Decoder
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory


@mutant(
    "cache.crop_keeps_one_more",
    imitates="crop leaves a stale token behind, which the next token sees beside itself",
    source="https://github.com/huggingface/transformers/issues/47433",
)
class CropKeepsOneMore(Decoder):
    """The memory of each layer is cropped to one token more than the row's length."""

    def cropped(self, i: int, past: Memory, length: int) -> Memory | None:
        """One token more."""
        return super().cropped(i, past, length + 1)
