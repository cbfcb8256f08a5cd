"""Which commit this code is."""

import subprocess
from functools import cache
from pathlib import Path


@cache
def git_commit() -> str | None:
    """The commit that this code stands at, with `-dirty` where it was changed since; None outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
