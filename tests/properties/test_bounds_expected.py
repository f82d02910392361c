"""What claims ask of the bounds: expected values under a profile's conventions, kept, and the precision that errors show."""

from typing import Any

import numpy as np
import pytest
import torch

from attnspec.properties import numbers, oracle
from attnspec.properties.bounds_classes import UNIT
from attnspec.properties.case import Inputs
from attnspec.properties.oracle import Kept, expected, expected_gradients, expected_lse, expected_weights
from attnspec.properties.precision_class import equivalent_bits, fitting_class
from attnspec.properties.subject import Profile, Setting
from attnspec.properties.verdict import Inapplicable

torch.set_num_threads(1)
PLAIN = Profile()
TORCH = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def profile(**settings: Any) -> Profile:
    return Profile(settings={name: Setting(value, "declared") for name, value in settings.items()})


def inputs(dtype: str = "float64", seed: int = 0, S: int = 7, **options: Any) -> Inputs:
    rng = np.random.default_rng(seed)
    q, k, v, sinks = (rng.normal(size=shape) for shape in ((2, 4, 3, 4), (2, 2, S, 4), (2, 2, S, 5), (4,)))
    held = [numbers.rounded(y, dtype) for y in (q, k, v, sinks)]
    return Inputs(*held[:3], sinks=held[3] if options.pop("sinks", False) else None, dtype=dtype, **options)


def by_hand(x: Inputs, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output, weights and log-sum-exp in the plainest way, one more column for a sink."""
    k, v = (y.repeat(2, axis=1) for y in (x.k, x.v))
    s = x.q @ k.swapaxes(-1, -2) / 2
    s = np.where(visible, s if x.softcap is None else x.softcap * np.tanh(s / x.softcap), -np.inf)
    if x.sinks is not None:
        s = np.concatenate([s, np.broadcast_to(x.sinks[:, None, None], (*s.shape[:3], 1))], axis=-1)
    e = np.exp(s)
    weights = (e / e.sum(-1, keepdims=True))[..., : k.shape[2]]
    return weights @ v, weights, np.log(e.sum(-1))


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_expected_values_with_sinks_are_those_of_one_more_column(sinks: bool, softcap: float | None) -> None:
    x = inputs(sinks=sinks, softcap=softcap, causal=True)
    wants = by_hand(x, np.tri(3, 7, dtype=bool))
    for found, want in zip((expected(PLAIN, x), expected_weights(PLAIN, x), expected_lse(PLAIN, x)), wants, strict=True):
        assert found.error.shape == want.shape
        assert (np.abs(found.out - want) <= found.error).all()
        assert np.isfinite(found.error).all()


def test_gradients_with_sinks_are_the_slopes_of_the_output() -> None:
    x, step = inputs(sinks=True, causal=True), 2.0**-17
    along = np.random.default_rng(1).normal(size=(2, 4, 3, 5))
    found = expected_gradients(PLAIN, x, along)
    for name in "qkv":
        array = getattr(x, name)
        for at in ((0, 0, 0, 0), (1, 1, 2, 3)):
            moved = np.zeros_like(array)
            moved[at] = step
            outs = [oracle.output(PLAIN, x.but(**{name: array + sign * moved})) for sign in (1, -1)]
            slope = ((outs[0] - outs[1]) * along).sum() / (2 * step)
            assert abs(slope - found[name].out[at]) <= 2.0**-26  # what differences at 2^-17 leave: step^2, and 2^-53 / step
            assert found[name].error.shape == array.shape


def test_a_row_that_sees_only_its_sink_is_zero_and_not_empty() -> None:
    x = inputs(sinks=True, mask=np.zeros((1, 1, 3, 7), dtype=bool))
    means = profile(empty_row="mean")
    assert (expected(means, x).out == 0).all()
    assert (expected_lse(means, x).out == x.sinks[:, None]).all()  # type: ignore[index]


def test_empty_rows_have_a_log_sum_exp_of_minus_infinity_and_the_weights_of_the_policy() -> None:
    mask = np.ones((1, 1, 3, 7), dtype=bool)
    mask[..., 1, :] = False
    x = inputs(mask=mask)
    lse = expected_lse(PLAIN, x)
    assert (lse.out[:, :, 1] == -np.inf).all()
    assert (lse.error[:, :, 1] == 0).all()
    assert (lse.error[:, :, [0, 2]] > 0).all()
    zero, mean = (expected_weights(profile(empty_row=policy), x) for policy in ("zero", "mean"))
    assert (zero.out[:, :, 1] == 0).all()
    assert (zero.error[:, :, 1] == 0).all()
    assert (mean.out[:, :, 1] == 1 / 7).all()
    assert (mean.error[:, :, 1] > 0).all()
    assert (zero.out[:, :, 0] == mean.out[:, :, 0]).all()


def test_a_log_sum_exp_returned_in_float32_is_bounded_more_tightly() -> None:
    x, fused = inputs("bfloat16"), profile(precision={"bfloat16": "fused"})
    assert (expected_lse(fused, x, "float32").error * 100 < expected_lse(fused, x).error).all()


def test_the_class_is_the_declared_one_or_the_widest() -> None:
    assert [oracle.precision(PLAIN, dtype).kind for dtype in UNIT] == ["wide", "wide", "stored-blocks", "stored-blocks"]
    assert oracle.precision(profile(precision={"bfloat16": "fused"}), "bfloat16").kind == "fused"
    assert oracle.precision(profile(precision={"bfloat16": "fused"}), "float16").kind == "stored-blocks"
    with pytest.raises(ValueError, match="precision='wide' in 'float16'"):
        oracle.precision(profile(precision={"float16": "wide"}), "float16")
    assert "class fused, u = 2^-8" in expected(profile(precision={"bfloat16": "fused"}), inputs("bfloat16")).why


@pytest.mark.parametrize("ask", [expected, expected_weights, expected_lse])
def test_what_lies_outside_a_bound_is_not_applicable(ask: Any) -> None:
    x = inputs("float16")
    for outside, why in (
        (x.but(q=x.q * 2.0**14), "P1"),
        (x.but(k=np.full_like(x.k, np.nan)), "P4"),
        (x.but(dropout=0.5), "drop"),
    ):
        with pytest.raises(Inapplicable, match=why):
            ask(PLAIN, outside)
    ask(profile(precision={"float16": "fused"}), x.but(q=x.q * 2.0**14))


def test_gradients_that_overflow_or_decide_nothing_are_not_applicable() -> None:
    x, along = inputs("float16"), np.ones((2, 4, 3, 5))
    with pytest.raises(Inapplicable, match="P3"):
        expected_gradients(PLAIN, x, 2.0**14 * along)
    with pytest.raises(Inapplicable, match="P3: a sum of gradients"):
        expected_gradients(PLAIN, x.but(k=x.k * 2.0**11, q=x.q * 2.0**-11), 2.0**7 * along)
    huge = inputs("float32")
    with pytest.raises(Inapplicable, match="factor e"):
        expected_gradients(PLAIN, huge.but(q=huge.q * 2.0**30), along)


def test_an_expected_value_is_worked_out_once_and_only_for_the_same_question() -> None:
    x, along = inputs(causal=True, softcap=2.0), np.ones((2, 4, 3, 5))
    assert expected(PLAIN, x) is expected(PLAIN, x.but(q=x.q.copy()))
    assert expected_gradients(PLAIN, x, along) is expected_gradients(PLAIN, x, along.copy())
    assert expected_gradients(PLAIN, x, along) is not expected_gradients(PLAIN, x, 2 * along)
    others = [
        x.but(q=x.q + 1), x.but(causal=False), x.but(scale=0.25), x.but(softcap=None), x.but(window=1),
        x.but(dtype="float32"), x.but(mask=np.tri(3, 7, dtype=bool)), x.but(bias=np.tri(3, 7)), x.but(sinks=np.zeros(4)),
    ]  # fmt: skip
    answers = [expected(PLAIN, y) for y in [x, *others]]
    answers += [expected(profile(alignment="bottom-right"), x), expected(profile(empty_row="mean"), x)]
    assert len({id(answer) for answer in answers}) == 12
    assert expected(PLAIN, x.but(seed=3, storage="strided")) is answers[0]
    with pytest.raises(ValueError, match="read-only"):
        answers[0].out[0] = 1


def test_what_is_kept_has_a_limit() -> None:
    kept = Kept(most=2, largest=100)
    asked = [kept.get(name, lambda name=name: name + "!", 1) for name in "abcab"]
    assert asked == ["a!", "b!", "c!", "a!", "b!"]
    assert len(kept.answers) == 2
    kept.get("large", lambda: "large", 101)
    assert "large" not in kept.answers


def computed(x: Inputs, inner: torch.dtype, weights: torch.dtype | None = None) -> np.ndarray:
    """Softmax attention in torch, computed in one format, its weights cast to another."""
    q, k, v = (torch.tensor(y).to(TORCH[x.dtype]).to(inner) for y in (x.q, x.k.repeat(2, axis=1), x.v.repeat(2, axis=1)))
    p = torch.softmax(q @ k.mT / x.q.shape[-1] ** 0.5, -1).to(weights or inner).to(inner)
    return (p @ v).to(TORCH[x.dtype]).double().numpy()


def samples(dtype: str, inner: torch.dtype, weights: torch.dtype | None = None) -> list[tuple[Inputs, np.ndarray]]:
    cases = [inputs(dtype, seed, S=4 + seed % 4 * 4) for seed in range(8)]
    return [(x, computed(x, inner, weights)) for x in cases]


@pytest.mark.parametrize(
    ("dtype", "inner", "kind", "bits"),
    [
        ("float64", "float64", "wide", 48),
        ("float64", "float32", None, 24),
        ("float32", "float32", "wide", 24),
        ("float32", "float16", None, 11.5),
        ("float32", "bfloat16", None, 8.5),
        ("bfloat16", "float32", "fused", 10),
        ("bfloat16", "bfloat16", "stored", 8.5),
        ("float16", "float16", "stored", 11.5),
    ],
)
def test_errors_show_the_class_and_the_precision(dtype: str, inner: str, kind: str | None, bits: float) -> None:
    seen = samples(dtype, TORCH[inner])
    found = equivalent_bits(PLAIN, seen)
    assert found is not None
    assert abs(found - bits) <= 2
    assert fitting_class(PLAIN, seen) == kind


def test_weights_in_bfloat16_show_in_float32() -> None:
    found = equivalent_bits(PLAIN, samples("float32", torch.float32, torch.bfloat16))
    assert found is not None
    assert 8 < found < 12


def test_wrong_answers_fit_no_class_and_no_samples_show_nothing() -> None:
    wrong = [(x, np.full_like(out, np.nan)) for x, out in samples("bfloat16", torch.float32)]
    assert fitting_class(PLAIN, wrong) is None
    assert equivalent_bits(PLAIN, wrong) is None
    assert fitting_class(PLAIN, []) is None
    assert equivalent_bits(PLAIN, []) is None
    mixed = [*samples("bfloat16", torch.float32), *samples("float16", torch.float32)]
    with pytest.raises(ValueError, match="several dtypes"):
        fitting_class(PLAIN, mixed)
