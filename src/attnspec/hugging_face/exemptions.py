"""What models are known not to offer, by design, each with its reason (exemptions.json).

Features are those of attnspec.properties.models, and finer ones:

    padding                  padding anywhere: the mask is ignored
    left-padding             padding before the first real token of a row
    padding-between          padding after a real token that real tokens follow, in this call or a later one
    cached-padding           padding beside a state
    left-source-padding, source-padding-between    likewise, in the source of an encoder-decoder
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, TypedDict


class Exemption(TypedDict, total=False):
    """One entry: `model_type` may be `*`, then `field` names a field of the configuration that is set."""

    model_type: str
    field: str
    features: list[str]
    reason: str
    versions: str


@cache
def exemptions() -> list[Exemption]:
    entries: list[Exemption] = json.loads(files(__package__).joinpath("exemptions.json").read_text())
    return entries


def lacking(config: Any, version: str) -> dict[str, str]:
    """The features that a model of this configuration lacks in this version of the library, with the reasons."""
    from packaging.specifiers import SpecifierSet

    return {
        feature: entry["reason"]
        for entry in exemptions()
        for feature in entry["features"]
        if entry["model_type"] in ("*", config.model_type)
        and ("field" not in entry or getattr(config, entry["field"], None) is not None)
        and SpecifierSet(entry["versions"]).contains(version, prereleases=True)
    }
