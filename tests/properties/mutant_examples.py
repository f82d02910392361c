"""For each mutant written with the wider protocol: where it is wrong, and where it is right.

An example is a call, with the calls before it on the same object and the surroundings; sizes are the defaults of `Example`
unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from attnspec.adapters import stored

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """Sizes, dtype and options of a call; `change` edits the arguments, `storage` says how an array lies in memory."""

    B: int = 2
    H: int = 4
    G: int = 4
    T: int = 5
    S: int = 6
    D: int = 3
    E: int = 4
    dtype: str = "float64"
    draw: int = 1
    size: float = 1.0
    mask: str | None = None
    bias: str | None = None
    sinks: bool = False
    empty: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Arguments], object] | None = None
    storage: dict[str, str] = field(default_factory=dict)
    gradient: bool = False
    before: tuple[Example, ...] = ()
    grad_mode: bool = True
    default: str = "float32"
    threads: int = 1
    same_mask: bool = False  # the mask is the object of the call before, with other content

    def arguments(self) -> Arguments:
        """The arguments of the call; `empty` hides every key of these queries."""
        draw = torch.Generator().manual_seed(self.draw)
        lengths = {"B": self.B, "H": self.H, "T": self.T, "S": self.S, "1": 1}
        dtype = getattr(torch, self.dtype)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw, dtype=torch.float64)

        made: Arguments = {
            "q": (self.size * normal(self.B, self.H, self.T, self.D)).to(dtype),
            "k": normal(self.B, self.G, self.S, self.D).to(dtype),
            "v": normal(self.B, self.G, self.S, self.E).to(dtype),
        }
        if self.mask is not None:
            made["mask"] = normal(*(lengths[axis] for axis in self.mask)) > 0
            made["mask"][..., :1] = True
            if self.empty:
                made["mask"] = made["mask"].clone()
                made["mask"][..., list(self.empty), :] = False
        if self.bias is not None:
            made["bias"] = normal(*(lengths[axis] for axis in self.bias)).to(dtype)
        if self.sinks:
            made["sinks"] = normal(self.H).to(dtype)
        made |= self.options
        if self.change is not None:
            self.change(made)
        for name, kind in self.storage.items():
            made[name] = _lying(made[name], kind)
        return made


def _lying(x: Tensor, storage: str) -> Tensor:
    if storage == "expanded":
        return x[:1].clone().expand(x.shape)
    lying: Tensor = stored(x, storage, lambda shape, value: torch.full(shape, value, dtype=x.dtype))
    return lying


def same_keys(a: Arguments) -> None:
    """All scores equal and all values 1, so that sums of many terms are sums of equal terms."""
    a["k"] = torch.zeros_like(a["k"])
    a["v"] = torch.ones_like(a["v"])


def put(name: str, value: float, *place: Any) -> Callable[[Arguments], object]:
    """Sets a part of one argument."""
    return lambda a: a[name].__setitem__(place or slice(None), value)


def cut(name: str, heads: slice) -> Callable[[Arguments], object]:
    """Keeps some heads of one argument."""
    return lambda a: a.__setitem__(name, a[name][:, heads])


def widened(name: str, axis: int) -> Callable[[Arguments], object]:
    """One more element along one axis of an argument."""
    return lambda a: a.__setitem__(name, torch.cat([a[name], a[name].narrow(axis, 0, 1)], dim=axis))


def shaped(q: float, k: float) -> Callable[[Arguments], object]:
    """Constant queries; key 0 is constant, the others are half of it."""

    def change(a: Arguments) -> None:
        a["q"].fill_(q)
        a["k"].fill_(k / 2)
        a["k"][..., 0, :] = k

    return change


def unlikely_but_large(a: Arguments) -> None:
    """Key 1 has a weight of 6e-6 and a value of 60000."""
    shaped(4.0, 6.0)(a)
    a["v"][..., 1, :] = 60000.0


ORDINARY = Example()


def x(**changes: Any) -> Example:
    """An example that differs from the ordinary one in these fields; capital and unknown names are fields and options."""
    fields = {name: changes.pop(name) for name in list(changes) if name in Example.__dataclass_fields__}
    return replace(ORDINARY, **fields, options=changes)


DROP = x(dropout=0.4, seed=3)
WEIGHTS = x(need_weights=True)
LSE = x(return_lse=True)
SINK = x(sinks=True)
WIDE = x(T=3, S=70)
FLOAT16 = x(dtype="float16")
BFLOAT16 = x(dtype="bfloat16")

EXAMPLES: dict[str, tuple[Example, Example]] = {
    # dropout
    "random.not_scaled": (DROP, ORDINARY),
    "random.multiplied_by_keep": (DROP, ORDINARY),
    "random.divided_by_rate": (DROP, x(dropout=0.5)),
    "random.keeps_the_dropped": (DROP, x(dropout=0.5)),
    "random.rate_on_a_grid": (DROP, x(dropout=0.25)),
    "random.one_mask_for_heads": (DROP, x(dropout=0.5, H=1, G=1)),
    "random.one_mask_for_batch": (DROP, x(dropout=0.5, B=1)),
    "random.one_mask_for_queries": (DROP, x(dropout=0.5, T=1)),
    "random.mask_repeats": (x(dropout=0.5, S=40), x(dropout=0.5, S=16)),
    "random.constant_seed": (DROP, ORDINARY),
    "random.seed_unread": (DROP, ORDINARY),
    "random.other_mask_backward": (replace(DROP, gradient=True), DROP),
    "random.undropped_backward": (replace(DROP, gradient=True), DROP),
    "random.backward_scaled_by_rate": (replace(DROP, gradient=True), DROP),
    "random.before_softmax": (DROP, ORDINARY),
    "random.on_the_output": (DROP, ORDINARY),
    "random.drops_causal": (x(dropout=0.4, causal=True), x(causal=True)),
    "random.ignored": (DROP, ORDINARY),
    # weights and log-sum-exp
    "output.weights_after_dropout": (x(dropout=0.4, need_weights=True), WEIGHTS),
    "output.weights_averaged": (WEIGHTS, x(need_weights=True, H=1, G=1)),
    "output.weights_of_first_sample": (WEIGHTS, x(need_weights=True, B=1)),
    "output.weights_not_divided": (WEIGHTS, x(need_weights=True, S=1)),
    "output.weights_unmasked": (x(need_weights=True, mask="TS"), WEIGHTS),
    "output.weights_transposed": (x(need_weights=True, S=5), WEIGHTS),
    "output.weights_tail_unwritten": (replace(WIDE, options={"need_weights": True}), x(need_weights=True, S=64)),
    "output.asking_drops_causal": (x(need_weights=True, causal=True), x(causal=True)),
    "output.asking_gives_nan": (x(need_weights=True, mask="TS", empty=(1,)), x(mask="TS", empty=(1,))),
    "output.asking_rounds": (WEIGHTS, LSE),
    "output.lse_base_two": (LSE, WEIGHTS),
    "output.lse_without_max": (LSE, x(return_lse=True, change=put("k", 0.0))),
    "output.lse_zero_if_empty": (x(return_lse=True, mask="TS", empty=(1,)), x(return_lse=True, mask="TS")),
    "output.lse_unscaled": (LSE, x(return_lse=True, scale=1.0)),
    "output.lse_by_group": (x(return_lse=True, G=2), x(return_lse=True, G=1)),
    "output.lse_path_drops_softcap": (x(return_lse=True, softcap=1.5), x(softcap=1.5)),
    # sinks
    "sinks.ignored": (SINK, ORDINARY),
    "sinks.mixed_in": (SINK, x(sinks=True, change=put("v", 0.0, ..., -1, slice(None)))),
    "sinks.once_per_key": (SINK, x(sinks=True, S=1)),
    "sinks.once_per_block": (x(sinks=True, S=40), x(sinks=True, S=32)),
    "sinks.scaled": (SINK, x(sinks=True, scale=1.0)),
    "sinks.capped": (x(sinks=True, softcap=1.0), SINK),
    "sinks.negated": (SINK, x(sinks=True, change=put("sinks", 0.0))),
    "sinks.by_row": (SINK, x(sinks=True, T=1)),
    "sinks.by_group": (x(sinks=True, G=2), SINK),
    "sinks.unshifted": (x(sinks=True, D=1, scale=1.0, change=shaped(30.0, 30.0)), ORDINARY),
    "sinks.lost_for_one_query": (x(sinks=True, T=1), SINK),
    "sinks.not_in_the_weights": (x(sinks=True, need_weights=True), SINK),
    "sinks.constant_backward": (x(sinks=True, gradient=True), SINK),
    # 16 bits
    "half.scores_overflow": (
        x(dtype="float16", D=1, change=shaped(300.0, 300.0), scale=1.0),
        x(dtype="bfloat16", D=1, change=shaped(300.0, 300.0), scale=1.0),
    ),
    "half.sum_overflows": (
        x(dtype="float16", change=lambda a: (a["k"].zero_(), a["v"].fill_(20000.0))),
        x(dtype="float16", S=1),
    ),
    "half.small_weights_flushed": (
        x(dtype="float16", D=1, S=2, scale=1.0, change=unlikely_but_large),
        x(dtype="bfloat16", D=1, S=2, scale=1.0, change=shaped(4.0, 6.0)),
    ),
    "half.exp_overflows": (x(dtype="float16", D=1, scale=1.0, change=shaped(4.0, 4.0)), BFLOAT16),
    "half.values_added_one_by_one": (x(dtype="bfloat16", S=1024, T=1, change=same_keys), x(dtype="bfloat16", S=1)),
    "half.denominator_one_by_one": (x(dtype="bfloat16", S=1024, T=1, change=same_keys), x(dtype="bfloat16", S=1)),
    "half.softmax_in_eight_bits": (x(dtype="bfloat16", size=2.0), x(dtype="bfloat16", S=1)),
    "half.bfloat16_as_float16": (x(dtype="bfloat16", change=put("v", 1e5)), x(dtype="bfloat16", change=put("v", 1.0))),
    "half.float16_as_bfloat16": (FLOAT16, BFLOAT16),
    "half.later_rows_not_causal": (x(dtype="float16", T=20, S=20, causal=True), x(dtype="float16", T=16, S=16, causal=True)),
    "half.tail_of_eight": (x(dtype="bfloat16", S=11), x(dtype="bfloat16", S=16)),
    "half.fill_is_finite": (x(dtype="float16", mask="TS", empty=(2,)), x(dtype="float16", mask="TS")),
    "half.heads_tiled": (x(dtype="bfloat16", G=2), x(dtype="float16", G=2)),
    "half.gradient_without_scale": (x(dtype="bfloat16", gradient=True), x(dtype="float16", gradient=True)),
    "half.lse_in_sixteen_bits": (x(dtype="float16", return_lse=True), LSE),
    # shapes of masks
    "rank.three_is_batch": (x(B=4, mask="HTS"), x(B=2, mask="HTS")),
    "rank.two_is_padding": (x(B=5, mask="TS"), x(B=2, mask="TS")),
    "rank.square_transposed": (x(S=5, mask="TS"), x(mask="TS")),
    "rank.one_is_ignored": (x(mask="S"), x(mask="1S")),
    "rank.single_row_ignored": (x(mask="111S"), x(mask="B11S")),
    "rank.key_axis_not_broadcast": (
        x(mask="T1", change=put("mask", False, 1)),  # query 1 sees nothing
        x(mask="TS"),
    ),
    "rank.heads_of_one_row": (x(mask="BH1S"), x(mask="B11S")),
    "rank.bias_needs_four": (x(bias="TS"), x(bias="11TS")),
    # masks and bias
    "mask.bias_threshold": (x(bias="TS", change=put("bias", -2.0, 1, 2)), x(bias="TS", change=put("bias", -1.5))),
    "mask.additive_empty_row_nan": (x(bias="TS", change=put("bias", float("-inf"), 1)), x(mask="TS", empty=(1,))),
    "mask.empty_row_keeps_previous": (x(mask="TS", empty=(2,)), x(mask="TS", empty=(0,))),
    "mask.causal_drops_bias": (x(bias="TS", causal=True), x(bias="TS")),
    # gradients
    "gradient.hidden_keys_leak": (x(mask="TS", gradient=True), x(gradient=True)),
    "gradient.first_query_only": (x(gradient=True), x(gradient=True, T=1)),
    "gradient.divides_by_scale": (x(gradient=True, scale=0.0), x(gradient=True, scale=0.5)),
    "gradient.queries_of_one_sample": (x(gradient=True), x(gradient=True, B=1)),
    "gradient.window_forgotten": (x(gradient=True, window=2), x(gradient=True)),
    "gradient.accumulates": (x(gradient=True, before=(x(gradient=True, draw=2),)), x(gradient=True)),
    # scale and soft cap
    "scale.max_before_scale": (x(scale=-300.0, D=1, change=shaped(3.0, 3.0)), x(scale=300.0, D=1, change=shaped(3.0, 3.0))),
    "scale.sign_lost": (x(scale=-0.5), x(scale=0.5)),
    "scale.root_of_negative": (x(scale=-0.5), x(scale=0.0)),
    "scale.default_under_cap": (x(scale=2.0, softcap=1.0), x(scale=2.0)),
    "scale.cap_lost_in_window": (x(window=3, softcap=0.5), x(softcap=0.5)),
    # softmax and precision
    "softmax.max_of_hidden": (
        x(mask="TS", D=1, scale=1.0, change=lambda a: (shaped(30.0, 60.0)(a), put("mask", False, ..., 0)(a))),
        x(D=1, scale=1.0, change=shaped(30.0, 60.0)),
    ),
    "softmax.exp_cubic": (ORDINARY, x(S=1)),
    "precision.tensor_cores_values": (x(dtype="float32"), ORDINARY),
    "precision.values_in_eight_bits": (ORDINARY, x(change=put("v", 0.0, ...))),
    "precision.keys_in_eight_bits": (ORDINARY, x(D=1)),
    # heads, batch, sizes
    "heads.bias_by_group": (x(G=2, bias="BHTS"), x(bias="BHTS")),
    "heads.grouped_drops_mask": (x(G=2, mask="TS"), x(mask="TS")),
    "batch.window_in_first": (x(window=2), x(window=2, B=1)),
    "batch.equal_to_heads": (x(B=4, bias="BHTS"), x(bias="BHTS")),
    "layout.full_block_shortened": (x(T=2, S=64), x(T=2, S=65)),
    "layout.last_queries_unwritten": (x(T=70, S=3), x(T=64, S=3)),
    "layout.diagonal_block_skipped": (x(T=130, S=130, H=1, G=1, causal=True), x(T=128, S=128, H=1, G=1, causal=True)),
    # memory
    "storage.inner_stride_unread": (x(storage={"k": "strided"}), x(storage={"k": "offset"})),
    "storage.offset_unread": (x(storage={"q": "offset"}), x(storage={"q": "strided"})),
    "storage.values_offset_unread": (x(storage={"v": "offset"}), x(storage={"v": "transposed"})),
    "storage.tail_of_expanded": (x(S=5, storage={"k": "expanded"}), x(S=6, storage={"k": "expanded"})),
    "storage.reads_past_the_end": (x(storage={"v": "poisoned"}), x(storage={"v": "transposed"})),
    "storage.output_in_queries": (x(E=3), x(E=4)),
    # state and surroundings
    "state.dtype_of_first_call": (x(before=(x(dtype="float32"),)), x(before=(x(draw=2),))),
    "state.mask_by_identity": (
        x(same_mask=True, mask="TS", before=(x(mask="TS", draw=2),)),
        x(mask="TS", before=(x(mask="TS"),)),
    ),
    "state.empty_rows_keep_last": (x(mask="TS", empty=(1,), before=(x(draw=2),)), x(mask="TS", empty=(1,))),
    "state.bias_kept": (x(before=(x(bias="TS"),)), x(before=(x(bias="TS", T=4),))),
    "state.default_dtype": (x(default="bfloat16"), ORDINARY),
    "state.rest_of_threads": (x(threads=4), x(threads=3)),
    "state.reseeds_everyone": (DROP, ORDINARY),
    "state.cap_lost_without_grad": (x(softcap=0.5, grad_mode=False), x(softcap=0.5)),
    # behaviour
    "robust.nan_reaches_all": (x(change=put("q", float("nan"), ..., 1, 0)), ORDINARY),
    "robust.hides_nan_values": (x(change=put("v", float("nan"), ..., 1, 0)), ORDINARY),
    "robust.cuts_longer_values": (x(change=widened("v", 2)), ORDINARY),
    "robust.cuts_wider_keys": (x(change=widened("k", 3)), ORDINARY),
    "robust.uneven_groups": (x(G=3), x(G=2)),
    "robust.zero_keys_nan": (x(S=0), x(S=1)),
}
