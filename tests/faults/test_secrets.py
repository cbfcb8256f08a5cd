"""No secret of the user's is in any file, store or line of output, whatever fails."""

import subprocess
import sys
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.end_to_end.stores import environment
from tests.end_to_end.test_outage import free_port, mlflow_server
from tests.hpo.postgres import Postgres, a_server
from tests.hpo.toy import write_toy

pytestmark = pytest.mark.slow

SECRETS = {name: f"canary-{uuid.uuid4().hex}" for name in (
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "HPO_OWN_SECRET", "url", "remote",
)}  # fmt: skip


def whole_database(url: str) -> bytes:
    """All rows of all tables of a PostgreSQL database, as text."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = [
            connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(name))).fetchall()
            for (name,) in tables
        ]
    assert sum(map(len, rows)) > 20
    return "\n".join(text for table in rows for (text,) in table).encode()


@pytest.fixture
def server() -> Iterator[Postgres]:
    """One of its own: it is taken down."""
    with a_server() as found:
        yield found


def test_six_secrets_are_nowhere_after_a_study_in_which_everything_fails_once(tmp_path, server):
    plain = server.url(uuid.uuid4().hex)
    url = plain.replace("postgres:@", f"postgres:{SECRETS['url']}@")
    remote = f"https://somebody:{SECRETS['remote']}@example.com/faces.git"
    for command in (["git", "init", "-q"], ["git", "remote", "add", "origin", remote]):
        subprocess.run(command, cwd=tmp_path, check=True)
    quoting = 'f\'{os.environ["AWS_SECRET_ACCESS_KEY"]} of https://u:{os.environ["HPO_OWN_SECRET"]}@h/x\''
    fails = (
        f"if not (Path(workdir) / 'tried').exists() or Path(workdir).name == '1':\n"
        f"                (Path(workdir) / 'tried').touch()\n                raise ValueError({quoting})"
    )
    study = write_toy(tmp_path, trials=3, inject=fails, fields="retries=1")
    port = free_port()
    own = {name: secret for name, secret in SECRETS.items() if name.isupper()}

    def say(module: str, *args: str, code: int = 0) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", module, "--study", str(study), "--storage", url, "-v", *args],
            cwd=tmp_path, env={**environment(), **own}, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr.decode()
        return done.stdout + done.stderr

    tracking = ("--tracking-uri", f"http://127.0.0.1:{port}")
    said = say("hpo.run", *tracking)  # while MLflow is away
    with mlflow_server(tmp_path, port):
        said += say("hpo.run", *tracking)
        said += say("hpo.report", *tracking)
    said += say("hpo.run", "--tracking-uri", f"http://u:{SECRETS['url']}@127.0.0.1:{port}", code=2)
    server.stop()
    try:
        said += say("hpo.run", *tracking, code=2)
    finally:
        server.start()

    (tmp_path / ".git" / "config").unlink()  # the one file that had it before
    places = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places |= {"what was said": said, "the database": whole_database(plain)}
    assert len(places) > 20
    assert b"postgres:***@" in said
    assert b"ValueError: *** of https://u:***@h/x (toy.py:" in said
    assert "error.txt" in {place.rpartition("/")[2] for place in places}
    assert b"toy" in places["the database"]
    found = [
        (name, place) for name, secret in SECRETS.items() for place, text in places.items() if secret.encode() in text
    ]
    assert found == []
