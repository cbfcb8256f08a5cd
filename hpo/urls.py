"""URLs of databases: what they name, and how they may be shown."""

import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from hpo.errors import UserError
from hpo.names import DEFAULT_URL

_SHOWN = {"host", "port", "user", "dbname", "application_name", "connect_timeout", "target_session_attrs", "sslmode"}
"""What a URL may say after its `?` and be shown; anything else may be a secret, if only by a slip of the keyboard."""


def is_sqlite(url: str) -> bool:
    """Whether a URL is of SQLite; else it is of PostgreSQL.

    Raises:
        UserError: it is no URL, or of neither.
    """
    try:
        backend = make_url(url).get_backend_name()
    except (ArgumentError, ValueError):
        raise UserError(
            f"--storage {masked(url)!r} is no URL, need sqlite:///FILE (such as {DEFAULT_URL}) or postgresql+psycopg://"
        ) from None
    if backend not in {"sqlite", "postgresql"}:
        hint = "; write postgresql+psycopg://" if backend == "postgres" else ""
        raise UserError(
            f"--storage {masked(url)!r}: {backend} is not supported, need sqlite:///FILE or postgresql+psycopg://{hint}"
        )
    return backend == "sqlite"


def sqlite_path(url: str) -> Path:
    """The file that a SQLite URL names, absolute.

    Raises:
        UserError: another database, or no file.
    """
    if not is_sqlite(url):
        raise UserError(f"{masked(url)!r} is no file, need sqlite:///FILE")
    parsed = make_url(url)
    if not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise UserError(f"--storage {masked(url)!r} names no file, need sqlite:///FILE (such as {DEFAULT_URL})")
    return Path(parsed.database).absolute()


def is_missing(uri: str) -> bool:
    """Whether a URI names a SQLite file that is not there: whoever asked it anything would make it."""
    return uri.startswith("sqlite:") and not sqlite_path(uri).is_file()


def masked(url: str) -> str:
    """The URL without its password, whether or not it can be parsed."""
    try:
        parsed: URL | None = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or "@" in (parsed.host or ""):  # no URL, or one whose password has an @ in it
        head, at, tail = url.rpartition("@")
        text = f"{head.partition(':')[0]}://***@{tail}" if at else url
        given = r"(\w+)(\s*=\s*)('[^']*'?|[^&\s]+)"
        return re.sub(given, lambda m: m[0] if m[1].lower() in _SHOWN else f"{m[1]}{m[2]}***", text)
    hidden = {key: value if key.lower() in _SHOWN else "***" for key, value in parsed.query.items()}
    return parsed.set(query=hidden).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def shown(argument: str) -> str:
    """An argument of a command line as it may be shown: a URL in it without its password."""
    head, equals, tail = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{head}{equals}{masked(tail)}" if "://" in tail and ("@" in tail or "?" in tail) else argument
