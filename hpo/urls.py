"""URLs of databases: what they name, and how they may be shown."""

import re
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from hpo.errors import UserError
from hpo.names import DEFAULT_URL

_SHOWN = {"host", "port", "user", "dbname", "application_name", "connect_timeout", "target_session_attrs", "sslmode"}
"""What a URL may say after its `?` and be shown."""
_PLAIN = re.compile(r"[\w.:/-]+")


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
    """The URL as it may be shown: without its password, and without whatever may be one by a slip of the keyboard."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return re.sub(r"[:=].*", r"***", url, flags=re.DOTALL)  # whoever typed it knows what it was
    if "@" in (parsed.host or "") or (
        not parsed.drivername.startswith("sqlite") and re.search("[@#&;]", parsed.database or "")
    ):
        return f"{parsed.drivername}://***"
    hidden = {
        key: value if key in _SHOWN and _PLAIN.fullmatch(str(value)) else "***" for key, value in parsed.query.items()
    }
    return parsed.set(query=hidden).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def shown(argument: str) -> str:
    """An argument of a command line as it may be shown: a URL in it without its password."""
    head, equals, tail = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{head}{equals}{masked(tail)}" if "://" in tail else argument
