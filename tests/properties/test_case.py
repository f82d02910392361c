"""Cases: the same arrays on every machine for ever, exact in every dtype, and files that are read strictly."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest

from attnspec.properties import numbers
from attnspec.properties.admitted import STORAGES
from attnspec.properties.case import (
    MASK_AXES,
    PEAK,
    Call,
    Case,
    CaseError,
    Mask,
    MaskKind,
    MaskPattern,
    Plant,
    Sizes,
    ValueKind,
    Values,
)

KINDS, PATTERNS = get_args(ValueKind), get_args(MaskPattern)
SIZES = Sizes(B=2, H=4, G=2, T=5, S=6, D=4, E=3)
SMALL = Case("mask.causal", "float64", Sizes(T=2, S=2), Call(causal=True), plant=(Plant("v", "after", 0, "one"),))
RICH = Case(
    claim="reference.forward",
    dtype="float32",
    sizes=Sizes(2, 4, 2, 3, 5, 4, 3),
    call=Call(scale=0.5, softcap=2.0),
    mask=Mask("bias", "random", 0.5, "B1TS", ((1, 2),)),
    values={"q": Values("heavy", 8.0), "k": Values("needle", 1.0, (1,)), "v": Values("fine", 0.5)},
    seed=17,
    storage="strided",
)
# Written down when builder 1 was made. If one of these changes, old case files no longer mean what they meant: make
# builder 2 instead.
SIGNED = [
    (SMALL, "f58b134e", "73d5531320c064df20abef4e64f1ac23910ee6718f83ee279314896ea21b2d7a"),
    (RICH, "90084df8", "2c44f38e14521d8b12ce044581b827e1bb92dc50dc7bc96948bebf7834463842"),
]


def case(**fields: object) -> Case:
    return Case(**({"claim": "reference.forward", "dtype": "float32", "sizes": SIZES, "seed": 3} | fields))


@pytest.mark.parametrize(("given", "short", "digest"), SIGNED, ids=["small", "rich"])
def test_id_and_digest_never_change(given: Case, short: str, digest: str) -> None:
    signed = given.signed()
    assert (signed.id, signed.sha256) == (short, digest)
    assert signed.signed() == signed


def test_the_canonical_form_is_written_down() -> None:
    assert SMALL.signed().canonical().decode() == (
        '{"builder":1,"call":{"causal":true,"dropout":0.0,"scale":null,"softcap":null,"window":null},"claim":"mask.causal",'
        '"dtype":"float64","format":"attnspec-case/1","mask":null,"plant":[{"array":"v","t":0,"value":"one","where":"after"}],'
        '"schedule":null,"seed":0,"sizes":{"B":1,"D":1,"E":1,"G":1,"H":1,"S":2,"T":2},"spec":"2026.12","storage":"plain",'
        '"values":{}}'
    )


def test_the_builder_gives_these_numbers_on_every_machine() -> None:
    assert numbers.words(17, "q", 3).tolist() == [4869938501619357829, 1084759871567339960, 5237277839977649720]
    assert numbers.below(10, 17, "q", (8,)).tolist() == [2, 0, 2, 4, 2, 4, 3, 0]
    assert numbers.normal(17, "q", (6,)).tolist() == [-0.625, -1.59375, -0.5625, -0.25, -0.75, -0.107421875]
    assert (numbers.low_bits(17, "q", (2,), "float32") * 2**22).tolist() == [118, 354]
    assert (numbers.low_bits(17, "q", (2,), "float64") * 2**51).tolist() == [118, 354]
    assert numbers.permutation(6, 17, "q").tolist() == [1, 4, 0, 2, 3, 5]


def test_the_table_is_that_of_the_normal_distribution() -> None:
    assert numbers.NORMAL.size == 255
    assert (-numbers.NORMAL[::-1] == numbers.NORMAL).all()
    assert (np.diff(numbers.NORMAL) >= 0).all()
    mantissas = np.frexp(numbers.NORMAL)[0] * 2**6
    assert (mantissas == np.trunc(mantissas)).all()  # 6 significant bits
    assert 0.98 < numbers.VARIANCE < 1.0


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_permutation_moves_something(n: int) -> None:
    for seed in range(40):
        order = numbers.permutation(n, seed, "k").tolist()
        assert sorted(order) == list(range(n))
        assert n == 1 or order != list(range(n))


def test_streams_of_different_names_differ() -> None:
    x = case().build()
    assert not np.array_equal(x.q.ravel()[:20], x.k.ravel()[:20])
    assert not np.array_equal(x.q, case(seed=4).build().q)


@pytest.mark.parametrize("given", [SMALL, RICH], ids=["small", "rich"])
def test_json_round_trip(given: Case) -> None:
    text = given.to_json()
    assert Case.from_json(text) == given.signed()
    assert Case.from_json(text).build().digest() == given.build().digest()
    assert Case.from_json(json.dumps(json.loads(text), sort_keys=True)) == given.signed()
    assert Case.from_json(text).to_json() == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gain", [1.0, 2.0, 0.5, 8.0, 64.0])
def test_values_are_exact_in_float32(kind: str, gain: float) -> None:
    how = dict.fromkeys("qkv", Values(kind, gain, (1, 4)))
    x = case(values=how).build()
    for name, array in zip("qkv", (x.q, x.k, x.v), strict=True):
        assert (array.astype(np.float32) == array).all(), name
        assert np.isfinite(array).all(), name
    assert (x.q.shape, x.k.shape, x.v.shape) == ((2, 4, 5, 4), (2, 2, 6, 4), (2, 2, 6, 3))


@pytest.mark.parametrize(
    ("kind", "has"),
    [
        ("zeros", lambda q: not q.any()),
        ("ones", lambda q: (q == 2).all()),
        ("one-hot", lambda q: ((q == 2).sum(-1) == 1).all() and (q.sum(-1) == 2).all()),
        ("integers", lambda q: (q / 2 == np.trunc(q / 2)).all() and len(np.unique(q)) > 2),
        ("constant", lambda q: (q == q[..., :1, :]).all() and len(np.unique(q)) > 2),
        ("ties", lambda q: (q[..., 2:, :] == q[..., :-2, :]).all() and (q[..., 0, :] != q[..., 1, :]).any()),
        ("normal", lambda q: len(np.unique(q)) > 40 and (np.abs(q) < 6).all()),
        ("fine", lambda q: (q.astype(np.float16) != q).any()),
        ("heavy", lambda q: (np.abs(q) > 20).any() and np.median(np.abs(q)) < 4),
        ("peak", lambda q: (q[..., 1, :] == 2 * PEAK).all() and (np.abs(np.delete(q, 1, axis=-2)) < 6).all()),
        ("needle", lambda q: np.abs(q[..., 1, :]).max() > 4 * np.abs(np.delete(q, 1, axis=-2)).max()),
    ],
)
def test_kinds_of_values(kind: str, has: object) -> None:
    assert has(case(values={"q": Values(kind, 2.0, (1,))}).build().q)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("axes", MASK_AXES)
@pytest.mark.parametrize("kind", get_args(MaskKind))
@pytest.mark.parametrize("call", [Call(), Call(causal=True), Call(window=2), Call(causal=True, window=1)], ids=str)
def test_no_row_is_emptied_by_accident(pattern: str, axes: str, kind: str, call: Call) -> None:
    if call.window and "T" not in axes:
        return  # such a mask cannot leave a key to every window; `strategies` makes none
    for seed in range(5):
        x = case(sizes=Sizes(2, 4, 2, 6, 6, 4, 3), mask=Mask(kind, pattern, 0.25, axes), call=call, seed=seed).build()
        shown = x.mask if kind == "bool" else x.bias
        keep = shown if kind == "bool" else ~np.isneginf(shown)
        t, s = np.arange(6)[:, None], np.arange(6)
        seen = keep & ((s <= t) if call.causal else True) & ((s <= t) & (t - s < call.window) if call.window else True)
        assert np.broadcast_to(seen, (2, 4, 6, 6)).any(-1).all()
        assert shown.ndim == len(axes)
        assert (x.mask is None) == (kind == "bias") != (x.bias is None)


@pytest.mark.parametrize(
    ("pattern", "has"),
    [
        ("none", lambda keep: keep.all()),
        ("padding", lambda keep: (keep[..., :-1] >= keep[..., 1:]).all() and not keep.all()),
        ("left-padding", lambda keep: (keep[..., :-1] <= keep[..., 1:]).all() and not keep.all()),
        ("prefix", lambda keep: (np.tril(keep) == np.tril(np.ones_like(keep))).all()),
        ("band", lambda keep: keep[..., 0, 0].all() and not keep[..., 0, -1].any()),
        ("random", lambda keep: 0.1 < keep.mean() < 0.9),
    ],
)
def test_patterns_of_masks(pattern: str, has: object) -> None:
    keep = case(mask=Mask("bool", pattern, 0.5, "BHTS"), sizes=Sizes(4, 2, 2, 7, 7)).build().mask
    assert keep.shape == (4, 2, 7, 7)
    assert has(keep)


def test_a_bias_is_finite_where_asked() -> None:
    hidden = case(mask=Mask("bias", "random", finite=-1024.0)).build().bias
    assert set(np.unique(hidden)) == {-1024.0, 0.0}
    assert len(np.unique(case(mask=Mask("bias", "normal")).build().bias)) > 40


def test_the_rows_named_are_empty_and_no_others() -> None:
    keep = case(mask=Mask("bool", "random", 0.5, "BHTS", ((1, 2),))).build().mask
    assert np.argwhere(~keep.any(-1)).tolist() == [[1, h, 2] for h in range(4)]
    shared = case(mask=Mask("bool", "random", 0.5, "TS", ((1, 2),))).build().mask
    assert np.argwhere(~shared.any(-1)).tolist() == [[2]]


@pytest.mark.parametrize("value", ["one", "redrawn", "huge"])
@pytest.mark.parametrize("array", ["k", "v"])
def test_a_plant_changes_every_number_and_stays_finite_in_float32(array: str, value: str) -> None:
    given = case(values={array: Values("normal", 8.0)})
    before = getattr(given.build(), array)
    after = given.redrawn(Plant(array, "all", 0, value), before)
    assert after.shape == before.shape
    assert np.isfinite(after.astype(np.float32)).all()
    assert ((after != before).mean() > 0.9) if value != "one" else (after == before + 1).all()
    assert value != "huge" or np.abs(after).min() > 50


@pytest.mark.parametrize("storage", STORAGES)
def test_storage_changes_no_number(storage: str) -> None:
    x, plain = case(storage=storage).build(), case().build()
    if storage == "expanded":  # one batch row stands for all
        assert all(
            (getattr(x, n) == getattr(plain, n)[:1]).all() and getattr(x, n).shape == getattr(plain, n).shape for n in "qkv"
        )
    else:
        assert x.digest() == plain.digest()
    assert case(storage=storage).signed().id != case(storage=STORAGES[STORAGES.index(storage) - 1]).signed().id


def test_no_keys_and_no_queries() -> None:
    assert case(sizes=Sizes(T=3, S=0), mask=Mask()).build().k.shape == (1, 1, 0, 1)
    assert case(sizes=Sizes(T=0, S=3)).build().q.shape == (1, 1, 0, 1)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c.update(extra=1), "unknown field `extra`"),
        (lambda c: c.update(format="attnspec-case/9"), "use a newer attnspec"),
        (lambda c: c.update(format=None), "this is not a case file"),
        (lambda c: c.update(builder=2), "builder=2"),
        (lambda c: c["sizes"].update(T=3), "the arrays built here have"),
        (lambda c: c["call"].update(causal="yes"), "Expected `bool`"),
        (lambda c: c["sizes"].update(T=-1), "T=-1"),
    ],
)
def test_a_file_that_cannot_be_used(edit: object, said: str) -> None:
    plain = json.loads(SMALL.to_json())
    edit(plain)
    with pytest.raises(CaseError, match=said):
        Case.from_json(json.dumps(plain))
