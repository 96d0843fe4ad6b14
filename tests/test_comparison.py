"""docs/comparison.md: every test that it calls as a witness is there, every source is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "comparison.md").read_text(encoding="utf-8")
ROWS = [row for row in PAGE.splitlines() if row.startswith("| ") and "](../tests/" in row]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_the_witnesses_exist(row: str) -> None:
    for file, names in re.findall(r"\]\((\.\./tests/[^)]+)\)([^\[]*)", row):
        text = (DOCS / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(test_\w+)`", names):
            assert f"def {name}(" in text, name


def test_sources_are_named() -> None:
    defined = re.findall(r"^\[(\w+)\]: https://", PAGE, re.MULTILINE)
    used = set(re.findall(r"\]\[(\w+)\]", PAGE))
    assert used == set(defined)
    assert len(defined) == len(set(defined))


def test_tables_have_as_many_cells_as_their_heads() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        assert len({len(row.split("|")) for row in table.splitlines()}) == 1
