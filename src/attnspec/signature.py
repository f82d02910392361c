"""Which parameter of a function plays which role, read from its signature or the first line of its docstring."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import msgspec

from attnspec.errors import UsageError

ROLES: dict[str, tuple[str, ...]] = {
    "q": ("q", "query", "queries", "query_states", "query_layer", "xq"),
    "k": ("k", "key", "keys", "key_states", "key_layer", "xk"),
    "v": ("v", "value", "values", "value_states", "value_layer", "xv"),
    "mask": ("attn_mask", "mask", "attention_mask"),
    "bias": ("bias", "attn_bias", "attention_bias", "additive_mask"),
    "causal": ("is_causal", "causal", "use_causal_mask"),
    "scale": ("scale", "sm_scale", "softmax_scale", "scaling"),
    "dropout": ("dropout_p", "dropout", "dropout_rate"),
    "enable_grouped": ("enable_gqa",),
    "window": ("window", "window_size", "sliding_window", "local_window_size"),
    "softcap": ("softcap", "soft_cap", "logit_softcap", "logits_soft_cap", "attn_logits_soft_cap"),
    "heads": ("num_heads", "n_heads", "n_head", "heads"),
    "sinks": ("sinks", "sink", "s_aux", "attn_sink", "attention_sinks"),
    "return_weights": (
        "need_weights",
        "return_weights",
        "return_attention_weights",
        "return_attn_weights",
        "return_attention_scores",
        "return_attn_probs",
        "output_attentions",
    ),
    "return_lse": ("return_lse", "return_softmax_lse", "return_residual"),
    "seed": ("seed", "dropout_seed"),
    "rng": ("generator", "rng", "dropout_rng", "key"),
    "training": ("training", "train"),
    "inference": ("deterministic", "inference"),
}
PAIRS = ("local_window_size",)  # parameters that take (left, right) whatever their default
OFF = {  # the values that switch a role off
    "window": (None, -1, (-1, -1)),
    "softcap": (None, 0, 0.0),
    "dropout": (None, 0, 0.0),
    "return_weights": (False, None),
    "return_lse": (False, None),
}


class Signature(msgspec.Struct, frozen=True):
    """Parameter names by role; those in `positional` are passed by position, in this order.

    `required` roles have no default; `active` ones have a default that changes the result and is switched off; `unread` are
    the optional parameters that no role understands, so that no claim exercises them; `pairs` takes (left, right).
    """

    names: dict[str, str]
    positional: tuple[str, ...]
    required: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()

    def has(self, role: str) -> bool:
        return role in self.names


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters, also of what `inspect.signature` refuses: scripted functions by their schema, partial builtins, and
    builtins whose docstring opens with a signature.

    Errors: UsageError if nothing tells.
    """
    if callable(forward := getattr(function, "forward", None)) and not inspect.isclass(function):
        function = forward  # a torch module's own signature is (*args, **kwargs)
    try:
        return list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        pass
    if isinstance(function, functools.partial):
        rest = parameters(function.func)[len(function.args) :]
        return [p for p in rest if p.name not in function.keywords]
    if (schema := getattr(function, "schema", None)) is not None:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return [
            inspect.Parameter(a.name, kind, default=a.default_value if a.has_default_value() else inspect.Parameter.empty)
            for a in schema.arguments
        ]
    return _documented(function)


def _documented(function: Callable[..., Any]) -> list[inspect.Parameter]:
    text = " ".join((function.__doc__ or "").strip().split("\n\n")[0].split())
    match = re.match(r"\w+\((?P<arguments>.*?)\)\s*(->|$)", text)
    if match is None:
        raise UsageError(
            f"{function!r} has no signature and no docstring that begins with one; wrap it in a function of q, k, v"
        )
    made: dict[str, Any] = {}
    # Annotations stay text: the words of a docstring need not be names that exist.
    source = f"from __future__ import annotations\ndef signature({match['arguments']}): ..."
    exec(compile(source, "<docstring>", "exec"), {}, made)
    return list(inspect.signature(made["signature"]).parameters.values())


def read(function: Callable[..., Any], name: str) -> Signature:
    """Assigns roles to parameters.

    Errors: UsageError if query, key and value cannot be told, or if another parameter is required and not understood.
    """
    everything = [p for p in parameters(function) if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    roles: dict[str, str] = {}
    for role, known in ROLES.items():
        taken = roles.values()  # `key` is the keys, unless these have a parameter of their own
        chosen = [p for p in everything if p.name.lower() in known and p.name not in taken]
        if chosen:
            roles[role] = chosen[0].name
    if not {"q", "k", "v"} <= set(roles):
        for role, parameter in zip("qkv", everything[:3], strict=False):
            if parameter.name.lower().startswith(role):
                roles.setdefault(role, parameter.name)
    shown = ", ".join(p.name for p in everything) or "no parameters"
    if missing := [r for r in "qkv" if r not in roles]:
        words = {"q": "query/q", "k": "key/k", "v": "value/v"}
        raise UsageError(
            f"{name}({shown}): an attention function has parameters for query, key and value, and "
            f"{', '.join(words[m] for m in missing)} is not among these; rename them, or wrap it in a function of (q, k, v)"
        )
    understood = set(roles.values())
    required = [p for p in everything if p.default is p.empty and p.name not in understood]
    if required:
        raise UsageError(
            f"{name}({shown}): parameter {required[0].name!r} is required and not understood; "
            f"give it a default, or wrap the function. Understood: {', '.join(n[0] for n in ROLES.values())}"
        )
    by_name = {n: role for role, n in roles.items()}
    first = [by_name.get(p.name) for p in everything[:3] if p.kind is not p.KEYWORD_ONLY]
    # By position where that is possible: what wraps a function (torch.vmap, say) may take no keywords.
    positional: tuple[str, ...] = ("q", "k", "v") if first == ["q", "k", "v"] else ()
    positional += tuple(
        by_name[p.name] for p in everything if p.kind is p.POSITIONAL_ONLY and by_name[p.name] not in positional
    )
    needed = tuple(by_name[p.name] for p in everything if p.default is p.empty)
    active = tuple(r for p in everything if (r := by_name.get(p.name)) in OFF and p.default not in (*OFF[r], p.empty))
    unread = tuple(p.name for p in everything if p.name not in by_name)
    pairs = tuple(
        by_name[p.name] for p in everything if p.name in by_name and (isinstance(p.default, tuple) or p.name in PAIRS)
    )
    return Signature(roles, positional, needed, active, unread, pairs)
