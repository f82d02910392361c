"""Contracts: what the documentation of a library promises to whoever uses its function's names (engine 2).

A function with the parameter names of a well-known one is held to that one's documented meaning. Only what the
documentation says is promised here; what a library merely does is left for probing to find.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from attnspec.signature import Signature

CONTRACTS: dict[str, dict[str, Any]] = {
    # torch.nn.functional.scaled_dot_product_attention
    "torch": {
        "polarity": "attend",
        "alignment": "top-left",
        "empty_row": "zero",
        "output_dtype": "query",
        "mask": ("bool", "bias"),
        "group_order": "repeated",
    },
    # jax.nn.dot_product_attention: rows without a key and the alignment of is_causal are not documented
    "jax": {
        "polarity": "attend",
        "layout": "bthd",
        "mask": ("bool", "bias"),
        "group_order": "repeated",
    },
    # ONNX operator Attention, opset 23 with its errata, without past keys
    "onnx-23": {
        "polarity": "attend",
        "alignment": "top-left",
        "empty_row": "zero",
        "output_dtype": "query",
        "mask": ("bool", "bias"),
        "group_order": "repeated",
    },
    # mlx.core.fast.scaled_dot_product_attention
    "mlx": {
        "polarity": "attend",
        "alignment": "bottom-right",
        "layout": "bhtd",
        "mask": ("bool", "bias"),
        "group_order": "repeated",
    },
    # keras.ops.dot_product_attention
    "keras": {
        "polarity": "attend",
        "layout": "bthd",
        "mask": ("bool", "bias"),
        "group_order": "repeated",
    },
}


class Names(NamedTuple):
    """The parameters that a contract is recognised by: all of the first, one of the second unless that is empty."""

    all: tuple[str, ...]
    one: tuple[str, ...] = ()


RECOGNISED = {
    "torch": Names(("attn_mask", "is_causal")),
    "jax": Names(
        ("query", "key", "value", "bias", "mask", "is_causal"),
        ("query_seq_lengths", "key_value_seq_lengths", "local_window_size"),
    ),
    "keras": Names(("query", "key", "value", "bias", "mask", "scale", "is_causal", "flash_attention")),
    "mlx": Names(("q", "k", "v", "scale", "mask", "sinks"), ("stream", "force_fused")),
}


def recognised(signature: Signature) -> str:
    """The contract whose names the signature has, or `none`."""
    names = {*signature.names.values(), *signature.unread}
    for contract, wanted in RECOGNISED.items():
        if names.issuperset(wanted.all) and (not wanted.one or names.intersection(wanted.one)):
            return contract
    return "none"
