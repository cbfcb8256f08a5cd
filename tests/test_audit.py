"""The audit of what is locked: all of it is asked for, a finding is a line, what could not be asked is a notice."""

import json
import re

import pytest

from tests import audit

KNOWN = {"name": "a", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}]}
GOOD = {"name": "b", "version": "2", "vulns": []}
UNASKED = {"name": "c", "skip_reason": "no answer"}


def test_every_locked_package_and_torch_is_asked_for_in_each_of_its_versions():
    pins = audit.pinned()
    asked = list(audit.rounds(pins))

    assert sorted(pin for each in asked for pin in each) == pins
    assert all(len({pin.split("==")[0] for pin in each}) == len(each) for each in asked)
    assert any(re.fullmatch(r"torch==\d+\.\d+\.\d+", pin) for pin in pins)
    assert {"optuna", "mlflow", "numpy", "sqlalchemy", "pip-audit"} <= {pin.split("==")[0] for pin in pins}


@pytest.mark.parametrize(("found", "says", "code", "words"), [
    ([KNOWN, GOOD], "1 vulnerability", 1, ["a 1.0: PYSEC-1, mended in 1.1, 2.0", "2 packages are audited"]),
    ([GOOD, UNASKED], "", 0, ["notice: 1 of 2 packages could not be audited: no answer"]),
    (None, "Could not connect to PyPI", 0, ["notice: the locked packages could not be audited: Could not connect"]),
    (None, "package x has duplicate requirements", 1, ["the locked packages could not be audited: package x has"]),
])  # fmt: skip
def test_a_finding_fails_and_so_does_an_audit_that_goes_wrong(found, says, code, words, tmp_path, monkeypatch, capfd):
    (tmp_path / "report").write_text(json.dumps({"dependencies": found}))
    writes = "" if found is None else f'cp {tmp_path / "report"} "${{last#--output=}}"'
    stands_in = tmp_path / "python"
    stands_in.write_text(f"#!/bin/sh\nfor last; do :; done\n{writes}\necho '{says}' >&2\nexit 1\n")
    stands_in.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(stands_in))
    monkeypatch.setattr("tests.audit.pinned", lambda: ["a==1.0"])

    assert audit.main() == code

    said = capfd.readouterr().out
    assert all(each in said for each in words)
