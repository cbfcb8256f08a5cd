"""Where MLflow keeps runs: a tracking URI is checked, and a SQLite store of its own is made whole before it is used."""

import ipaddress
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from hpo.errors import DiskFullError, StoreLockedError, UserError, disk_is_full, room
from hpo.sqlite import make_once, refuse_network
from hpo.tracked import DEFAULT_URI
from hpo.urls import masked, sqlite_path

_CREDENTIALS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Variables whose value MLflow sends with each request."""
_PLAIN = "HPO_PLAIN_HTTP"


def check_uri(uri: str) -> bool:
    """Refuse a tracking URI that can be none, at once: without MLflow, whose import takes two seconds.

    Returns:
        Whether nothing more can be known of it beforehand: a server, or a SQLite file that is yet to be made.

    Raises:
        UserError: it can't be a tracking URI, holds a password, would be sent one unencrypted, or is a place where no
            store can be.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise UserError("--tracking-uri is no URI, need sqlite:///FILE or http://HOST:PORT") from None
    # Wherever it stands there is no other use for it, but in the path of a file.
    if "@" in parts.netloc or ("@" in uri and parts.scheme != "sqlite"):
        raise UserError(
            "--tracking-uri must hold no user and password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if parts.scheme in {"http", "https"}:
        if not parts.hostname:
            raise UserError(f"--tracking-uri {masked(uri)!r} names no host, need http://HOST:PORT")
        try:
            _ = parts.port
        except ValueError:
            raise UserError("--tracking-uri has a port that is none, need http://HOST:PORT") from None
        if parts.query or parts.fragment:
            raise UserError("--tracking-uri must end before its ? or #, need http://HOST:PORT")
        is_safe = parts.scheme == "https" or _is_loopback(parts.hostname) or os.environ.get(_PLAIN) == "1"
        if not is_safe and (sent := _credentials()) is not None:
            raise UserError(
                f"--tracking-uri {masked(uri)!r} would be sent {sent} unencrypted; use https://, or set {_PLAIN}=1 "
                "where the way there is safe"
            )
        return True
    if parts.scheme != "sqlite":
        raise UserError(f"--tracking-uri {masked(uri)!r} is not supported, need sqlite:///FILE or http://HOST:PORT")
    path = sqlite_path(uri)
    refuse_network(path)
    if uri == DEFAULT_URI and _is_file_store(Path("mlruns")):
        raise UserError(
            "./mlruns holds an old MLflow file store, which MLflow no longer reads beside mlflow.db; move it away, or "
            "migrate it with `mlflow migrate-filestore --source ./mlruns --target sqlite:///mlflow.db`"
        )
    return os.access(path.parent, os.W_OK | os.X_OK) and not path.exists()


def _credentials() -> str | None:
    """Where the secret is that MLflow sends with each request; None where there is none."""
    if found := [name for name in _CREDENTIALS if os.environ.get(name)]:
        return found[0]
    file = Path("~/.mlflow/credentials").expanduser()
    with suppress(OSError, ValueError):
        if "mlflow_tracking_password" in file.read_text():
            return f"the password of {file}"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def open_uri(uri: str, *, make: bool = True) -> str:
    """The tracking URI, ready to be used: of a SQLite store the schema is made, once, before anybody opens it.

    Args:
        uri: as it was given.
        make: whether to make a SQLite store that is not there; else it is only to be asked, and stays unmade.

    Raises:
        UserError: as `check_uri`, and where its store is another version's.
        DiskFullError: no room to make it.
        StoreLockedError: another program has held it for seconds.
    """
    check_uri(uri)
    if not uri.startswith("sqlite:") or not (make or sqlite_path(uri).is_file()):
        return uri
    from hpo.tracking import MlflowClient, make_schema

    path = sqlite_path(uri)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_once(path, make_schema)
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow raises its own, SQLAlchemy's and alembic's here
        if disk_is_full(error):
            raise DiskFullError(f"{path}: no room for MLflow's store: {room(path)}") from None
        if isinstance(error, OSError):
            raise UserError(f"{path}: {error.strerror or error}") from None
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "schema" in words:
            raise UserError(
                f"{path}: made by another version of MLflow; back it up and run `mlflow db upgrade {uri}`"
            ) from None
        if "database is locked" in words:
            raise StoreLockedError(f"{path}: another program holds MLflow's store") from None
        raise UserError(f"{path}: not a usable MLflow store ({words:.200})") from None
    return uri


def _is_file_store(folder: Path) -> bool:
    return any(p.name.isdigit() and (p / "meta.yaml").exists() for p in folder.iterdir()) if folder.is_dir() else False
