"""`lm-variant:NAME`: small models that are correct, each built in another way; no claim may find fault with them."""

from __future__ import annotations

from attnspec.adapters import shipped
from attnspec.properties import model_variants

TARGETS = dict.fromkeys(model_variants.VARIANTS, "a correct model")
ADAPTER = shipped("lm-variant", model_variants, TARGETS, factories=True)
