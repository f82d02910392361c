"""Claims on gradients: they are the derivative, what was hidden gets none, and recording them changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from attnspec.properties.case import Case, Inputs, ValueKind
from attnspec.properties.claim import Source, claim
from attnspec.properties.claims.mask import SMALLEST
from attnspec.properties.compare import nonzero, same_bits, within
from attnspec.properties.oracle import expected, expected_gradients, output, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest
from attnspec.properties.verdict import Inapplicable

# Gains stay small: huge scores destroy P = exp(s - L) whatever the code does, and the bound is vacuous (docs/bounds.md).
SMALL = (1.0, 0.5)
SCORES: Mapping[str, tuple[ValueKind, ...]] = {"q": ("normal", "fine", "integers"), "k": ("normal", "fine", "integers")}


def as_if_all_visible(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """The backward pass knows neither mask nor causal flag nor window."""
    return honest.gradients(x.but(mask=None, bias=None, causal=False, window=None), cotangent)


def keys_halved(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """The gradient for keys is half of what it should be."""
    found = honest.gradients(x, cotangent)
    return found | {"k": found["k"] / 2}


def not_a_number_where_empty(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """A row that sees no key gets NaN for its query."""
    found = honest.gradients(x, cotangent)
    seen = visible(honest.profile, x).any(-1, keepdims=True)
    return found | {"q": np.where(seen, found["q"], np.nan)}


def halved_while_recording(honest: Honest, x: Inputs) -> FloatArray:
    """The output is halved while gradients are recorded."""
    return honest(x) / 2 if "gradients" in honest.need else honest(x)


@claim(
    "grad.causal",
    level="must",
    handle="MK2",
    idea="I25",
    source=Source("arXiv:1706.03762", "3.2.3"),
    needs=("gradients", "causal"),
    given=Cases(
        causal="always",
        square=True,
        mask="never",
        window="never",
        at_least={"T": 2, "S": 2, "D": 2},
        gains=SMALL,
        values={"q": ("normal",), "k": ("normal",), "v": ("normal",)},
    ),
    within="exact",
    about="causal",
    mutants=("mask.sees_next", "mask.minus_ten"),
    proof=("mask.triangle-is-prefix",),
    dtypes="all",
    gradient_twin=as_if_all_visible,
)
def jacobian_is_lower_triangular(subject: Attention, case: Case) -> None:
    """The gradient of output t is exactly zero for keys and values after t, and not zero for values up to t."""
    x = case.build()
    queries = x.q.shape[2]
    t = min(case.seed % queries, queries - 1)
    cotangent = np.zeros((*x.q.shape[:3], x.v.shape[3]))
    cotangent[:, :, t] = 1.0
    got = subject.vjp(x.q, x.k, x.v, cotangent, **x.options)
    for name, gradient in (("keys", got.k), ("values", got.v)):
        later = gradient[:, :, t + 1 :]
        same_bits(later, np.zeros_like(later), f"gradient of output {t} for {name} after {t}", live=later.size > 0)
    # What a value gets is its weight, summed over its group: one below the normal range may underflow.
    weights = output(subject.profile, x.but(v=np.broadcast_to(np.eye(queries), (*x.v.shape[:2], queries, queries))))[:, :, t]
    weights = weights.reshape(*x.v.shape[:2], -1, queries).sum(2)
    seen = np.broadcast_to((weights >= SMALLEST[case.dtype])[..., None], got.v.shape)
    nonzero(got.v, seen, f"gradient of output {t} for values up to {t}")


@claim(
    "grad.reference",
    level="must",
    handle="GR1",
    idea="I08",
    source=Source("arXiv:2205.14135", "B.2"),
    needs=("gradients",),
    given=Cases(
        sinks="drawn",
        gains=SMALL,
        values={"q": ("fine", "normal", "integers", "ties"), "k": ("fine", "normal", "integers", "ties")},
        storage="drawn",
        grid=True,
    ),
    within="bound",
    mutants=("gradient.always_causal", "gradient.empty_row_nan", "gradient.group_not_summed", "sinks.constant_backward"),
    proof=("softmax.jacobian", "softmax.backward"),
    dtypes="all",
    gradient_twin=keys_halved,
)
def gradients_agree(subject: Attention, case: Case) -> None:
    """The gradients for queries, keys and values are the float64 reference's within the derived bound."""
    x = case.build()
    cotangent = case.cotangent()
    got = subject.vjp(x.q, x.k, x.v, cotangent, **x.options)
    forward = expected(subject.profile, x)
    within(got.out, forward.out, forward.error, "output while gradients are recorded", why=forward.why)
    for name, want in expected_gradients(subject.profile, x, cotangent).items():
        within(getattr(got, name), want.out, want.error, f"gradient for {name}", why=want.why)


@claim(
    "grad.hidden",
    level="must",
    handle="GR4",
    idea="I29",
    source=Source("arXiv:2205.14135", "B.2"),
    needs=("gradients",),
    given=Cases(gains=SMALL, values=SCORES, empty="never"),
    within="exact",
    mutants=("gradient.hidden_keys_leak", "gradient.mask_forgotten", "gradient.window_forgotten", "mask.after_softmax"),
    proof=("mask.minus-infinity-hides",),
    dtypes="all",
    gradient_twin=as_if_all_visible,
)
def hidden_keys_get_none(subject: Attention, case: Case) -> None:
    """The gradient of one query's output is exactly zero for keys and values that the query may not see.

    A weight that is exactly zero annuls both factors. Whether a mask, a bias of -inf, the causal flag or a window hides.
    """
    x = case.build()
    t = (x.q.shape[2] - 1 - case.seed) % x.q.shape[2]  # a late row: a window hides early keys from it
    cotangent = np.zeros((*x.q.shape[:3], x.v.shape[3]))
    cotangent[:, :, t] = case.cotangent()[:, :, t]
    got, seen = subject.vjp(x.q, x.k, x.v, cotangent, **x.options), visible(subject.profile, x)[:, :, t]
    by_group = seen.reshape(seen.shape[0], x.k.shape[1], -1, seen.shape[2])
    shared = np.any(by_group, axis=2)[..., None]  # what any query head of the group sees
    for name, gradient in (("keys", got.k), ("values", got.v)):
        hidden = np.where(shared, 0.0, gradient)
        what = f"gradient of output {t} for {name} that query {t} may not see"
        same_bits(hidden, np.zeros_like(hidden), what, live=not bool(shared.all()))


@claim(
    "grad.empty-row",
    level="should",
    handle="MK12",
    idea="I25",
    source=Source("torch.nn.functional.scaled_dot_product_attention", "argument attn_mask"),
    needs=("gradients", "mask"),
    given=Cases(mask="always", empty="always", window="never", causal="never", gains=SMALL, values=SCORES),
    within="bound",
    promoted_by="empty_row",
    about="empty",
    mutants=("gradient.empty_row_nan", "mask.empty_row_nan"),
    proof=("mask.minus-infinity-hides",),
    dtypes="all",
    gradient_twin=not_a_number_where_empty,
)
def empty_row_has_no_gradient(subject: Attention, case: Case) -> None:
    """A query that may attend to nothing has a gradient of zero, and leaves all other gradients as they are.

    Where its output is not zero by convention, the cotangent is zero for it: what a row gives to nobody must not spoil the
    others. Must, if a convention for empty rows is declared or promised; one that declares NaN is not judged.
    """
    x = case.build()
    policy = subject.profile.get("empty_row" if x.bias is None else "empty_row_bias", subject.profile.get("empty_row"))
    if policy == "nan" and subject.profile.promises("empty_row"):
        raise Inapplicable("an empty row is declared to be NaN, and so are gradients through it")
    empty = ~visible(subject.profile, x).any(-1, keepdims=True)
    cotangent = case.cotangent() if policy == "zero" else np.where(empty, 0.0, case.cotangent())
    got, wants = subject.vjp(x.q, x.k, x.v, cotangent, **x.options), expected_gradients(subject.profile, x, cotangent)
    for name, want in wants.items():
        within(getattr(got, name), want.out, want.error, f"gradient for {name} beside an empty row", why=want.why)
    alone = np.where(empty, got.q, 0.0)
    same_bits(alone, np.zeros_like(alone), "gradient for the query of an empty row", live=bool(empty.any()))


@claim(
    "grad.output-unchanged",
    level="must",
    handle="IV9",
    idea="I08",
    source=Source("arXiv:2205.14135", "B.2"),
    needs=("gradients",),
    given=Cases(),
    within="bound",
    mutants=("state.bias_as_mask_without_grad", "state.dropout_left_on"),
    twin=halved_while_recording,
)
def recording_changes_nothing(subject: Attention, case: Case) -> None:
    """The output is the same with and without gradients recorded, though other code may compute it."""
    x = case.build()
    want = expected(subject.profile, x)
    recorded = subject.vjp(x.q, x.k, x.v, case.cotangent(), **x.options).out
    within(recorded, x.through(subject), 2 * want.error, "output while gradients are recorded", why=f"twice the {want.why}")


def values_halved(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """The gradient for values is half of what it should be."""
    found = honest.gradients(x, cotangent)
    return found | {"v": found["v"] / 2}


@claim(
    "grad.zero-scale",
    level="should",
    handle="GR1",
    idea="I19",
    source=Source("torch.nn.functional.scaled_dot_product_attention", "argument scale"),
    needs=("gradients", "scale"),
    given=Cases(scale="always", scales=(0.0,), causal="never", mask="never", window="never", softcap="never", gains=(1.0,)),
    within="bound",
    about="scale",
    mutants=("gradient.divides_by_scale",),
    gradient_twin=values_halved,
)
def zero_scale_has_gradients(subject: Attention, case: Case) -> None:
    """At scale = 0 queries and keys get no gradient and values an equal share of each row: nothing divides by the scale."""
    x, cotangent = case.build(), case.cotangent()
    got = subject.vjp(x.q, x.k, x.v, cotangent, **x.options)
    for name, want in expected_gradients(subject.profile, x, cotangent).items():
        within(getattr(got, name), want.out, want.error, f"gradient for {name} at scale = 0", why=want.why)
