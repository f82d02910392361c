"""Laws of the gradient: those of attention, carried over to its derivative."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case, Inputs, ValueKind
from attnspec.properties.claim import Source, claim
from attnspec.properties.claims.scores import taken
from attnspec.properties.compare import same_bits, within
from attnspec.properties.oracle import expected, expected_gradients
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray, Gradients
from attnspec.properties.twins import Honest

FLASH = Source("arXiv:2205.14135", "B.2")
SMALL = (1.0, 0.5)  # huge scores destroy exp(s - lse) whatever the code does
NORMAL: Mapping[str, tuple[ValueKind, ...]] = {"q": ("normal", "integers"), "k": ("normal", "integers"), "v": ("normal",)}


def values_by_next_query(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """The gradient for values belongs to the neighbour of each key."""
    found = honest.gradients(x, cotangent)
    return found | {"v": found["v"][:, :, ::-1] / 2}


def without_row_sum(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """dS lacks the term that makes its rows sum to zero."""
    found, weights = honest.gradients(x, cotangent), honest.weights(x)
    times = x.q.shape[1] // x.k.shape[1]
    k, v = np.repeat(x.k, times, axis=1), np.repeat(x.v, times, axis=1)
    scale = x.scale or honest.profile.get("scale") or x.q.shape[3] ** -0.5
    return found | {"q": scale * (weights * (cotangent @ v.swapaxes(-1, -2))) @ k}


def first_key_halved(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """The first key gets half of its gradient."""
    found = honest.gradients(x, cotangent)
    half = np.where(np.arange(x.k.shape[2])[:, None] == 0, 0.5, 1.0)
    return found | {"k": found["k"] * half, "v": found["v"] * half}


def mean_of_group(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """Grouped heads get the mean of their query heads' gradients where the sum is meant."""
    found = honest.gradients(x, cotangent)
    times = x.q.shape[1] // x.k.shape[1]
    return found | {"k": found["k"] / times, "v": found["v"] / times}


def cotangent_clipped(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """The cotangent is clipped to [-1, 1]."""
    return honest.gradients(x, np.clip(cotangent, -1.0, 1.0))


@claim(
    "grad.values-by-weights",
    level="must",
    handle="GR3",
    idea="I20",
    source=FLASH,
    needs=("gradients",),
    given=Cases(gains=SMALL, values=NORMAL, identity=True, empty="never"),
    within="bound",
    mutants=("gradient.always_causal",),
    proof=("grad.linear-map", "softmax.backward"),
    gradient_twin=values_by_next_query,
)
def values_by_weights(subject: Attention, case: Case) -> None:
    """The gradient for values is the transposed weights times the cotangent, with the weights of the subject itself.

    One-hot values make its output the weights; the gradient for values does not depend on the values.
    """
    x, cotangent = case.build(), case.cotangent()
    got, want = subject.vjp(x.q, x.k, x.v, cotangent, **x.options), expected(subject.profile, x)
    groups = (*x.k.shape[:2], -1)

    def summed(weights: FloatArray, of: FloatArray) -> FloatArray:
        """sum over queries and over the query heads of a group"""
        product = weights.swapaxes(-1, -2) @ of
        total: FloatArray = product.reshape(*groups, *product.shape[2:]).sum(2)
        return total

    gradient = expected_gradients(subject.profile, x, cotangent)["v"]
    within(
        got.v,
        summed(x.through(subject), cotangent),
        gradient.error + summed(want.error, np.abs(cotangent)),
        "gradient for v against the weights, transposed, times the cotangent",
        why=f"{gradient.why}, and the bound of the weights times |cotangent|",
    )


@claim(
    "grad.equal-keys",
    level="must",
    handle="GR3",
    idea="I20",
    source=FLASH,
    needs=("gradients",),
    given=Cases(
        gains=SMALL, values={"q": ("normal",), "k": ("constant",), "v": ("normal",)}, empty="never", at_least={"S": 2}
    ),
    within="bound",
    mutants=("gradient.no_row_sum",),
    proof=("softmax.jacobian", "softmax.backward"),
    dtypes="all",
    gradient_twin=without_row_sum,
)
def equal_keys_give_queries_none(subject: Attention, case: Case) -> None:
    """Where all keys are equal, the gradient for queries is zero: the gradients of a row's scores sum to zero."""
    x, cotangent = case.build(), case.cotangent()
    want = expected_gradients(subject.profile, x, cotangent)["q"]
    got = subject.vjp(x.q, x.k, x.v, cotangent, **x.options)
    within(got.q, np.zeros_like(want.out), want.error, "gradient for q where all keys are equal", why=want.why)


@claim(
    "grad.key-order",
    level="must",
    handle="GR5",
    idea="I27",
    source=Source("arXiv:1810.00825", "3.1"),
    needs=("gradients",),
    given=Cases(causal="never", window="never", gains=SMALL, values=NORMAL, at_least={"S": 2}),
    within="bound",
    mutants=("gradient.always_causal",),
    proof=("softmax.permuted-attention",),
    gradient_twin=first_key_halved,
)
def gradients_follow_the_keys(subject: Attention, case: Case) -> None:
    """Permuting keys with their values and mask columns permutes their gradients and leaves that of the queries."""
    x, cotangent = case.build(), case.cotangent()
    order = numbers.permutation(x.k.shape[2], case.seed, "order")
    before, after = (subject.vjp(y.q, y.k, y.v, cotangent, **y.options) for y in (x, taken(x, order)))
    wants = expected_gradients(subject.profile, x, cotangent)
    for name, columns in (("q", slice(None)), ("k", order), ("v", order)):
        within(
            getattr(after, name),
            getattr(before, name)[:, :, columns],
            2 * wants[name].error[:, :, columns],
            f"gradient for {name} where keys are permuted",
            why=f"twice the {wants[name].why}",
        )


@claim(
    "grad.grouped-sum",
    level="must",
    handle="GR5",
    idea="I22",
    source=Source("arXiv:2305.13245", "2.2"),
    needs=("gradients", "heads", "grouped"),
    given=Cases(grouped="always", gains=SMALL, values=NORMAL),
    within="bound",
    about="grouped",
    mutants=("gradient.group_not_summed", "heads.tiled"),
    gradient_twin=mean_of_group,
)
def groups_sum_their_gradients(subject: Attention, case: Case) -> None:
    """The gradient of a shared key/value head is the sum of what its copies get, one for each query head."""
    x, cotangent = case.build(), case.cotangent()
    groups = x.k.shape[1]
    times = x.q.shape[1] // groups
    repeated = x.but(k=np.repeat(x.k, times, axis=1), v=np.repeat(x.v, times, axis=1))
    got, apart = (subject.vjp(y.q, y.k, y.v, cotangent, **y.options) for y in (x, repeated))
    wants, each = (expected_gradients(subject.profile, y, cotangent) for y in (x, repeated))

    def summed(a: FloatArray) -> FloatArray:
        total: FloatArray = a.reshape(a.shape[0], groups, times, *a.shape[2:]).sum(2)
        return total

    for name in "kv":
        within(
            getattr(got, name),
            summed(getattr(apart, name)),
            wants[name].error + summed(each[name].error),
            f"gradient for {name} of grouped heads against the sum over repeated ones",
            why=f"{wants[name].why}, and the same for each copy",
        )


@claim(
    "grad.cotangent-scales",
    level="must",
    handle="GR6",
    idea="I08",
    source=FLASH,
    needs=("gradients",),
    given=Cases(gains=SMALL, values=NORMAL, empty="never"),
    within="exact",
    mutants=("gradient.accumulates",),
    proof=("grad.linear-map",),
    dtypes="all",
    gradient_twin=cotangent_clipped,
)
def cotangent_scales(subject: Attention, case: Case) -> None:
    """A cotangent times a power of two gives the gradients times that power, bit for bit.

    Only exponents change. In float16 small gradients lose bits to underflow, so that there the bound decides.
    """
    x, cotangent = case.build(), case.cotangent()
    once, often = (subject.vjp(x.q, x.k, x.v, c, **x.options) for c in (cotangent, 16.0 * cotangent))
    exact = x.dtype != "float16" and subject.profile.get("deterministic", True)
    for name in "qkv":
        got, want, what = getattr(often, name), 16.0 * getattr(once, name), f"gradient for {name} at 16 times the cotangent"
        if exact:
            same_bits(got, want, what, live=bool(cotangent.any()))
        else:
            small, large = (expected_gradients(subject.profile, x, c)[name] for c in (cotangent, 16.0 * cotangent))
            within(got, want, 16.0 * small.error + large.error, what, why=f"17 times the {small.why}")


@claim(
    "grad.cotangents-add",
    level="must",
    handle="GR6",
    idea="I08",
    source=FLASH,
    needs=("gradients",),
    given=Cases(gains=SMALL, values=NORMAL, empty="never"),
    within="bound",
    mutants=("gradient.accumulates", "gradient.rounded_early"),
    proof=("grad.linear-map",),
    gradient_twin=cotangent_clipped,
)
def cotangents_add(subject: Attention, case: Case) -> None:
    """The gradients for the sum of two cotangents are the sums of their gradients. Small integers make the sum exact."""
    x = case.build()
    first = np.trunc(2.0 * case.cotangent())
    second = np.trunc(2.0 * numbers.normal(case.seed, "cotangent/other", first.shape))
    found: list[Gradients] = []
    errors: list[dict[str, FloatArray]] = []
    for cotangent in (first, second, first + second):
        found.append(subject.vjp(x.q, x.k, x.v, cotangent, **x.options))
        wants = expected_gradients(subject.profile, x, cotangent)
        errors.append({name: want.error for name, want in wants.items()})
    for name in "qkv":
        one, other, both = (getattr(g, name) for g in found)
        allowed = errors[0][name] + errors[1][name] + errors[2][name]
        within(
            both, one + other, allowed, f"gradient for {name} of a sum of cotangents", why=f"sum of three {wants[name].why}"
        )
