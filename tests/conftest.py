"""What all tests share: a cache of their own, and where the real data are."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.hpo.postgres import a_server

# Triton decides as it is first imported whether its own functions are interpreted, and some of torch imports it unasked.
# What is compiled for a GPU can therefore only be tested in a process of its own.
with pytest.MonkeyPatch.context() as _environment, suppress(ImportError):
    _environment.setenv("TRITON_INTERPRET", "1")
    import triton.language  # noqa: F401


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def real_csv() -> Path:
    """The real fer2013.csv."""
    folder = os.environ.get("FER2013_DIR")
    if not folder or not (path := Path(folder) / "fer2013.csv").is_file():
        pytest.skip("FER2013_DIR names no folder with fer2013.csv")
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 512 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512m", "none", str(place)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("a file system can't be mounted here: needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server for all tests that leave it up; each takes a database of its own."""
    with a_server() as server:
        yield server
