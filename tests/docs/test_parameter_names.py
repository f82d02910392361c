"""The names of parameters in docs/notation.md are those that the reference reads."""

from __future__ import annotations

import re
from pathlib import Path

from tests.reference.drawn import given
from tests.reference.drawn_models import Model, models

NOTATION = (Path(__file__).resolve().parents[2] / "docs" / "notation.md").read_text(encoding="utf-8")
ROWS = re.search(r"<!-- table: parameters -->\n(.*?)\n\n", NOTATION, re.S)
assert ROWS is not None
NAMES = [name for row in ROWS[1].splitlines() for name in re.findall(r"`([a-z_]+\.[\w.*]+)`", row.split("|")[1])]
PATTERNS = [re.compile(re.escape(n).replace(r"\*", r"[a-z.]+").replace(r"\.i\.", r"\.\d+\.") + "$") for n in NAMES]


@given(models())
def test_every_parameter_of_a_drawn_model_is_in_the_table(model: Model) -> None:
    assert len(NAMES) >= 18
    assert [name for name in model.parameters if not any(p.match(name) for p in PATTERNS)] == []
