"""The versioned spec: which claims belong to which version, so that a library can say what it conforms to (engine 11).

A version is frozen once it is released. An id is never reused or renamed; a withdrawn one stays in its versions. The log of
what was added, tightened or withdrawn is in CHANGELOG.md.
"""

from __future__ import annotations

SPEC = "2026.12"  # the version that this package checks; not yet released, so claims may still be added to it

VERSIONS: dict[str, tuple[str, ...]] = {
    SPEC: (
        "softmax.constant-values",
        "softmax.dominant-score-selects",
        "softmax.equal-scores-average",
        "softmax.in-hull",
        "softmax.key-order",
        "softmax.query-order",
        "softmax.rows-sum-to-one",
        "softmax.shift-invariant",
        "scale.scales-queries",
        "scale.sqrt-dk",
        "scale.unit-variance",
        "scale.zero-averages",
        "heads.grouped-repeat",
        "heads.independent",
        "mask.bool-is-additive",
        "mask.causal",
        "mask.causal-is-triangle",
        "mask.composes-with-bias",
        "mask.empty-row",
        "mask.empty-row-alone",
        "mask.hidden-content",
        "mask.parallel-is-stepwise",
        "mask.window",
        "batch.neighbours-unseen",
        "grad.causal",
        "grad.reference",
        "robust.clear-refusal",
        "robust.deterministic",
        "robust.inputs-unchanged",
        "robust.no-exception",
        "robust.uniform-refusal",
        "convention.alignment",
        "convention.empty-row",
        "convention.layout",
        "convention.output-dtype",
        "convention.polarity",
        "convention.precision",
        "convention.window",
        "contract.promised",
        "reference.forward",
    ),
}
