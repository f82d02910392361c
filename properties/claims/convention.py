"""Claims on conventions: what is declared or promised is what probing finds (engine 2).

They have no cases of their own: probing and the cases of other claims decide them.
"""

from __future__ import annotations

from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.subject import Attention

ENGINE = Source("docs/conventions.md")


@claim(
    "convention.layout",
    level="must",
    handle="RB2",
    idea="I22",
    source=ENGINE,
    within="observed",
    mutants=("robust.positions_before_heads", "heads.merged_without_transpose"),
)
def layout_is_as_declared(subject: Attention, case: Case) -> None:
    """The order of axes is the declared one."""


@claim(
    "convention.polarity",
    level="may",
    handle="MK6",
    idea="I25",
    source=ENGINE,
    needs=("mask",),
    within="observed",
    promoted_by="polarity",
    mutants=("robust.true_means_hidden",),
)
def true_means_may_attend(subject: Attention, case: Case) -> None:
    """In a boolean mask True means that a key may be attended to, or what is declared."""


@claim(
    "convention.mask",
    level="must",
    handle="MK6",
    idea="I25",
    source=ENGINE,
    within="observed",
    mutants=("mask.added_as_number", "mask.multiplied"),
)
def masks_are_of_the_kinds_declared(subject: Attention, case: Case) -> None:
    """Masks of the kinds that are declared or promised, boolean or additive, are read as such."""


@claim(
    "convention.causal",
    level="must",
    handle="MK1",
    idea="I25",
    source=ENGINE,
    within="observed",
    mutants=("declared.always_causal",),
)
def causality_is_as_declared(subject: Attention, case: Case) -> None:
    """A function that is declared to be always causal is so without being asked."""


@claim(
    "convention.scale",
    level="must",
    handle="SC1",
    idea="I20",
    source=ENGINE,
    within="observed",
    mutants=("declared.scale_of_another_width",),
)
def default_scale_is_as_declared(subject: Attention, case: Case) -> None:
    """Without a scale argument the scores are multiplied by the scale that is declared."""


@claim(
    "convention.group-order",
    level="must",
    handle="MH3",
    idea="I22",
    source=ENGINE,
    needs=("grouped",),
    within="observed",
    mutants=("heads.tiled", "heads.values_tiled"),
)
def groups_are_ordered_as_promised(subject: Attention, case: Case) -> None:
    """With fewer key/value heads, query head h reads key/value head h // (H / G), where the contract promises that."""


@claim(
    "convention.dropout",
    level="may",
    handle="ST1",
    idea="I28",
    source=ENGINE,
    within="observed",
    promoted_by="dropout",
    mutants=("random.ignored",),
)
def dropout_has_an_effect(subject: Attention, case: Case) -> None:
    """A dropout rate that is accepted drops weights."""


@claim(
    "convention.consistent",
    level="should",
    handle="MK11",
    idea="I25",
    source=ENGINE,
    within="observed",
    mutants=("mask.key_padding_inverted", "mask.single_query_sees_all", "mask.empty_row_mean", "batch.all_empty_is_unmasked"),
)
def conventions_are_the_same_everywhere(subject: Attention, case: Case) -> None:
    """Polarity, alignment, empty rows and windows are the same in every dtype, at every size, for every kind of mask.

    Probing looks in each dtype, with one query, with fewer and with more queries than keys, in each storage and each shape
    of mask, with and without gradients, and with an empty row, a sample without keys and a batch without keys. It is a must
    where what differs is declared or promised.
    """


@claim(
    "convention.alignment",
    level="must",
    handle="MK10",
    idea="I25",
    source=ENGINE,
    needs=("causal-rectangular",),
    within="observed",
    mutants=("mask.bottom_right", "mask.chunk_bottom_right", "mask.causal_needs_mask"),
)
def alignment_is_as_declared(subject: Attention, case: Case) -> None:
    """Where T and S differ, the causal flag is aligned as declared or promised."""


@claim(
    "convention.empty-row",
    level="must",
    handle="MK11",
    idea="I25",
    source=ENGINE,
    needs=("mask",),
    within="observed",
    mutants=("mask.empty_row_nan", "mask.empty_row_mean", "mask.minus_1e4"),
)
def empty_row_is_as_declared(subject: Attention, case: Case) -> None:
    """A row that sees no key becomes what is declared or promised."""


@claim(
    "convention.window",
    level="must",
    handle="MK14",
    idea="I25",
    source=ENGINE,
    needs=("window",),
    within="observed",
    mutants=("layout.window_both_sides", "layout.window_needs_causal", "mask.added_as_number"),
)
def window_is_as_declared(subject: Attention, case: Case) -> None:
    """A sliding window looks to the side that is declared."""


@claim(
    "convention.precision",
    level="must",
    handle="SM18",
    idea="I17",
    source=Source("docs/bounds.md", "constants"),
    within="observed",
    mutants=("precision.float32_inside", "precision.float32_sum"),
)
def float64_is_computed_in_float64(subject: Attention, case: Case) -> None:
    """Inputs in float64 give outputs of float64's accuracy, not of float32's.

    Found once by probing; the other claims then leave float64 alone. Declare `dtypes=float32` where it is meant so.
    """


@claim(
    "convention.output-dtype",
    level="should",
    handle="RB2",
    idea="I16",
    source=ENGINE,
    within="observed",
    promoted_by="output_dtype",
    mutants=("robust.returns_float64",),
)
def output_has_the_dtype_of_the_query(subject: Attention, case: Case) -> None:
    """The output has the dtype of the queries."""


@claim(
    "contract.promised",
    level="should",
    handle="RB2",
    idea="I16",
    source=ENGINE,
    within="observed",
    mutants=("robust.refuses_boolean_mask", "robust.positions_before_heads"),
)
def what_is_promised_is_offered(subject: Attention, case: Case) -> None:
    """Nothing that the contract or the declaration promises is refused."""
