"""Claims on what a mask hides: its content, however large, reaches no query."""

from __future__ import annotations

import numpy as np

from attnspec.properties.case import LOWEST, Case, Inputs, Plant
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import same_bits
from attnspec.properties.numbers import held
from attnspec.properties.oracle import noise, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, BoolArray, FloatArray, Profile
from attnspec.properties.twins import Honest

TORCH = Source("torch.nn.functional.scaled_dot_product_attention", "arguments attn_mask and is_causal")
HIDDEN = (Plant("k", "hidden"), Plant("v", "hidden"))
# Beside keys that are hidden for good, a row of huge negative numbers alone is weighed differently by right implementations:
INFINITE = (None,)  # so that an additive mask hides by minus infinity only
SMALL = (None, -2.0, -3.0)
POISON = (Plant("k", "hidden", value="nan"), Plant("v", "hidden", value="nan"))


def weakly_hidden(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: what is hidden has ten taken from its score, which leaves it a little weight."""
    seen = visible(honest.profile, x)
    bias = 0.0 if x.bias is None else np.where(np.isneginf(x.bias), 0.0, x.bias)
    return honest(x.but(mask=None, causal=False, window=None, bias=np.where(seen, 0.0, -10.0) + bias))


def clamped_bias(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: a bias never takes more than ten from a score."""
    return honest(x.but(bias=None if x.bias is None else np.maximum(x.bias, -10.0)))


def spreads_nan(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: a weight of zero times NaN is NaN, and so is every output of the head."""
    clean = honest(x.but(k=np.nan_to_num(x.k), v=np.nan_to_num(x.v)))
    spread = 0.0 * (x.v.sum(2, keepdims=True) + x.k.sum((2, 3), keepdims=True))
    return np.asarray(clean + np.repeat(spread, x.q.shape[1] // x.k.shape[1], axis=1))


def disturbed(case: Case, x: Inputs, where: BoolArray) -> Inputs:
    """The inputs with planted content at the key positions marked in `where` [B,G,S]."""
    changed: dict[str, FloatArray] = {}
    for plant in case.plant:
        array = changed.get(plant.array, getattr(x, plant.array))
        changed[plant.array] = np.where(where[..., None], case.redrawn(plant, array), array)
    return x.but(**changed)


def unseen(profile: Profile, x: Inputs, rows: slice = slice(None)) -> BoolArray:
    """[B,G,S]: the keys that none of these rows of any query head of the group may see."""
    seen = visible(profile, x)[:, :, rows].any(2)
    batch, heads, keys = seen.shape
    groups = x.k.shape[1]
    return ~np.asarray(seen.reshape(batch, groups, heads // groups, keys).any(2), dtype=np.bool_)


def without_last_key(profile: Profile, x: Inputs) -> Inputs:
    """The last key hidden from everyone too, so that something is hidden; unless it is all that some row may see."""
    array = x.mask if x.mask is not None else x.bias
    assert array is not None
    full = np.broadcast_to(array, (*array.shape[:-1], x.k.shape[2])).copy()
    full[..., -1] = False if x.mask is not None else -np.inf
    fewer = x.but(mask=full) if x.mask is not None else x.but(bias=full)
    emptied = visible(profile, x).any(-1) & ~visible(profile, fewer).any(-1)
    return x if emptied.any() else fewer


def _unmoved(subject: Attention, case: Case, x: Inputs, what: str) -> None:
    hidden = unseen(subject.profile, x)
    before, after = x.through(subject), disturbed(case, x, hidden).through(subject)
    same_bits(after, before, what, live=bool(hidden.any()), noise=noise(subject, x))


@claim(
    "mask.hidden-content",
    level="must",
    handle="MK4",
    idea="I25",
    source=TORCH,
    given=Cases(mask="always", finite=INFINITE, at_least={"S": 2}, plant=HIDDEN),
    within="exact",
    about="mask",
    dtypes="all",
    mutants=("mask.minus_ten", "mask.minus_1e4", "mask.dropped_with_causal"),
    proof=("mask.minus-infinity-hides", "batch.padding-changes-nothing"),
    twin=weakly_hidden,
)
def hidden_content_has_no_influence(subject: Attention, case: Case) -> None:
    """Keys and values that a mask hides from every query may hold any finite content."""
    x = without_last_key(subject.profile, case.build())
    _unmoved(subject, case, x, "output when hidden keys and values change")


@claim(
    "mask.hidden-nan",
    level="may",
    handle="MK3",
    idea="I25",
    source=Source("https://github.com/onnx/onnx/pull/7867", "poisoned masked values"),
    given=Cases(mask="always", finite=INFINITE, at_least={"S": 2}, scale="never", plant=POISON),
    within="exact",
    promoted_by="poison=nan",
    about="mask",
    mutants=("mask.minus_ten", "mask.minus_1e4"),
    twin=spreads_nan,
)
def hidden_nan_has_no_influence(subject: Attention, case: Case) -> None:
    """Keys and values that a mask hides from every query may even be NaN."""
    x = without_last_key(subject.profile, case.build())
    _unmoved(subject, case, x, "output when hidden keys and values become NaN")


@claim(
    "mask.finite-fill",
    level="must",
    handle="MK4",
    idea="I25",
    source=TORCH,
    needs=("bias",),
    given=Cases(
        mask="always",
        kinds=("bias",),
        finite=INFINITE,
        empty="never",
        at_least={"S": 2},
        gains=(1.0,),  # scores far below 1e4: the fill outweighs them in every dtype
        values={"q": ("fine", "normal", "integers"), "k": ("fine", "normal", "integers")},
        plant=HIDDEN,
    ),
    within="exact",
    about="mask",
    dtypes="all",
    mutants=("batch.bias_of_first", "heads.bias_first_head"),
    proof=("mask.minus-infinity-hides",),
    twin=clamped_bias,
)
def finite_fill_hides(subject: Attention, case: Case) -> None:
    """An additive mask of a huge negative number hides like minus infinity, even values of 2^100.

    The number is -1e9 or the most negative one of the dtype. Scores are below 1e7, those of float16 below 1e4: the weight
    of such a key underflows to zero in every format.
    """
    x = without_last_key(subject.profile, case.build())
    assert x.bias is not None
    hidden = unseen(subject.profile, x)
    fill = float(held(np.array(LOWEST if case.seed % 2 else -1e9), case.dtype))
    filled = x.but(bias=np.where(np.isneginf(x.bias), fill, x.bias))
    some = visible(subject.profile, x).any(-1, keepdims=True)  # a row that sees filled keys alone weighs them as it may
    before, after = filled.through(subject), disturbed(case, filled, hidden).through(subject)
    same_bits(
        np.where(some, after, 0.0),
        np.where(some, before, 0.0),
        f"output when keys and values under an additive {fill:.4g} change",
        live=bool(hidden.any()),
        noise=noise(subject, filled),
    )


@claim(
    "mask.softcap-keeps-hidden",
    level="must",
    handle="MK15",
    idea="I25",
    source=Source("arXiv:2408.00118", "sec. 2"),
    needs=("softcap",),
    given=Cases(
        mask="always", finite=INFINITE, softcap="always", scale="never", window="never", at_least={"S": 2}, plant=HIDDEN
    ),
    within="exact",
    about="softcap",
    mutants=("scale.cap_after_mask", "scale.cap_after_bias"),
    proof=("mask.minus-infinity-hides",),
    twin=weakly_hidden,
)
def softcap_keeps_hidden(subject: Attention, case: Case) -> None:
    """A soft cap does not revive what a mask hides: the cap comes first, then the mask."""
    x = without_last_key(subject.profile, case.build())
    _unmoved(subject, case, x, "output when hidden keys and values change under a soft cap")
