"""Every error and warning is explained in `docs/troubleshooting.md`."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ERRORS = {
    "DataError", "UserError", "HpoError", "DiskFullError", "FailuresError", "RowFaultError", "LockLostError",
    "LeaseLostError", "StoreLockedError",
}  # fmt: skip
TELLING = 7
"""So many letters in a row can be found by; shorter pieces are what was handed on from elsewhere."""


def messages(said: Callable[[ast.AST], ast.expr | None]) -> Iterator[tuple[str, str]]:
    """Where each is said, and its text, with … for what differs; one that is put together before, by its variable."""
    for package in ("data", "hpo", "model", "studies"):
        for file in sorted((ROOT / package).rglob("*.py")):
            nodes = list(ast.walk(ast.parse(file.read_text())))
            for node in nodes:
                if (found := said(node)) is None:
                    continue
                for expression in _assigned(nodes, found.id) if isinstance(found, ast.Name) else [found]:
                    text = re.sub(r"%[-.\d]*[a-z]", "…", "".join(_pieces(expression)))
                    yield f"{file.relative_to(ROOT)}:{found.lineno}", " ".join(text.replace("`", "").split())


def _assigned(nodes: list[ast.AST], name: str) -> Iterator[ast.expr]:
    for node in nodes:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            yield node.value


def of_trouble(node: ast.AST) -> ast.expr | None:
    """The text of an error, wherever it is made, of a warning, of a fault that the doctor finds, of a worker's notice."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[text, *_]) if name in ERRORS:
            return text
        case ast.Call(func=ast.Attribute(attr="warning"), args=[text, *_]):
            return text
        case ast.Call(func=ast.Name(id="Finding"), args=[_, text], keywords=[ast.keyword(arg="is_fault"), *_]):
            return text
        case ast.Call(func=ast.Attribute(attr="append", value=ast.Attribute(attr="_errors")), args=[text]):
            return text
        case ast.Dict(keys=[ast.Constant(value="event"), ast.Constant(value="text")], values=[kind, text]):
            return text if isinstance(kind, ast.Constant) and kind.value in {"error", "notice"} else None
    return None


def of_any_kind(node: ast.AST) -> ast.expr | None:
    """That, and whatever else is told."""
    match node:
        case ast.Call(func=ast.Attribute(attr="say" | "write" | "put"), args=[text, *_]):
            return text
        case ast.Call(func=ast.Name(id="say" | "_say" | "tell"), args=[text, *_]):
            return text
        case ast.Return(value=ast.JoinedStr() as text):
            return text
    return of_trouble(node)


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
        (place, text)
        for place, text in messages(of_trouble)
        if max(len(piece.strip()) for piece in text.split("…")) >= TELLING
    ]
    missing = [(place, text) for place, text in found if not any(piece in text for piece in _explained())]

    assert len(found) > 200
    assert missing == []


def test_nothing_is_explained_that_is_not_said():
    said = [text for _, text in messages(of_any_kind)]

    assert [piece for piece in _explained() if not any(piece in text for text in said)] == []
