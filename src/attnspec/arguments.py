"""What a call passes: the options that a claim asks for, in the function's own conventions, by role and then by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnspec.adapters import Arrays
from attnspec.layout import mask_laid_out
from attnspec.properties.subject import FloatArray, Profile
from attnspec.randomness import source
from attnspec.signature import OFF, Signature

NO_WINDOW = 1 << 30  # for a function whose window is a required argument
NEUTRAL = {
    "dropout": 0.0,
    "window": NO_WINDOW,
    "seed": 0,
    "training": False,
    "inference": True,
    "return_weights": False,
    "return_lse": False,
}


def options(
    signature: Signature,
    profile: Profile,
    arrays: Arrays,
    asked: Mapping[str, Any],
    q: FloatArray,
    k: FloatArray,
    dtype: str,
) -> dict[str, Any]:
    """Arguments by role; a role that the function lacks is left out (claims that need it do not reach this)."""
    found = _masks(signature, profile, arrays, asked, dtype)
    if signature.has("causal"):
        found["causal"] = bool(asked.get("causal")) or profile.get("causal") == "always"
    for role in ("scale", "window", "softcap"):
        if asked.get(role) is not None:
            found[role] = _window(asked[role], profile) if role in signature.pairs else asked[role]
    if asked.get("sinks") is not None:
        found["sinks"] = arrays.make(asked["sinks"], dtype)
    if asked.get("dropout"):
        found |= _dropping(signature, arrays.name, asked["dropout"], asked.get("seed", 0))
    if asked.get("switch"):
        found[asked["switch"]] = True
    if k.shape[1] != q.shape[1] and signature.has("enable_grouped"):
        found["enable_grouped"] = True
    if signature.has("heads"):
        found["heads"] = q.shape[1]
    for role in signature.active:
        found.setdefault(role, 0.0 if role == "dropout" else OFF[role][0])
    neutral = NEUTRAL | {"scale": profile.get("scale") or q.shape[3] ** -0.5}
    for role in signature.required:
        if role not in ("q", "k", "v"):
            found.setdefault(role, neutral.get(role))
    return found


def _masks(signature: Signature, profile: Profile, arrays: Arrays, asked: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """A boolean mask as its polarity says, an additive one; each through the other's parameter where it has none."""
    found, layout = {}, str(profile.get("layout", "bhtd"))
    mask, bias = asked.get("mask"), asked.get("bias")
    if mask is not None:
        shown = ~mask if profile.get("polarity") == "masked" else mask
        found["mask" if signature.has("mask") else "bias"] = arrays.make(mask_laid_out(shown, layout), "bool")
    if bias is not None:
        found["bias" if signature.has("bias") else "mask"] = arrays.make(mask_laid_out(bias, layout), dtype)
    return found


def _window(width: int, profile: Profile) -> tuple[int, int]:
    """As flash-attn and JAX count: keys before the current one, keys after it."""
    return width - 1, 0 if profile.get("window") != "both" else width - 1


def _dropping(signature: Signature, library: str, rate: float, seed: int) -> dict[str, Any]:
    """The options that make the function drop weights, drawn from the seed."""
    switched = {"dropout": rate, "seed": seed, "training": True, "inference": False}
    found = {role: value for role, value in switched.items() if signature.has(role)}
    return found | ({"rng": source(library, seed)} if signature.has("rng") else {})


def by_place_and_name(
    signature: Signature, inputs: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments under the function's own parameter names."""
    values = {**inputs, **options}
    by_name = {signature.names[role]: value for role, value in values.items() if role not in signature.positional}
    return [values[role] for role in signature.positional if role in values], by_name
