"""Hours of input that nobody would think of, for what reads files of users.

python -m tests.faults.fuzz csv --minutes 60
python -m tests.faults.fuzz archive --minutes 60
python -m tests.faults.fuzz checkpoint --minutes 60
python -m tests.faults.fuzz study --minutes 60

What is read must be good, or refused in words of its own; anything else that is raised is a find: it ends the run, and
is printed with what gave it. `csv` and `archive` need `pip install atheris`, which looks for bytes that reach new code,
and goes on from those in `--corpus`. The others are drawn by Hypothesis, from `--seed` on.
"""

import argparse
import contextlib
import inspect
import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import torch
from hypothesis import HealthCheck, given, seed, settings

from data import archives, fer2013, tables
from data import rows as data_rows
from data.errors import DataError
from hpo.errors import UserError
from hpo.loading import load_spec
from hpo.spec import FIELDS
from model.checkpoint import CheckpointFolder
from tests.data.rows import csv_text, rows
from tests.data.test_bad_inputs import npz, tarred, zipped

GOOD = csv_text(rows())
ARCHIVES = ("f.zip", "f.tar.gz", "f.csv.gz", "f.npz", "f.parquet")


def main() -> int:
    """Look for so long; an error that is a find ends it."""
    options = _parser().parse_args()
    logging.disable()
    sys.dont_write_bytecode = True  # a study's file changes more often than its time does
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
        os.environ["HPO_CACHE_DIR"] = place
        if options.what in DRAWN:
            draw(DRAWN[options.what](Path(place)), options.seed, options.minutes)
        else:
            _mutate(READ[options.what](Path(place)), options.what, options.corpus, options.minutes)
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("what", choices=[*READ, *DRAWN])
    found.add_argument("--minutes", type=float, default=60.0, metavar="M")
    found.add_argument("--seed", type=int, default=0, metavar="N")
    found.add_argument("--corpus", type=Path, default=Path("corpus"), metavar="FOLDER")
    return found


def _mutate(read: Callable[[bytes], None], what: str, corpus: Path, minutes: float) -> None:
    """Bytes that come from good ones, by what they reach."""
    import atheris

    folder = corpus / what
    folder.mkdir(parents=True, exist_ok=True)
    seeds = {
        "csv": [GOOD, GOOD.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + GOOD],
        "archive": [
            b"\0" + zipped({"fer2013.csv": GOOD}),
            b"\1" + tarred({"a/fer2013.csv": GOOD}),
            b"\3" + npz(),
        ],
    }
    for number, content in enumerate(seeds[what]):
        (folder / f"good-{number}").write_bytes(content)
    for module in (archives, fer2013, data_rows, tables):
        for _, function in inspect.getmembers(module, inspect.isfunction):
            atheris.instrument_func(function)
    # Its own memory grows by some 80 kB an input, what it reads by nothing: only one allocation that is large is a find.
    limits = (f"-max_total_time={minutes * 60:.0f}", "-max_len=300000", "-rss_limit_mb=0", "-malloc_limit_mb=1024")
    atheris.Setup([sys.argv[0], str(folder), *limits], read)
    atheris.Fuzz()


def draw(check: Callable[[], None], first: int, minutes: float) -> None:
    """Examples, some hundreds from each seed."""
    end, n = time.monotonic() + minutes * 60, first
    while n == first or time.monotonic() < end:
        seed(n)(check)()
        n += 1
    sys.stdout.write(f"seeds {first} to {n - 1}: no find\n")


def csv(place: Path) -> Callable[[bytes], None]:
    """A csv file of these bytes."""

    def read(content: bytes) -> None:
        read_file(place / "f.csv", content)

    return read


def archive(place: Path) -> Callable[[bytes], None]:
    """An archive or a table of these bytes, whose first one says of which kind."""

    def read(content: bytes) -> None:
        if content:
            read_file(place / ARCHIVES[content[0] % len(ARCHIVES)], content[1:])

    return read


def read_file(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with contextlib.suppress(DataError):
        fer2013.open_rows(file, file.parent / "cache")
    file.unlink()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def checkpoint(place: Path) -> Callable[[], None]:
    """A checkpoint's folder in which one file is other bytes, or the manifest another value."""
    files = ("epoch-000001.pt", "epoch-000002.pt", "best-000001.safetensors", "manifest.json")

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from(files), st.data())
    def check(name: str, data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            kept = CheckpointFolder(Path(folder))
            for epoch in (1, 2):
                kept.save({"epoch": epoch, "w": torch.ones(3)}, epoch, (1, {"w": torch.ones(3)}))
            file = Path(folder) / name
            content = file.read_bytes()
            file.write_bytes(data.draw(_changed(content, as_value=name.endswith("json"))))
            for payload, weights in kept.load():
                assert payload["epoch"] in {1, 2}
                assert torch.equal(payload["w"], torch.ones(3))
                assert torch.equal(weights["w"], torch.ones(3))
            list(kept.faults())

    return check


def _changed(content: bytes, *, as_value: bool) -> st.SearchStrategy[bytes]:
    at = st.integers(0, len(content) - 1)
    flipped = st.builds(
        lambda i, bit: content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :], at, st.integers(0, 7)
    )
    cut = st.builds(lambda i: content[:i], at)
    found = flipped | cut | st.binary(max_size=200)
    if as_value:
        keys = st.sampled_from(["epoch", "file", "sha256", "best_epoch", "best_file", "best_sha256"])
        entries = json.loads(content)
        other = st.lists(PLAIN, max_size=3) | PLAIN
        one = st.builds(lambda key, value: [{**entries[0], key: value}, entries[1]], keys, PLAIN)
        found |= (other | one).map(lambda value: json.dumps(value, default=str).encode())
    return found


def study(place: Path) -> Callable[[], None]:
    """A study's file whose declaration has other values, other names, or a comment after it."""
    file = place / "fuzzed.py"
    values = PLAIN.map(repr) | st.sampled_from(["len", "lambda trial: {}", "print", "object()", "...", "STUDY"])
    names = st.sampled_from(FIELDS) | st.from_regex(r"[a-z_]{1,8}", fullmatch=True)

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.dictionaries(names, values, max_size=6), st.text(max_size=20) | st.none())
    def check(fields: dict[str, str], comment: str | None) -> None:
        whole: dict[str, Any] = {
            "name": "'fuzzed'", "suggest": "lambda trial: {}", "prepare": "lambda context: None", "metric": "'m'", **fields,
        }  # fmt: skip
        declared = ", ".join(f"{name}={value}" for name, value in whole.items())
        text = f"from hpo.spec import StudySpec\nnan = inf = 0.0\nSTUDY = StudySpec({declared})\n"
        file.write_text(text + ("" if comment is None else f"# {comment}"), errors="surrogatepass")
        with contextlib.suppress(UserError):
            load_spec(str(file))

    return check


READ = {"csv": csv, "archive": archive}
DRAWN = {"checkpoint": checkpoint, "study": study}

if __name__ == "__main__":
    sys.exit(main())
