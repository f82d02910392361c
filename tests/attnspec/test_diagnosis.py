"""What is said of a violation: what it depends on, what it implies, which planted defects look like it, how exact it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest

from attnspec.auditor import Report, audit
from attnspec.causes import MOST, explain, kill_matrix, likely_causes
from attnspec.independence import Variation, summed_up, variations
from attnspec.properties.case import Call, Case, Mask, Plant, Sizes, Values
from attnspec.properties.claim import claims
from attnspec.properties.subject import Profile, Setting
from attnspec.properties.verdict import Record, Verdict
from attnspec.report.terminal import failure

torch = pytest.importorskip("torch")

from attnspec.properties.mutants.plain import attention, factor, plus, softmax_zero, visible  # noqa: E402
from attnspec.properties.mutants.registry import CANONICAL  # noqa: E402

DECLARED = {
    "alignment": "top-left",
    "empty_row": "zero",
    "polarity": "attend",
    "layout": "bhtd",
    "arrays": "torch",
    "dtypes": ("float64", "float32"),
    "mask": ("bool", "bias"),
}


def sees_next(s, mask, causal, window):
    return visible(s, mask, causal, window, future=1)


def unscaled(q, k, scale, softcap, bias):
    del softcap
    return plus((1.0 if scale is None else scale) * (q @ k.mT), bias)


def in_bfloat16(s):
    return softmax_zero(s).bfloat16().to(s.dtype)


def last_key_dropped_beyond_four(s):
    if s.shape[-1] > 4:
        s = s.clone()
        s[..., -1] = -torch.inf
    return softmax_zero(s)


def unscaled_heads(q, k, scale, softcap, bias):
    """Only beside other heads is the scale forgotten."""
    right = factor(q, scale) if q.shape[1] == 1 else 1.0 if scale is None else scale
    del softcap
    return plus(right * (q @ k.mT), bias)


def planted(**pieces: Callable) -> Callable:
    """Attention with these pieces replaced."""

    def function(q, k, v, *, mask=None, bias=None, causal=False, scale=None, window=None, softcap=None):
        return attention(q, k, v, mask=mask, bias=bias, causal=causal, scale=scale, window=window, softcap=softcap, **pieces)

    function.__signature__ = CANONICAL  # type: ignore[attr-defined]
    function.__attnspec__ = DECLARED  # type: ignore[attr-defined]
    return function


DEFECTS = {
    "see": {"see": sees_next},
    "scale": {"score": unscaled},
    "see and scale": {"see": sees_next, "score": unscaled},
    "bfloat16": {"softmax": in_bfloat16},
    "five keys": {"softmax": last_key_dropped_beyond_four},
    "heads": {"score": unscaled_heads},
}


FEW = (
    "mask.causal",
    "mask.parallel-is-stepwise",
    "mask.bool-is-additive",
    "softmax.in-hull",
    "softmax.rows-sum-to-one",
    "scale.sqrt-dk",
    "scale.unit-variance",
    "batch.neighbours-unseen",
    "heads.independent",
    "reference",
)


@cache
def audited(defect: str, *select: str) -> Report:
    return audit(planted(**DEFECTS[defect]), select=select)


def root(defect: str, claim: str, *select: str) -> Record:
    """The violation of the claim in the first dtype."""
    return next(r for r in audited(defect, *(select or (claim,))).violations if r.claim == claim)


# What it depends on


def test_a_mask_off_by_one_depends_on_no_values_and_no_sizes() -> None:
    found = root("see", "mask.causal").depends
    assert found is not None
    assert not {text for text in found.on if "size" in text or "seed" in text}
    assert "in float32" in found.not_on
    assert "for other seeds (5 of 5)" in found.not_on
    assert "for other values of q, k, v" in found.not_on
    assert "with gradients recorded" in found.not_on
    assert any(text.startswith("with larger B, H, T = S") for text in found.not_on)


def test_a_missing_scale_depends_on_the_width_and_the_scores() -> None:
    found = root("scale", "reference.forward").depends
    assert found is not None
    assert "with D = 1" in found.on  # 1/sqrt(1) is no scale either
    assert {"with q zero", "with k zero"} <= set(found.on)  # then there are no scores to scale


def test_a_fifth_key_depends_on_the_number_of_keys() -> None:
    found = root("five keys", "reference.forward").depends
    assert found is not None
    assert {"with S = 4", "for S < 5"} & set(found.on)
    assert any("S" in text for text in found.not_on if text.startswith("with larger"))


def test_a_defect_of_several_heads_is_gone_with_one() -> None:
    record = root("heads", "reference.forward")
    assert record.case is not None
    assert record.case.sizes.H > 1
    assert record.depends is not None
    assert "with one head" in record.depends.on


def test_only_what_nothing_implies_is_run_again() -> None:
    report = audited("see", *FEW)
    implied = [r for r in report.violations if r.implied_by]
    assert implied
    assert all(r.depends is None for r in implied)


CASE = Case("mask.causal", "float64", Sizes(T=2, S=2), Call(causal=True), plant=(Plant("k", "after"), Plant("v", "after")))


def profile(*lacking: str) -> Profile:
    offered = ("batch", "heads", "causal", "non-causal", "mask", "bias", "rectangular", "value-width", "scale", "gradients")
    known = dict.fromkeys((*offered, "causal-rectangular", "causal-tall", "mask-and-causal"))
    return Profile({"dtypes": Setting(("float64", "float32"), "default")}, known | dict.fromkeys(lacking, "not offered"))


def test_a_variation_stays_within_the_claim() -> None:
    tried = list(variations(CASE, claims()["mask.causal"], profile()))
    assert all(v.case.call.causal for v in tried)
    assert all(v.case.sizes.T == v.case.sizes.S >= 2 for v in tried)
    assert all(p.t <= v.case.sizes.T - 2 for v in tried for p in v.case.plant)
    assert 15 <= len(tried) <= 40


def test_a_variation_stays_within_what_the_subject_offers() -> None:
    case = Case("reference.forward", "float64", Sizes(T=2, S=2, D=2, E=2), mask=Mask("bool"))
    tried = list(
        variations(case, claims()["reference.forward"], profile("batch", "heads", "value-width", "rectangular", "bias"))
    )
    assert {(v.case.sizes.B, v.case.sizes.H) for v in tried} == {(1, 1)}
    assert all(v.case.sizes.D == v.case.sizes.E and v.case.sizes.T == v.case.sizes.S for v in tried)
    assert all(v.case.mask is None or v.case.mask.kind == "bool" for v in tried)
    assert not any(v.case.call.window or v.case.call.softcap for v in tried)
    assert [v for v in tried if v.recorded]
    assert not [v for v in variations(case, claims()["reference.forward"], profile("gradients")) if v.recorded]


def test_fields_with_one_answer_are_named_once() -> None:
    def tried(field: str, text: str, **sizes: int) -> Variation:
        return Variation(field, text, CASE.but(sizes=Sizes(**({"T": 2, "S": 2} | sizes))))

    found = summed_up(
        CASE,
        [
            (tried("seed", "for seed 1"), True),
            (tried("seed", "for seed 2"), False),
            (tried("values q", "with q random"), True),
            (tried("values k", "with k random"), True),
            (tried("size B", "with B = 2", B=2), True),
            (tried("size D", "with D = 2", D=2), True),
            (tried("size D", "with D = 4", D=4), False),
            (tried("dtype", "in float32"), False),
        ],
    )
    assert found.not_on == ("for other seeds (1 of 2)", "with D = 2", "for other values of q, k", "with larger B")
    assert found.on == ("with D = 4", "in float32")
    assert found.runs == 8


# What it implies


def test_the_most_direct_violation_implies_the_others() -> None:
    by_claim = {r.claim: r.implied_by for r in audited("see", *FEW).violations}
    assert by_claim["mask.causal"] is None
    assert by_claim["reference.forward"] == "mask.causal"


MATRIX = {
    "mask.sees_next": ["mask.causal", "mask.parallel-is-stepwise", "softmax.in-hull", "reference.forward"],
    "mask.minus_ten": ["mask.causal", "mask.bool-is-additive", "softmax.in-hull", "reference.forward"],
    "scale.missing": ["scale.sqrt-dk", "scale.unit-variance", "reference.forward"],
    "softmax.epsilon": ["softmax.rows-sum-to-one", "scale.sqrt-dk", "reference.forward"],
    "batch.leak": ["batch.neighbours-unseen", "reference.forward"],
    "heads.merged": ["heads.independent", "reference.forward"],
}


def again(report: Report, monkeypatch: pytest.MonkeyPatch, matrix: dict[str, list[str]]) -> dict[str, Record]:
    """The violations by claim, explained with this matrix."""
    monkeypatch.setattr("attnspec.causes.kill_matrix", lambda: matrix)
    records = copy.deepcopy(report.records)
    explain(records)
    return {r.claim: r for r in records if r.verdict is Verdict.VIOLATED}


def test_a_second_defect_is_not_folded_under_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = again(audited("see and scale", *FEW), monkeypatch, MATRIX)
    roots = {claim: r.causes[0][0] for claim, r in found.items() if not r.implied_by}
    assert roots == {"mask.causal": "mask.sees_next", "scale.sqrt-dk": "scale.missing"}
    assert found["scale.unit-variance"].implied_by == "scale.sqrt-dk"
    assert found["mask.parallel-is-stepwise"].implied_by == "mask.causal"


def test_what_no_defect_violates_together_is_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    report = audited("scale", *FEW)
    assert again(report, monkeypatch, MATRIX)["scale.unit-variance"].implied_by == "scale.sqrt-dk"
    apart = MATRIX | {"scale.missing": ["scale.sqrt-dk", "reference.forward"], "scale.other": ["scale.unit-variance"]}
    assert again(report, monkeypatch, apart)["scale.unit-variance"].implied_by is None
    unknown = MATRIX | {"scale.missing": ["scale.sqrt-dk", "reference.forward"]}  # a claim that no defect violates yet
    assert again(report, monkeypatch, unknown)["scale.unit-variance"].implied_by == "scale.sqrt-dk"


def test_what_the_best_cause_does_not_violate_is_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = again(
        audited("see", *FEW),
        monkeypatch,
        MATRIX | {"mask.sees_next": ["mask.causal", "softmax.in-hull", "reference.forward"], "mask.b": ["mask.causal"],
                  "mask.c": ["mask.causal", "mask.parallel-is-stepwise", *(m for m in MATRIX["batch.leak"]), *FEW[4:8]]},
    )  # fmt: skip
    assert found["mask.parallel-is-stepwise"].implied_by is None
    assert found["reference.forward"].implied_by == "mask.causal"


# Which planted defects look like it


def test_causes_rank_by_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = {"a.same": ["x", "y"], "a.one_less": ["x"], "a.one_more": ["x", "y", "z"], "a.none": [], "a.other": ["z"]}
    monkeypatch.setattr("attnspec.causes.kill_matrix", lambda: matrix)
    assert likely_causes({"x", "y"}, {"z"}) == [("a.same", 3, 3), ("a.one_more", 2, 3)]
    assert likely_causes({"x", "y"}, {"z"}, named={"a.one_less"}) == [("a.same", 3, 3), ("a.one_less", 2, 3)]
    assert likely_causes({"x", "new"}, {"y", "z"}) == [("a.one_less", 3, 3), ("a.same", 2, 3)]  # new claims say nothing yet
    assert likely_causes({"x", "y", "z"}, set(), group={"z"}) == [("a.one_more", 3, 3), ("a.other", 3, 3)]
    matrix |= {"a.p": ["p", "x"], "a.q": ["q"], "a.r": ["r"]}
    assert likely_causes({"p", "q", "r", "z"}, {"x", "y"}) == []  # the best shares one of four


def test_ties_are_all_kept_and_too_many_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnspec.causes.kill_matrix", lambda: {f"a.m{i}": ["x"] for i in range(MOST)})
    assert len(likely_causes({"x"}, {"y"})) == MOST
    monkeypatch.setattr("attnspec.causes.kill_matrix", lambda: {f"a.m{i}": ["x"] for i in range(MOST + 1)})
    assert likely_causes({"x"}, {"y"}) == []


def test_the_text_says_how_many_defects_have_the_pattern() -> None:
    report = audited("see", *FEW)
    record = next(r for r in report.violations if r.claim == "mask.causal")
    record.causes = [(mutant, 2, 2) for mutant in list(kill_matrix())[:4]]
    text = failure([record], report)
    assert text is not None
    assert "Likely cause (3 of 4 planted defects with exactly this pattern" in text
    record.causes = [("mask.sees_next", 1, 2)]
    assert "(planted defects with the nearest pattern" in (failure([record], report) or "")
    record.causes = []
    assert "Likely cause" not in (failure([record], report) or "")


# How exact it is


def test_weights_in_bfloat16_are_named() -> None:
    record = root("bfloat16", "reference.forward")
    assert record.decided_by == "bound"
    assert record.equivalent_precision is not None
    assert 7 < record.equivalent_precision < 11
    assert record.fits == "bfloat16 inside"
    text = failure([record], audited("bfloat16", "reference.forward"))
    assert text is not None
    assert "(float64 has 53): bfloat16 inside?" in text


def test_a_wrong_answer_is_not_called_inexact() -> None:
    record = root("five keys", "reference.forward")
    assert record.equivalent_precision is None
    assert record.fits is None


def test_the_text_has_dependence_and_what_is_implied() -> None:
    report = audited("see", *FEW)
    records = report.by_claim()["mask.causal"]
    text = failure(records, report) or ""
    assert "Also fails float32" in text
    assert "Fails too  for other seeds (5 of 5)" in text
    assert "Implies    " in text
    assert "reference.forward" in text.partition("Implies    ")[2].partition("Likely")[0]


def test_values_of_a_case_are_varied_in_kind() -> None:
    case = Case("reference.forward", "float64", Sizes(T=2, S=2), values={"q": Values("zeros")})
    kinds = {
        v.case.values["q"].kind for v in variations(case, claims()["reference.forward"], profile()) if v.field == "values q"
    }
    assert {"normal", "one-hot"} <= kinds
    assert "zeros" not in kinds
