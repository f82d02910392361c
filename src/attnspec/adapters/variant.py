"""`variant:NAME`: correct implementations that are written very differently; no claim may find fault with them."""

from __future__ import annotations

from attnspec.adapters import shipped
from attnspec.properties import variants

TARGETS = dict.fromkeys(variants.VARIANTS, "a correct variant")
ADAPTER = shipped("variant", variants, TARGETS)
