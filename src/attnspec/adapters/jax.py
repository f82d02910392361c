"""JAX: arrays, and `jax:dot_product_attention`."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attnspec.adapters import Adapter, Array, Recorded, needed, nested
from attnspec.errors import UsageError
from attnspec.properties.subject import DTYPES, FloatArray

ATTENTION = "dot_product_attention"
BACKENDS = ("default", "xla", "cudnn")
STATIC = ("is_causal", "local_window_size", "implementation", "return_residual", "query_seq_lengths", "key_value_seq_lengths")


class JaxArrays:
    """Arrays of JAX on one device; gradients by `jax.vjp`.

    JAX makes float32 of float64 unless its x64 mode is on, and with the mode on, code that was written without it may return
    float64 for float32. So the mode is that of the dtype in which the last array was made: on for float64, off, as users have
    it, for the others. Arrays of JAX have no strides and cannot be written to, so that storage means nothing to it.
    """

    name: str = "jax"
    dtypes: tuple[str, ...] = DTYPES
    storages: tuple[str, ...] = ("plain",)

    def __init__(self, device: str = "cpu") -> None:
        jax = needed("jax", "arrays=jax")
        self._jax = jax
        self.device = device
        jax.config.update("jax_default_device", _found(device, jax))
        _remember_compiled(jax)

    def make(self, x: npt.NDArray[Any], dtype: str, storage: str = "plain", *, gradient: bool = False) -> Array:
        del storage, gradient
        if dtype != "bool":
            self._jax.config.update("jax_enable_x64", dtype == "float64")
        # NumPy narrows, exactly: the values of a case are exact in `dtype`. JAX brings NumPy its bfloat16.
        return self._jax.numpy.asarray(np.array(x, dtype=self._jax.numpy.dtype(dtype), order="C"))

    def widen(self, x: Array) -> FloatArray:
        return np.asarray(x).astype(np.float64)

    def owns(self, x: object) -> bool:
        return isinstance(x, self._jax.Array)

    def dtype_of(self, x: Array) -> str:
        return str(x.dtype)

    def shares_memory(self, x: Array, y: Array) -> bool:
        del x, y
        return False  # nobody can write to either

    def recorded(self, call: Callable[..., Any], inputs: Sequence[Array], output: Callable[[Any], Array]) -> Recorded:
        jax, jnp = self._jax, self._jax.numpy

        def split(*arrays: Array) -> tuple[Array, Any]:
            returned = call(*arrays)
            out = output(returned)
            if not (self.owns(out) and jnp.issubdtype(out.dtype, jnp.floating)):
                raise _NothingToDifferentiate
            return out, returned

        try:
            out, pull, returned = jax.vjp(split, *inputs, has_aux=True)
        except _NothingToDifferentiate:
            return Recorded(call(*inputs), lambda _: [None for _ in inputs])
        return Recorded(returned, lambda cotangent: list(pull(cotangent.astype(out.dtype))))

    def literal(self, x: npt.NDArray[Any], dtype: str) -> str:
        shaped = "" if x.size else f".reshape({x.shape})"  # a list without numbers does not tell its shape
        return f'jnp.array({nested(x)}, dtype="{dtype}"){shaped}'

    def imports(self, dtype: str) -> str:
        lines = ["import jax", "import jax.numpy as jnp"]
        if dtype == "float64":
            lines.append('jax.config.update("jax_enable_x64", True)  # else JAX makes float32 of float64')
        return "\n".join(lines)

    def versions(self) -> dict[str, str]:
        return {"jax": str(self._jax.__version__)}


class _NothingToDifferentiate(Exception):
    """The function returned no array of floating-point numbers."""


def _remember_compiled(jax: Any) -> None:
    """Keeps what JAX compiles, unless the user has said where: each shape takes a tenth of the time in the next audit.

    The folder is this machine's own, as compiled code is.
    """
    folder = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnspec" / f"jax-{platform.node() or 'here'}"
    )
    if jax.config.jax_compilation_cache_dir is not None:
        return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs, not a few large ones
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _found(device: str, jax: Any) -> Any:
    """The device of JAX that is meant. Errors: UsageError if there is none."""
    kind, _, number = device.partition(":")
    if kind == "meta":
        raise UsageError("device=meta: JAX has no such device; drop the option")
    try:
        return jax.devices(kind)[int(number or 0)]
    except (RuntimeError, IndexError) as error:
        said = str(error).partition(".")[0]
        raise UsageError(f"device={device}: JAX {jax.__version__} finds none here ({said}); drop the option") from None


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    backend = options.get("backend", "default")
    if backend not in BACKENDS:
        raise UsageError(f"backend={backend}: jax:{name} has {', '.join(BACKENDS)}")
    jax = needed("jax", f"jax:{name}")
    function = getattr(jax.nn, name)
    if backend != "default":
        function = functools.partial(function, implementation=backend)
    # As it is used, and cheaper here: of a plain call JAX compiles each operation anew for every shape. Three claims in
    # float32 take 75 s of CPU time compiled and 186 s plain; 11 s and 40 s where what was compiled is kept from before.
    if options.get("compile", True):
        function = jax.jit(function, static_argnames=STATIC)
    return function, {"contract": "jax", "arrays": "jax"}


def _owned(candidate: object) -> str | None:
    import sys

    jax = sys.modules.get("jax")
    return ATTENTION if jax is not None and candidate is jax.nn.dot_product_attention else None


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """Import lines and the expression of the call, for a script."""
    backend = options.get("backend", "default")
    text = name if backend == "default" else f"partial({name}, implementation={backend!r})"
    if options.get("compile", True):
        text = f"jax.jit({text}, static_argnames={STATIC})"
    return f"from functools import partial\nimport jax\nfrom jax.nn import {name}\nattention = {text}", "attention"


ADAPTER = Adapter(
    name="jax",
    arrays=JaxArrays,
    targets={ATTENTION: "jax.nn.dot_product_attention; -o compile=false for calls outside of jax.jit"},
    options=("backend", "compile"),
    load=_load,
    owned=_owned,
    expression=_expression,
)
