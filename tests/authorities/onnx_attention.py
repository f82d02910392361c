"""Attention and rotary positions as ONNX defines them, translated to the reference.

The specification of Attention (versions 23 to 25): query i sees key j if j <= i + offset. The offset is the number of keys in
the cache: past_sequence_length with `past_key`, nonpad_kv_seqlen - q_sequence_length with `nonpad_kv_seqlen`, and 0 with
neither. The text calls all of this bottom-right; without a cache it is top-left, also where there are more keys than queries.
With a cache it is bottom-right on the first q_sequence_length + offset keys: all keys, if each new query brings a new key,
and the real ones, if they are padded. Rows without a key are zero. A window of `left` keys does not count the query's own.

ONNX multiplies queries and keys by sqrt(scale) each: where a scale is given that is one rounding more than the bound counts.

RotaryEmbedding takes its cosines and sines as inputs, and those of the vectors are random numbers, not those of positions.
Each pair (c, s) is r times a cosine and a sine of some angle: the reference turns by that angle what was multiplied by r.
So the vectors speak on pairs, signs and the width, not on frequencies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.reference.attention import attention, attention_weights, scores
from attnspec.reference.mask import causal_mask, padding_mask, window_mask
from attnspec.reference.multi_head import split_heads
from attnspec.reference.rotary_position import rotate
from tests.authorities.agreement import Draw, authority
from tests.authorities.onnx_vectors import Call, Vector, check_all, translates

RAW, CAPPED, MASKED, WEIGHTS = range(4)  # qk_matmul_output_mode


@translates("Attention")
def attention_calls(vector: Vector) -> list[Call]:
    """The output, the cache, and the scores or weights where they are an output too."""
    given, attributes = vector.inputs, vector.attributes
    q = _by_head(given["Q"], attributes.get("q_num_heads"))
    k, v = (_by_head(given[name], attributes.get("kv_num_heads")) for name in "KV")
    if "past_key" in given:
        k, v = np.concatenate([given["past_key"], k], axis=2), np.concatenate([given["past_value"], v], axis=2)
        np.testing.assert_array_equal(vector.outputs["present_key"], k)
        np.testing.assert_array_equal(vector.outputs["present_value"], v)
    factors = {"scale": attributes.get("scale"), "softcap": attributes.get("softcap") or None}
    options = factors | _hidden(vector, q.shape[2], k.shape[2])
    calls = [Call(_by_head(vector.outputs["Y"], q.shape[1]), attention, (q, k, v), options)]
    if "qk_matmul_output" in vector.outputs:
        mode = attributes.get("qk_matmul_output_mode", RAW)
        function = attention_weights if mode == WEIGHTS else scores
        shown = {RAW: {"scale": factors["scale"]}, CAPPED: factors, MASKED: options, WEIGHTS: options}[mode]
        calls.append(Call(vector.outputs["qk_matmul_output"], function, (q, k), shown))
    return calls


def _by_head(x: Any, heads: Any) -> Any:
    return x if x.ndim == 4 else split_heads(x, heads)


def _hidden(vector: Vector, T: int, S: int) -> dict[str, Any]:
    """The options that hide keys."""
    given, attributes = vector.inputs, vector.attributes
    causal, left, right = (attributes.get(name, -1) for name in ("is_causal", "left_window_size", "right_window_size"))
    options: dict[str, Any] = {}
    if "attn_mask" in given:
        mask = given["attn_mask"]
        short = [(0, 0)] * (mask.ndim - 1) + [(0, S - mask.shape[-1])]  # a mask of fewer keys hides the others
        key, hide = ("mask", False) if mask.dtype == np.bool_ else ("bias", -np.inf)
        options[key] = np.pad(mask, short, constant_values=hide)
    if "nonpad_kv_seqlen" in given:
        lengths = given["nonpad_kv_seqlen"]
        _also(options, padding_mask(lengths, S))
        _also(options, np.stack([_seen(n - T, T, S, causal == 1, left, right) for n in lengths])[:, None])
        return options
    offset = given["past_key"].shape[2] if "past_key" in given else 0
    if causal == 1 and offset in (0, S - T):  # as the reference says it; the other cases need a mask
        options["causal"], options["window"] = "top-left" if offset == 0 else "bottom-right", None if left == -1 else left + 1
    elif causal != 1 and offset == 0 and left == right != -1:
        options["window"], options["window_side"] = left + 1, "both"
    else:
        _also(options, _seen(offset, T, S, causal == 1, left, right))
    return options


def _seen(offset: int, T: int, S: int, causal: bool, left: int, right: int) -> Any:
    """Causality and window of queries at the positions offset, offset + 1, ..., [T,S]; -1 is no bound.

    Queries before them, or keys before the first one if the offset is negative, are put in front and cut off again.
    """
    T, S, first = T + max(offset, 0), S + max(-offset, 0), (slice(max(offset, 0), None), slice(max(-offset, 0), None))
    seen = causal_mask(T, S) if causal else np.ones((T, S), dtype=np.bool_)
    if left != -1:
        seen = seen & (window_mask(T, S, left + 1, side="both") | ~causal_mask(T, S))
    if right != -1:
        seen = seen & (window_mask(T, S, right + 1, side="both") | causal_mask(T, S))
    return seen[first]


def _also(options: dict[str, Any], mask: Any) -> None:
    options["mask"] = mask & options.get("mask", True)


@translates("RotaryEmbedding")
def rotary_calls(vector: Vector) -> list[Call]:
    """The turned queries."""
    given, attributes = vector.inputs, vector.attributes
    heads = attributes.get("num_heads")
    x = _by_head(given["input"], heads)
    c, s = (given[name].astype(np.float64) for name in ("cos_cache", "sin_cache"))
    if "position_ids" in given:
        c, s = c[given["position_ids"]], s[given["position_ids"]]
    width = attributes.get("rotary_embedding_dim") or x.shape[-1]
    pairs = "interleaved" if attributes.get("interleaved") else "half"
    arguments = (x.astype(np.float64), np.hypot(c, s), np.arctan2(s, c), pairs, width)
    return [Call(_by_head(vector.outputs["output"], heads), turned, arguments)]


def turned(x: Any, r: Any, angles: Any, pairs: Any, width: int) -> Any:
    """rotate, with a factor and an angle for each pair: each is a position of its own, of which two channels are taken."""
    n = width // 2
    (B, H, T, D), channel = x.shape, np.arange(x.shape[-1])
    scaled = np.where(channel < width, r[:, None, :, :, None] * x[:, :, :, None, :], x[:, :, :, None, :])
    every = rotate(scaled.reshape(B, H, T * n, D), angles.reshape(B, T * n), 1.0, pairs, width).reshape(B, H, T, n, D)
    of_pair = channel % n if pairs == "half" else channel // 2
    return every[..., np.where(channel < width, of_pair, 0), channel]


def _is_causal(vector: Vector) -> bool:
    return bool(vector.attributes.get("is_causal"))


def _has_cache(vector: Vector) -> bool:
    return not {"past_key", "nonpad_kv_seqlen"}.isdisjoint(vector.inputs)


@authority("I22", "ONNX Attention, node vectors", of=(attention, split_heads), examples=1)
def onnx_heads(_: Draw) -> None:
    """Heads side by side in one axis, or more query heads than key heads; any mask."""
    check_all("Attention", lambda v: v.inputs["Q"].ndim == 3 or v.inputs["Q"].shape[1] > v.inputs["K"].shape[1])


@authority("I25", "ONNX Attention, node vectors", of=(attention, scores, attention_weights), examples=1)
def onnx_causal(_: Draw) -> None:
    """Causal masks with and without cache, padding, windows and other masks; outputs, scores and weights."""
    check_all("Attention", _is_causal)


@authority("I26", "ONNX Attention, node vectors", of=(attention, scores, attention_weights), examples=1)
def onnx_cache(_: Draw) -> None:
    """Keys and values of earlier steps, joined with new ones or padded; outputs, scores and weights."""
    check_all("Attention", _has_cache)


@authority("I27", "ONNX Attention, node vectors", of=(attention, scores, attention_weights), examples=1)
def onnx_cross(_: Draw) -> None:
    """Four queries and six keys, masks as booleans and as numbers, scale, soft cap; outputs, scores and weights."""
    check_all("Attention", lambda v: not _is_causal(v) and not _has_cache(v))


@authority("I23", "ONNX RotaryEmbedding, node vectors", of=(rotate,), examples=1)
def onnx_rotary(_: Draw) -> None:
    """Both layouts of pairs, all channels or the first ones; angles are random, not those of the formula."""
    check_all("RotaryEmbedding")
