"""Correct implementations in JAX, which is imported when one of them is loaded; each public function is a variant."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

FAST_TO_COMPILE = {"xla_backend_optimization_level": 0}  # every shape is compiled anew, for a call or two


@partial(jax.jit, static_argnames=("causal", "window"), compiler_options=FAST_TO_COMPILE)
def _attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    bias: Array | None,
    scale: float,
    softcap: float | None,
    *,
    causal: bool,
    window: int | None,
) -> Array:
    (_, H, T, _), S = q.shape, k.shape[2]
    inner = jnp.promote_types(q.dtype, jnp.float32)
    q_wide, k_wide, v_wide = (jnp.repeat(x.astype(inner), H // x.shape[1], axis=1) for x in (q, k, v))
    s = jnp.einsum("bhtd,bhsd->bhts", q_wide, k_wide, precision=jax.lax.Precision.HIGHEST) * jnp.asarray(scale, inner)
    s = s if softcap is None else softcap * jnp.tanh(s / softcap)
    s = s if bias is None else s + bias.astype(inner)
    behind = jnp.arange(T)[:, None] - jnp.arange(S)
    seen = s != -jnp.inf
    if causal:
        seen &= behind >= 0
    if window is not None:
        seen &= (behind >= 0) & (behind < window)
    if mask is not None:
        seen &= mask
    full = jnp.any(seen, axis=-1, keepdims=True)
    weights = jax.nn.softmax(jnp.where(seen | ~full, jnp.where(full, s, 0.0), -jnp.inf), axis=-1)
    weights = jnp.where(full, weights, 0.0)
    return jnp.einsum("bhts,bhse->bhte", weights, v_wide, precision=jax.lax.Precision.HIGHEST).astype(q.dtype)


def jax_direct(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Array:
    """The whole score matrix, compiled once per shape; float32 inside for 16-bit inputs, whose weights are not rounded."""
    scale = float(q.shape[-1] ** -0.5 if scale is None else scale)
    out: Array = _attention(q, k, v, mask, bias, scale, softcap, causal=causal, window=window)
    return out


jax_direct.__attnspec__ = {"arrays": "jax"}  # type: ignore[attr-defined]
