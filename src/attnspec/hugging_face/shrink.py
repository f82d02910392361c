"""A default configuration made small by the names of its fields; the rules are data (shrink.toml)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from attnspec.hugging_face.offline import data
from attnspec.hugging_face.spelling import all_fields, configuration, own_fields

LAYERS = 2  # enough for a layer that reads what another layer made


@dataclass(frozen=True)
class Sizes:
    """What the rules need beside a field: who is shrunk, the small vocabulary, and which of its layers are kept."""

    config: Any
    vocabulary: int
    depth: int | None
    kept: list[int]


def shrink(kind: type, role: str, chosen: Mapping[str, Any]) -> Any:
    """A new small configuration of the class, with the chosen fields as they are given.

    It is made by the class, so that whatever the class derives from fields or refuses is derived and refused.

    Args:    role is `causal` or `seq2seq`: what the model shall be used as.
    Errors:  whatever the class raises; the default configuration itself may not be possible.
    """
    default = kind()
    rules = data("shrink")
    taken = all_fields(default)
    needed = {name: value for name, value in rules["roles"].get(role, {}).items() if name in taken}
    special = rules["models"].get(default.model_type, {})
    return kind(**changes(default) | needed | special | chosen)


def changes(config: Any) -> dict[str, Any]:
    """The fields of a configuration that become small, with their new values; nested configurations are made anew."""
    values = {name: getattr(config, name, None) for name in own_fields(config)}
    sizes = sizes_of(config, values)
    small = {}
    for name, value in values.items():
        if isinstance(value, configuration()):
            small[name] = _nested(value)
        elif isinstance(value, (list, tuple)) and len(value) == sizes.depth:
            small[name] = type(value)([value[i] for i in sizes.kept])
        elif (new := _by_rule(name, value, values, sizes)) != value:
            small[name] = new
    return small


def _nested(config: Any) -> Any:
    """A small configuration of the same class, keeping what the parent has set (`is_decoder`, `add_cross_attention`)."""
    plain = type(config)()
    by_parent = {f: v for f in all_fields(config) if (v := getattr(config, f, None)) != getattr(plain, f, None)}
    return type(config)(**by_parent | changes(config))


def sizes_of(config: Any, values: Mapping[str, Any]) -> Sizes:
    """Keeps the first layer of every kind, where a kind is what all lists with an entry for each layer say of it."""
    depth = getattr(config, "num_hidden_layers", None)
    depth = depth if isinstance(depth, int) else None
    lists = [v for v in values.values() if isinstance(v, (list, tuple)) and len(v) == depth]
    kept: list[int] = []
    if lists and depth is not None:
        first: dict[str, int] = {}
        for i in range(depth):
            first.setdefault(repr([each[i] for each in lists]), i)
        others = [i for i in range(depth) if i not in first.values()]
        kept = sorted([*first.values(), *others[: max(0, LAYERS - len(first))]])
    vocabulary = min(v for v in (values.get("vocab_size"), _most("vocab_size")) if isinstance(v, int))
    return Sizes(config, vocabulary, depth, kept)


def _most(name: str) -> int:
    return int(next(r["most"] for r in data("shrink")["field"] if "most" in r and re.fullmatch(r["names"], name)))


def _by_rule(name: str, value: Any, values: Mapping[str, Any], sizes: Sizes) -> Any:
    """What the first rule makes of a field, and the field as it is where there is none or nothing is set."""
    for rule in data("shrink")["field"]:
        if values.get(rule.get("when", name)) is not None and re.fullmatch(rule["names"], name):
            break
    else:
        return value
    if "rule" in rule:
        return RULES[rule["rule"]](value, sizes)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return value
    return type(value)(rule["value"]) if "value" in rule else min(value, type(value)(rule["most"]))


def _special(value: Any, sizes: Sizes) -> Any:
    """An id above the small vocabulary moves to its top: distinct ids stay distinct, and the middle stays free of them."""
    if isinstance(value, (list, tuple)):
        return type(value)(_special(v, sizes) for v in value)
    if not isinstance(value, int) or value < sizes.vocabulary:
        return value
    above = sorted(i for i in special_ids(sizes.config) if i >= sizes.vocabulary)
    return sizes.vocabulary - len(above) + above.index(value)


def special_ids(config: Any) -> set[int]:
    """Every id that a configuration gives a meaning: the start, the end, padding, a picture."""
    names = next(r["names"] for r in data("shrink")["field"] if r.get("rule") == "special")
    values = [getattr(config, name, None) for name in all_fields(config) if re.fullmatch(names, name)]
    flat = [i for v in values for i in (v if isinstance(v, (list, tuple)) else [v])]
    return {i for i in flat if isinstance(i, int) and i >= 0}


def plain_ids(vocabulary: int, special: set[int]) -> tuple[int, int]:
    """The largest range low <= id < high without a special id."""
    ends = sorted({-1, vocabulary, *(i for i in special if i < vocabulary)})
    below, above = max(pairwise(ends), key=lambda gap: gap[1] - gap[0])
    return below + 1, above


def _layers(value: Any, sizes: Sizes) -> Any:
    if not isinstance(value, int):
        return value
    return len(sizes.kept) if sizes.kept and value == sizes.depth else min(value, LAYERS)


def _layer_indices(value: Any, sizes: Sizes) -> Any:
    """The same layers by their new indices, if this list is one of indices of the layers that are cut."""
    if not isinstance(value, (list, tuple)):
        return value
    kept = sizes.kept or list(range(LAYERS))
    return type(value)(kept.index(i) for i in value if i in kept)


def _rope(value: Any, sizes: Sizes) -> Any:
    """Keeps type and factors; what is as long as half a head is cut, and the original length is lowered.

    The settings may lie one level deeper, one dictionary for each kind of layer.
    """
    if not isinstance(value, dict):
        return value
    if any(isinstance(v, dict) for v in value.values()):
        return {k: _rope(v, sizes) for k, v in value.items()}
    head = getattr(sizes.config, "head_dim", None)
    width = _by_rule("head_dim", head, {"head_dim": head}, sizes) if isinstance(head, int) else 16
    pairs = int(width * value.get("partial_rotary_factor", 1)) // 2
    new = dict(value)
    for name in ("short_factor", "long_factor"):
        if name in value:
            new[name] = list(value[name])[:pairs]
    if "original_max_position_embeddings" in value:
        new["original_max_position_embeddings"] = min(6, value["original_max_position_embeddings"])
    if "mrope_section" in value:
        old = value["mrope_section"]
        new["mrope_section"] = [pairs * s // sum(old) for s in old]
        new["mrope_section"][0] += pairs - sum(new["mrope_section"])
    return new


RULES: dict[str, Callable[[Any, Sizes], Any]] = {
    "leave": lambda value, sizes: value,  # noqa: ARG005
    "special": _special,
    "layers": _layers,
    "layer indices": _layer_indices,
    "rope": _rope,
}
