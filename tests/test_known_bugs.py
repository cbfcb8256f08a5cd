"""`docs/known-bugs.md` names tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_test_that_the_list_of_known_bugs_names_is_there():
    rows = [row for row in (ROOT / "docs" / "known-bugs.md").read_text().splitlines() if "#" in row and "|" in row]
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))

    assert len(rows) >= 22
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert set(named) <= known
