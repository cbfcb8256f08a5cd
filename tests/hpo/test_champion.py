"""Which network may take a champion's place."""

from dataclasses import replace
from pathlib import Path

import pytest

from hpo.champion import Contender, champion_file, register, why_it_stays
from hpo.registry import registry
from hpo.tracking import MlflowClient
from hpo.tracking_store import open_uri

CONTENDER = Contender(
    study="toy", run_id="r", trial="toy-confirm #3", params={"x": 0.1}, metric="val_accuracy", direction="maximize",
    value=0.6, confirmed=True, configuration="abc 1", surpassed=("abc 2",), n_seeds=3, description={"data_digest": "d"}, figures={},
    file=Path("network.safetensors"),
)  # fmt: skip


def present(**fields):
    return replace(CONTENDER, trial="toy-confirm #0", **fields).tags()


@pytest.mark.parametrize(
    ("champion", "contender", "stays"),
    [
        (present(configuration="other 1", value=0.5), CONTENDER, None),
        (present(configuration="other 1", value=0.7), CONTENDER, "its val_accuracy is 0.7000, that of toy-confirm #3 0.6"),
        (present(configuration="other 1", value=0.6), CONTENDER, "its val_accuracy is 0.6000"),
        (present(configuration="abc 1", value=0.7, n_seeds=2), CONTENDER, None),  # itself, on more seeds
        (present(configuration="abc 1", value=0.7, n_seeds=5), CONTENDER, "its val_accuracy is 0.7000"),  # on fewer
        (present(configuration="abc 2", value=0.7, n_seeds=5), CONTENDER, "its val_accuracy is 0.7000"),
        (present(configuration="abc 2", value=0.7), CONTENDER, None),  # a rival that came out worse on the same seeds
        (present(confirmed=False, value=0.9), CONTENDER, None),
        (present(), replace(CONTENDER, confirmed=False, value=0.9), "it is confirmed, and this one is not"),
        (present(configuration="other 1", metric="val_loss", value=0.1), CONTENDER, "measured otherwise"),
        (present(configuration="other 1", description={}), CONTENDER, "it was trained on other data"),
        (
            present(configuration="other 1", direction="minimize", value=0.5),
            replace(CONTENDER, direction="minimize"),
            "its val_accuracy is 0.5000",
        ),
    ],
)  # fmt: skip
def test_only_a_better_one_that_can_be_compared_takes_its_place(champion, contender, stays):
    reason = why_it_stays(champion, contender)

    assert reason is None if stays is None else stays in str(reason)


def test_a_network_that_is_registered_again_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = open_uri("sqlite:///mlflow.db")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    run_id = client.create_run(client.create_experiment("toy")).info.run_id
    file = tmp_path / "network.safetensors"
    file.write_bytes(b"a network")
    first = replace(CONTENDER, run_id=run_id, confirmed=False, file=file)

    register(first, uri)
    served = tmp_path / "mlruns"
    before = {path: path.stat() for path in served.rglob("*")}
    said = register(replace(first, confirmed=True), uri)

    assert "version 2" in said
    assert {path: path.stat() for path in served.rglob("*")} == before
    assert champion_file("toy", uri, tmp_path / "copy").read_bytes() == b"a network"
    assert len({version.source for version in registry(uri).versions("toy")}) == 1
    assert registry(uri).by_alias("toy", "previous") is None
