"""attnspec: the conformance suite for attention and Transformers."""

__version__ = "0.1.0"
