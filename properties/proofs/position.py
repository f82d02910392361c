"""Positions: sinusoids turn, rotary scores and ALiBi know only distances (I23)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, proof, proven


def _rotation(angle: Any) -> Any:
    """The turn of a plane by an angle."""
    from sympy import Matrix, cos, sin

    return Matrix([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])


@proof(
    "position.shift-is-rotation",
    idea="I23",
    holds="for symbols",
    false={"turn": lambda rotation, k, w: rotation(k * w), "product": lambda cos, k, w: cos(k)},
)
def shift_is_rotation(
    turn: Formula = lambda rotation, k, w: rotation(-k * w), product: Formula = lambda cos, k, w: cos(k * w)
) -> Derived:
    """A shift by k positions turns each pair of sinusoids by an angle that depends on k alone: a linear map.

        PE(p) = (sin(p w), cos(p w)):  PE(p + k) = R(-k w) PE(p),  PE(p)·PE(p + k) = cos(k w)     (1)

    One pair for each frequency w; the map of the whole encoding is the block diagonal of the turns.

    Source: arXiv:1706.03762 sec. 3.5.
    """
    from sympy import Matrix, cos, expand_trig, simplify, sin, symbols

    p, k, w = symbols("p k w", real=True)

    def encoding(at: Any) -> Any:
        return Matrix([sin(at * w), cos(at * w)])

    shifted = (turn(_rotation, k, w) * encoding(p)).applyfunc(lambda e: expand_trig(e))
    want = encoding(p + k).applyfunc(lambda e: expand_trig(e.expand()))
    for name, left, right in zip(("sine", "cosine"), want, shifted, strict=True):
        proven(name, left, right)
    inner = simplify((encoding(p).T * encoding(p + k))[0])
    return {"R": turn(_rotation, k, w), "PE(p)·PE(p + k)": proven("product", inner, product(cos, k, w))}


@proof(
    "position.rotary-sees-distance",
    idea="I23",
    holds="for symbols",
    false={"score": lambda q, k, turn, t, s: q.T * turn(t + s) * k, "norm": lambda q, angle: q.T * q * angle},
)
def rotary_sees_distance(
    score: Formula = lambda q, k, turn, t, s: q.T * turn(s - t) * k, norm: Formula = lambda q, _: q.T * q
) -> Derived:
    """Rotary scores depend on the distance of query and key alone, and a turn keeps norms.

        (R(t w) q)·(R(s w) k) = q·R((s - t) w) k,  |R(t w) q| = |q|     (1)

    For one pair of channels; a score is the sum over pairs, each with its w. A common shift of t and s cancels in s - t.

    Source: arXiv:2104.09864 sec. 3.2.1 and 3.2.2, eq. 16.
    """
    from sympy import Matrix, simplify, symbols

    t, s, w, a, b, c, d = symbols("t s w q_1 q_2 k_1 k_2", real=True)
    q, k = Matrix([a, b]), Matrix([c, d])

    def turn(steps: Any) -> Any:
        return _rotation(steps * w)

    found = simplify(((turn(t) * q).T * (turn(s) * k))[0])
    length = simplify(((turn(t) * q).T * (turn(t) * q))[0])
    return {
        "(R q)·(R k)": proven("score", found, score(q, k, turn, t, s)[0]),
        "|R q|^2": proven("norm", length, norm(q, t)[0]),
    }


@proof(
    "position.alibi-sees-distance",
    idea="I23",
    holds="for symbols",
    false={"shifted": lambda bias, t, s, c, m: bias(t, s) - m * c, "row": lambda m, t, s: -m * s - m * t},
)
def alibi_sees_distance(
    shifted: Formula = lambda bias, t, s, c, m: bias(t, s), row: Formula = lambda m, t, s: m * s - m * t
) -> Derived:
    """ALiBi's bias knows only the distance: positions shifted alike change no score; in a causal row -m t cancels too.

        bias(t, s) = -m (t - s) = m s - m t for s <= t,  bias(t + c, s + c) = bias(t, s)     (1)

    -m t is one number for all keys of the row, which softmax.shift-invariance removes: m s alone gives the same weights.

    Source: arXiv:2108.12409 sec. 3.
    """
    from sympy import symbols

    t, s, c = symbols("t s c", integer=True)
    m = symbols("m", positive=True)

    def bias(query: Any, key: Any) -> Any:
        return -m * (query - key)

    return {
        "bias(t + c, s + c)": proven("shifted", bias(t + c, s + c), shifted(bias, t, s, c, m)),
        "bias(t, s)": proven("row", bias(t, s), row(m, t, s)),
    }
