"""Looks up every locked package among the known vulnerabilities (pip-audit): a finding fails; not to be told is a notice.

.venv/bin/python -m tests.audit
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"^([A-Za-z0-9._-]+==[^\s;\\]+)", re.MULTILINE)


def main() -> int:
    """Audit; 1 where a package has a known vulnerability, or pip-audit does not do its work."""
    packages: list[dict[str, Any]] = []
    for pins in rounds(pinned()):
        found = _audited(pins)
        if isinstance(found, str):
            is_away = "connect" in found.lower()
            sys.stdout.write(f"{'notice: ' * is_away}the locked packages could not be audited: {found}\n")
            return not is_away
        packages += found
    lines = list(findings(packages))
    sys.stdout.write("".join(f"{line}\n" for line in (*lines, said(packages))))
    return bool(lines)


def pinned() -> list[str]:
    """Every package of the lock file, for whichever system, and torch, which is installed by its version alone."""
    torch = re.findall(r"torch==[0-9.]+", (ROOT / "Makefile").read_text())[0]
    return sorted({*PINNED.findall((ROOT / "requirements.lock").read_text()), torch})


def rounds(pins: Sequence[str]) -> Iterator[list[str]]:
    """The pins so that each round has one version of a package: pip-audit takes no more."""
    left = list(pins)
    while left:
        first = {pin.split("==")[0]: pin for pin in reversed(left)}
        yield sorted(first.values())
        left = [pin for pin in left if pin not in first.values()]


def _audited(pins: Sequence[str]) -> list[dict[str, Any]] | str:
    """What pip-audit found of each; or its last word, where it found nothing out."""
    with tempfile.TemporaryDirectory() as place:
        asked, report = Path(place) / "pins.txt", Path(place) / "report.json"
        asked.write_text("\n".join(pins))
        command = ["pip_audit", f"--requirement={asked}", "--no-deps", "--disable-pip", "--progress-spinner=off"]
        done = subprocess.run(
            [sys.executable, "-m", *command, "--format=json", f"--output={report}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if report.exists():  # its exit code does not tell a finding from a failure
            found: list[dict[str, Any]] = json.loads(report.read_text())["dependencies"]
            return found
    return (done.stderr.strip().splitlines() or ["no word"])[-1]


def findings(packages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each known vulnerability."""
    for package in packages:
        for one in package.get("vulns", ()):
            mended = ", ".join(one["fix_versions"]) or "no version yet"
            yield f"{package['name']} {package['version']}: {one['id']}, mended in {mended}"


def said(packages: Sequence[dict[str, Any]]) -> str:
    """How many could be looked up, and why the others could not."""
    reasons = [package["skip_reason"] for package in packages if "skip_reason" in package]
    if not reasons:
        return f"{len(packages)} packages are audited"
    return f"notice: {len(reasons)} of {len(packages)} packages could not be audited: {reasons[0]}, …"


if __name__ == "__main__":
    sys.exit(main())
