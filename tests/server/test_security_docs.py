"""docs/security.md names for each control where it is and which test fails without it; both have to exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTROLS = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("## Controls")[2].partition("\n## ")[0]
# Without the heads of the tables, and the lines below them.
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in CONTROLS.splitlines()
    if line.startswith("| ") and not line.startswith("| Control |")
]


def test_the_tables_are_found() -> None:
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:60] for row in ROWS])
def test_a_control_names_its_place_and_its_test(row: list[str]) -> None:
    _, places, tests = row
    named = re.findall(r"`([^`]+)`", places), re.findall(r"`([^`]+)`", tests)
    assert all(named)
    for place in named[0]:
        assert (ROOT / place).exists(), place
    for test in named[1]:
        assert (ROOT / "tests" / test).is_file(), test
