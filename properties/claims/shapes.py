"""Claims on shapes at the edge: axes of length zero, and inputs that do not fit each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import none_of, same_bits, within
from attnspec.properties.oracle import expected
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import NARROW, NARROW_KEYS, PRECISION, Attention, FloatArray, Profile, Setting
from attnspec.properties.twins import Honest
from attnspec.properties.verdict import BadResult, Refused, ValueFailure

SHAPES = Source("docs/conventions.md", "shapes")
# One shape, so that a library that compiles for each does so once; what is changed about it is the claim's own.
PLAIN = Cases(
    mask="never",
    window="never",
    scale="never",
    softcap="never",
    causal="never",
    empty="never",
    sizes={"B": 2, "H": 2, "T": 4, "S": 4, "D": 4, "E": 4},
    draws=2,
)


def counts_a_row_too_many(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: at least one query."""
    del honest
    return np.zeros((x.q.shape[0], x.q.shape[1], max(1, x.q.shape[2]), x.v.shape[3]))


def takes_anything(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: whatever does not fit is cut or repeated until it does."""
    del honest
    return np.zeros((*x.q.shape[:3], x.v.shape[3]))


@claim(
    "robust.zero-length",
    level="should",
    handle="RB1",
    idea="I16",
    source=SHAPES,
    needs=("non-causal",),
    given=PLAIN,
    within="exact",
    mutants=("shapes.no_keys_is_garbage",),
    twin=counts_a_row_too_many,
)
def zero_lengths_give_empty_outputs(subject: Attention, case: Case) -> None:
    """Without samples, queries or channels the output is empty, and without keys every row is an empty one; or it refuses."""
    for sizes in _without(subject.profile):
        x = case.but(sizes=msgspec.structs.replace(case.sizes, **sizes)).build()
        try:
            out = x.through(subject)
        except Refused:
            continue  # a clear error will do
        shape = (*x.q.shape[:3], x.v.shape[3])
        empty = subject.profile.get("empty_row", "zero")
        # An empty sum is zero whatever becomes of a row that a mask empties; a mean of no values is anybody's guess, and then
        # only the shape is looked at.
        right = empty not in ("zero", "nan") or (empty == "nan" and not out.any())
        known = {"zero": 0.0, "nan": np.nan}
        filled = out if out.shape == shape and right else np.full(shape, known.get(empty, 0.0))
        same_bits(out, filled, f"output at {' and '.join(f'{n} = 0' for n in sizes)}", live=True)


def _without(profile: Profile) -> Iterator[dict[str, int]]:
    if profile.offers("batch"):
        yield {"B": 0}
    if profile.offers("value-width"):
        yield {"E": 0}
    if profile.offers("rectangular"):
        yield from ({"T": 0}, {"S": 0})
    yield {"T": 0, "S": 0}


@claim(
    "robust.wrong-shapes",
    level="should",
    handle="RB2",
    idea="I16",
    source=SHAPES,
    needs=("non-causal",),
    given=PLAIN,
    within="exact",
    mutants=("shapes.shortest_wins", "shapes.mask_cut_to_fit", "robust.uneven_groups"),
    twin=takes_anything,
)
def wrong_shapes_are_refused(subject: Attention, case: Case) -> None:
    """Inputs that do not fit each other are refused, never cut or repeated: widths of q and k, lengths of k and v, masks.

    A size of one may stand for any number of samples or heads: nothing here demands that broadcasting is refused.
    """
    x = case.build()
    taken = []
    for what, wrong in _wrong(x, subject.profile):
        try:
            wrong.through(subject)
        except (Refused, ValueFailure):
            continue
        except BadResult:
            pass
        taken.append(what)
    none_of(tuple(taken), "inputs that do not fit each other and were taken")


@claim(
    "robust.mixed-dtypes",
    level="should",
    handle="RB2",
    idea="I16",
    source=Source("array API standard", "type promotion"),
    # Numbers that are exact in float16, so that only what is computed with them is rounded.
    given=dataclasses.replace(PLAIN, values=dict.fromkeys("qkv", ("normal", "integers", "ties")), gains=(1.0,)),
    needs=("non-causal",),
    within="bound",
    dtypes="float32",
    mutants=("shapes.bits_of_narrow_keys_are_integers", "shapes.narrow_values_lose_their_fractions"),
    twin=takes_anything,
)
def mixed_dtypes_are_refused_or_promoted(subject: Attention, case: Case) -> None:
    """Keys and values in float16 beside queries in float32 are refused, or give what their numbers give.

    Which of the two dtypes it is computed in is left to the subject, so the bound is that of float16 in its widest class.
    """
    x, profile = case.build(), subject.profile
    widest = msgspec.structs.replace(profile, settings=profile.settings | {"precision": Setting(dict(PRECISION), "default")})
    want = expected(widest, x.but(dtype=NARROW))
    try:
        got = x.result(subject, NARROW_KEYS).out
    except Refused:
        none_of((), "mixed dtypes that were taken")
        return
    within(got, want.out, want.error, f"output for keys and values in {NARROW}", why=want.why)


def _wrong(x: Inputs, profile: Profile) -> Iterator[tuple[str, Inputs]]:
    def longer(a: FloatArray, axis: int) -> FloatArray:
        return np.concatenate([a, a.take([0], axis=axis)], axis=axis)

    D, S = x.k.shape[3], x.k.shape[2]
    yield f"keys of width {D + 1} for queries of width {D}", x.but(k=longer(x.k, 3))
    yield f"{S + 1} values for {S} keys", x.but(v=longer(x.v, 2))
    yield f"{S + 1} keys for {S} values", x.but(k=longer(x.k, 2))
    if profile.offers("batch") and x.k.shape[0] > 1:
        yield (
            f"{x.k.shape[0] + 1} samples of keys and values for {x.k.shape[0]} of queries",
            x.but(k=longer(x.k, 0), v=longer(x.v, 0)),
        )
    if profile.offers("grouped"):
        two, three = np.repeat(x.k[:, :1], 2, axis=1), np.repeat(x.q[:, :1], 3, axis=1)
        yield "3 heads of queries for 2 of keys and values", x.but(q=three, k=two, v=np.repeat(x.v[:, :1], 2, axis=1))
    masks: dict[str, Any] = {}
    shape = (x.q.shape[2], S + 1)
    if profile.offers("mask") and "TS" in profile.get("mask_axes", ()):
        masks["mask"] = np.ones(shape, dtype=bool)
    if profile.offers("bias") and "TS" in profile.get("bias_axes", ()):
        masks["bias"] = np.zeros(shape)
    for name, mask in masks.items():
        yield f"a {name} for {S + 1} keys where there are {S}", x.but(**{name: mask})
