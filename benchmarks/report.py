"""What a benchmark leaves for `--json`: machine, versions, commit, samples, ratios."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hpo.commit import git_commit


def installed(package: str) -> str:
    """A package's version, or `absent`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def write(path: Path, samples: Any, ratios: Mapping[str, float], packages: Iterable[str], **machine: Any) -> None:
    """Write the report; `machine` is what belongs to it beyond platform, processor and cores."""
    known = {"platform": platform.platform(), "processor": platform.processor(), "cores": os.cpu_count()}
    path.write_text(
        json.dumps({
            "machine": {**known, **machine},
            "versions": {"python": platform.python_version(), **{p: installed(p) for p in packages}},
            "commit": git_commit(),
            "samples": samples,
            "ratios": dict(ratios),
        })
    )  # fmt: skip
