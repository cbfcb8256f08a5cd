"""The study of the fault campaign, left alone."""

import pytest

from tests.faults.campaign import Outcome, begin, command, outcome, said


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Outcome:
    """What is left of it."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    begin(folder)
    storage = f"sqlite:///{folder / 'hpo.db'}"
    assert command(folder, storage) == 0, said(folder)
    return outcome(folder, storage)
