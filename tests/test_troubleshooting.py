"""Every error and warning is explained in `docs/troubleshooting.md`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ERRORS = {
    "DataError", "UserError", "HpoError", "DiskFullError", "FailuresError", "RowFaultError", "LockLostError",
    "LeaseLostError", "StoreLockedError",
}  # fmt: skip
TELLING = 7
"""So many letters in a row can be found by; shorter pieces are what was handed on from elsewhere."""


def messages() -> Iterator[tuple[str, str]]:
    """Where each is raised or logged, and its text, with … for what differs."""
    for package in ("data", "hpo", "model", "studies"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if (said := _said(node)) is not None:
                    text = re.sub(r"%[-.\d]*[a-z]", "…", "".join(_pieces(said)))
                    yield f"{file.relative_to(ROOT)}:{said.lineno}", " ".join(text.replace("`", "").split())


def _said(node: ast.AST) -> ast.expr | None:
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
        raised = node.exc.func
        return node.exc.args[0] if isinstance(raised, ast.Name) and raised.id in ERRORS else None
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "warning"
        and node.args
    ):
        return node.args[0]
    return None


def _pieces(said: ast.expr) -> Iterator[str]:
    match said:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=values):
            for value in values:
                yield from _pieces(value)
        case ast.BinOp(left=left, right=right):
            yield from _pieces(left)
            yield from _pieces(right)
        case _:
            yield "…"


def _explained() -> set[str]:
    """What the tables quote of messages, in pieces."""
    rows = [line for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines() if line.startswith("| `")]
    quoted = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    return {piece.strip() for quote in quoted for piece in quote.split("…") if len(piece.strip()) >= TELLING}


def test_every_error_and_warning_is_explained():
    found = [
        (place, text) for place, text in messages() if max(len(piece.strip()) for piece in text.split("…")) >= TELLING
    ]
    missing = [(place, text) for place, text in found if not any(piece in text for piece in _explained())]

    assert len(found) > 150
    assert missing == []


def test_nothing_is_explained_that_is_not_said():
    said = [text for _, text in messages()]

    assert [piece for piece in _explained() if not any(piece in text for text in said)] == []
