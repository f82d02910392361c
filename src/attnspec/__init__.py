"""attnspec: the conformance suite for attention and Transformers.

    import attnspec

    TestMine = attnspec.suite(my_attention, layout="bhtd")   # pytest: one item per claim and dtype
    attnspec.check(my_attention, "mask.causal")              # raises ClaimViolation
    report = attnspec.audit(my_attention)                    # the report object
    attnspec.compare(my_attention, theirs).ok                # two of them on the same cases

Importing this package imports neither torch nor hypothesis; the names below load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ClaimViolation", "Report", "__version__", "audit", "check", "claims", "compare", "suite"]

if TYPE_CHECKING:
    from attnspec.auditor import ClaimViolation, Report, audit, check
    from attnspec.comparison import compare
    from attnspec.properties.claim import Registry
    from attnspec.pytest_plugin import suite

    claims: Registry

_HOMES = {
    "ClaimViolation": "attnspec.auditor",
    "Report": "attnspec.auditor",
    "audit": "attnspec.auditor",
    "check": "attnspec.auditor",
    "compare": "attnspec.comparison",
    "suite": "attnspec.pytest_plugin",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "claims":
        return import_module("attnspec.properties.claim").claims()
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'attnspec' has no attribute {name!r}")
