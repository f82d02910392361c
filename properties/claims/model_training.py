"""Claims on what training needs of a language model: its loss, its gradients, and what its layers say that they attend to."""

from __future__ import annotations

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import alike, none_of, nonzero, within
from attnspec.properties.models import Ids, LanguageModel
from attnspec.properties.programs import SIDES, Programs
from attnspec.properties.sessions import real_tokens, tokens
from attnspec.properties.subject import BoolArray, FloatArray
from attnspec.properties.verdict import Inapplicable

SUTSKEVER = Source("arXiv:1409.3215", "3.2, eq. 1")
VASWANI = Source("arXiv:1706.03762", "3.2.3")
CHEN = Source("arXiv:1604.06174", "4")


def _nll(logits: FloatArray, ids: Ids) -> FloatArray:
    """[B,T-1]: -log p of each word but the first, given those before it."""
    shifted = logits[:, :-1] - logits[:, :-1].max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return np.asarray(-np.take_along_axis(logs, ids[:, 1:, None], axis=-1)[..., 0])


def _loss_is(model: LanguageModel, ids: Ids, real: BoolArray | None, what: str) -> None:
    dtype = model.profile["dtypes"][0]
    logits = model.logits(ids, real)
    scored = np.ones(ids.shape, dtype=bool) if real is None else real
    scored = scored[:, 1:] & scored[:, :-1]
    each = _nll(logits, ids)
    want = np.array([each[scored].mean()])
    # A loss of other words, one word earlier or later, or over padding, is that of words chosen blindly.
    other = np.array([_nll(logits, np.roll(ids, 1, axis=1)).mean()]) - want
    alike(np.array([model.loss(ids, real)]), want, dtype, what, change=other, among=logits)


@claim(
    "train.loss-is-nll",
    level="must",
    handle="SQ1",
    idea="I07",
    source=SUTSKEVER,
    of="lm",
    needs=("loss",),
    given=Programs(rows=(2, 1, 3), tokens=(7, 12, 3)),
    within="calibrated",
    mutants=(
        "training.shifted_twice",
        "training.word_zero_ignored",
        "training.last_chunk_dropped",
    ),
)
def the_loss_is_that_of_the_logits(model: LanguageModel, case: Case) -> None:
    """The loss is the mean of -log p(word | words before it) over all words but the first, as its logits say."""
    B = case.sizes.B if model.profile.offers("batch") else 1
    _loss_is(model, tokens(model, case, "ids", B, max(2, case.sizes.T)), None, "loss")


@claim(
    "train.loss-leaves-padding-out",
    level="must",
    handle="SQ3",
    idea="I07",
    source=SUTSKEVER,
    of="lm",
    needs=("padded-loss", "batch"),
    given=Programs(sides=("padding", "left-padding"), rows=(3, 2), tokens=(7, 12, 5)),
    within="calibrated",
    mutants=(
        "training.mask_not_shifted",
        "training.first_word_scored_from_padding",
        "training.padding_divides",
    ),
)
def the_loss_leaves_padding_out(model: LanguageModel, case: Case) -> None:
    """Padding on the right, and on the left if that is offered, adds nothing to the loss and is not counted in its mean."""
    B, T = case.sizes.B, max(3, case.sizes.T)
    ids, real = tokens(model, case, "ids", B, T), real_tokens(case, "ids", B, T)
    if case.mask is not None and case.mask.pattern == "left-padding":
        if not model.profile.offers("padded-loss-left"):
            raise Inapplicable("padding on the left is not offered")
        real[:, -2:] = True  # every row has a word that is scored
    else:
        real[:, :2] = True
    _loss_is(model, ids, real, "loss of rows of different length")


@claim(
    "grad.micro-batches",
    level="must",
    handle="GR8",
    idea="I08",
    source=CHEN,
    of="lm",
    needs=("gradients", "batch"),
    given=Programs(rows=(3, 2), tokens=(7, 5), draws=3),
    within="calibrated",
    mutants=(
        "training.odd_row_dropped",
        "training.gradients_pile_up",
    ),
)
def gradients_of_rows_add_up(model: LanguageModel, case: Case) -> None:
    """The gradients of a summed loss are finite, and the sum of those of each row alone."""
    ids = tokens(model, case, "ids", case.sizes.B, max(2, case.sizes.T))
    whole, alone = model.gradients(ids), [model.gradients(row[None]) for row in ids]
    parts = {name: np.sum([one[name] for one in alone], axis=0) for name in whole}
    _same_gradients(model, whole, parts, "gradients of a batch against the sum over its rows", change=alone[0])


@claim(
    "grad.finite-differences",
    level="must",
    handle="GR1",
    idea="I08",
    source=Source("doi:10.1137/1.9780898717761", "8.1, central differences"),
    of="lm",
    needs=("gradients", "nudged"),
    given=Programs(rows=(2, 1), tokens=(7, 13), draws=2),
    within="calibrated",
    mutants=(
        "training.statistics_detached",
        "training.shared_keys_of_one_head",
        "training.tail_without_score_gradient",
    ),
)
def gradients_are_slopes(model: LanguageModel, case: Case) -> None:
    """The gradients of a weight are the slope of the summed loss in a direction that is drawn, by central differences.

    (L(w + h d) - L(w - h d)) / 2h = d · gradient, but for h² and rounding / h. Where h and h/2 differ by more than
    that, the loss has a kink between, as that of a ReLU, and the weight says nothing.
    """
    if model.profile["dtypes"][0] != "float64":
        raise Inapplicable("slopes by differences want float64")
    ids = tokens(model, case, "ids", case.sizes.B if model.profile.offers("batch") else 1, max(2, case.sizes.T))
    found = model.gradients(ids)
    rounding = ROUNDING * abs(_nll(model.logits(ids), ids).sum()) / STEP
    for name in _some(sorted(found), case.seed):
        slope = found[name]
        direction = numbers.normal(case.seed, f"direction {name}", slope.shape)
        scale = np.linalg.norm(slope) * np.sqrt(numbers.VARIANCE)  # of a slope in such a direction
        slack = rounding + 1e-6 * scale
        wide, near = (_slope(model, ids, name, direction, h) for h in (STEP, STEP / 2))
        if abs(wide - near) <= slack and (slack <= 1e-3 * scale or not slope.any()):
            within(
                np.array([np.vdot(slope, direction)]),
                np.array([near]),
                np.array([4 * slack]),
                f"slope of the summed loss in a direction of {name}",
                why="rounding / h, and a millionth of the slope",
                live=bool(scale > 0),
            )


STEP = 2.0**-18  # of a weight, whose size is about 1: h² is nothing, and few kinks lie so near
ROUNDING = 2.0**-46  # of a loss in float64, after some dozen roundings of its own size
WEIGHTS = 10  # that a case looks at


def _some(names: list[str], seed: int) -> list[str]:
    """Some of the weights, others for another seed."""
    order = numbers.permutation(len(names), seed, "weights") if len(names) > WEIGHTS else range(len(names))
    return [names[i] for i in order][:WEIGHTS]


def _slope(model: LanguageModel, ids: Ids, name: str, direction: FloatArray, h: float) -> float:
    ahead, behind = (model.nudged({name: sign * h * direction}).logits(ids) for sign in (1.0, -1.0))
    return float((_nll(ahead, ids).sum() - _nll(behind, ids).sum()) / (2 * h))


@claim(
    "grad.checkpointing",
    level="must",
    handle="GR7",
    idea="I08",
    source=CHEN,
    of="lm",
    needs=("gradients", "checkpointing"),
    given=Programs(rows=(2, 1), tokens=(7, 13), draws=2),
    within="calibrated",
    mutants=(
        "training.recomputed_without_the_window",
        "training.checkpoint_cuts_off_the_embedding",
        "training.gradients_pile_up",
    ),
)
def checkpointing_changes_no_gradient(model: LanguageModel, case: Case) -> None:
    """Running the forward pass again in the backward pass changes no gradient, and loses none."""
    B = case.sizes.B if model.profile.offers("batch") else 1
    ids = tokens(model, case, "ids", B, max(2, case.sizes.T))
    plain, again = model.gradients(ids), model.gradients(ids, checkpointing=True)
    _same_gradients(model, again, plain, "gradients with checkpointing", change=plain)


def _same_gradients(
    model: LanguageModel,
    got: dict[str, FloatArray],
    want: dict[str, FloatArray],
    what: str,
    *,
    change: dict[str, FloatArray],
) -> None:
    """All gradients, weight after weight, in units of the largest; a weight that is missing on one side has gradient 0."""
    sizes = {name: x.size for each in (got, want) for name, x in each.items()}

    def flat(gradients: dict[str, FloatArray]) -> FloatArray:
        parts = [gradients.get(name, np.zeros(size)).ravel() for name, size in sorted(sizes.items())]
        return np.concatenate([*parts, np.zeros(0)])

    alike(flat(got), flat(want), model.profile["dtypes"][0], what, change=flat(change))


@claim(
    "mask.logits-jacobian",
    level="must",
    handle="MK2",
    idea="I25",
    source=VASWANI,
    of="lm",
    needs=("jacobian",),
    given=Programs(rows=(1,), tokens=(7, 9, 2), draws=2),
    within="calibrated",
    mutants=(
        "copies.word_zero_is_nothing",
        "calls.derivative_by_the_whole_row",
        "calls.derivative_through_hidden_keys",
    ),
)
def no_derivative_by_later_tokens(model: LanguageModel, case: Case) -> None:
    """The derivative of a logit by the embedding of a later token is 0, and that by the token's own is not."""
    influence = model.jacobian(tokens(model, case, "ids", 1, max(2, case.sizes.T)))
    later = np.tril(np.ones(influence.shape, dtype=bool), -1)  # influence[s, t] with s > t
    what = "derivative of logits by embeddings [token, position]"
    alike(
        influence[later],
        np.zeros(int(later.sum())),
        model.profile["dtypes"][0],
        f"{what} after the position",
        change=influence[~later],
        among=influence,
    )
    nonzero(influence, np.eye(len(influence), dtype=bool), what)


@claim(
    "softmax.attention-rows",
    level="must",
    handle="SM2",
    idea="I18",
    source=VASWANI,
    of="lm",
    needs=("attentions",),
    given=Programs(rows=(2, 1, 3), tokens=(7, 12, 5)),
    within="calibrated",
    mutants=("calls.weights_in_one_buffer",),
)
def rows_of_attention_are_causal_averages(model: LanguageModel, case: Case) -> None:
    """The attention weights that a model reports are not negative, sum to 1 over the keys, and are 0 for later tokens."""
    B = case.sizes.B if model.profile.offers("batch") else 1
    _averages(model, tokens(model, case, "ids", B, case.sizes.T), None)


@claim(
    "mask.attention-skips-padding",
    level="must",
    handle="MK16",
    idea="I25",
    source=VASWANI,
    of="lm",
    needs=("attentions", "padding", "batch"),
    given=Programs(sides=SIDES, rows=(3, 2), tokens=(7, 12, 5)),
    within="calibrated",
    mutants=(
        "calls.weights_of_heads_and_rows_mixed",
        "calls.weights_without_the_mask",
        "calls.weights_in_one_buffer",
    ),
)
def reported_attention_skips_padding(model: LanguageModel, case: Case) -> None:
    """Beside padding, the attention weights of real tokens that a model reports are averages over real tokens."""
    B, T = case.sizes.B, case.sizes.T
    ids, real = tokens(model, case, "ids", B, T), real_tokens(case, "ids", B, T)
    _averages(model, ids, real)


def _averages(model: LanguageModel, ids: Ids, real: BoolArray | None) -> None:
    """Weights of real tokens sum to 1 over the tokens that they may see."""
    dtype, (B, T) = model.profile["dtypes"][0], ids.shape
    shown = np.ones((B, T), dtype=bool) if real is None else real
    seen = shown[:, None, None, :] & np.tril(np.ones((T, T), dtype=bool))
    model.altered("arrays")  # of the calls before this one
    layers = model.attentions(ids, real)
    none_of(model.altered("arrays"), "what a call altered")
    for number, weights in enumerate(layers):
        where = f"of layer {number} [row, head, token, key]"
        hidden = np.where(shown[:, None, :, None] & ~seen, weights, 0.0)
        none = np.zeros(weights.shape)
        alike(hidden, none, dtype, f"attention weights {where} behind the mask", change=weights, among=weights)
        rows = np.where(shown[:, None, :], np.abs(weights).sum(-1), 1.0)
        alike(rows, np.ones(rows.shape), dtype, f"sums of attention weights {where}", change=rows)
        below = np.where(shown[:, None, :, None], np.minimum(weights, 0.0), 0.0)
        alike(below, np.zeros(below.shape), dtype, f"negative attention weights {where}", change=weights, among=weights)
