"""Models of Hugging Face transformers as language models under audit: built offline, small, with drawn weights.

    model = build("llama")               # a shrunk default configuration, weights drawn, float64
    model = folder("path/of/a/model")    # config.json and *.safetensors of your own

Both give a `CausalModel` or a `Seq2SeqModel`. Nothing here reaches a network or runs code that came with a model.
"""

from __future__ import annotations

from attnspec.hugging_face.build import build, folder
from attnspec.hugging_face.float64 import in_float64

__all__ = ["build", "folder", "in_float64"]
