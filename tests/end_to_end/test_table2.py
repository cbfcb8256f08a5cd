"""The paper's four rows, scaled down: rows that differ in epochs alone share their training, and lose nothing by it."""

import pytest

from tests.end_to_end.stores import run, runs, trials

pytestmark = pytest.mark.slow

STUDY = """
from dataclasses import replace
from studies import table2
from studies.faces import drawn_faces, face_trainer

EPOCHS = (5, 10)


def suggest(trial):
    return {{
        "optimizer": trial.suggest_categorical("optimizer", ("sgd", "adam")),
        "learning_rate": 0.05, "batch_size": 32, "epochs": trial.suggest_categorical("epochs", EPOCHS), "dropout": 0.2,
    }}


FACES = drawn_faces(n_train=256, n_validation=128, n_test=0, image_size=24)
STUDY = replace(
    table2.STUDY, name="small", suggest=suggest, max_epochs=10, reuse_epochs={reuse}, summarize=None,
    prepare=face_trainer(FACES, pool_stride=2),
)
"""


def test_the_four_rows_cost_two_thirds_and_say_the_same_as_four_separate_trials(tmp_path):
    (tmp_path / "small.py").write_text(STUDY.format(reuse=True))

    # One trial at a time: how many threads each has is part of its numbers.
    done = run(tmp_path, "--study", "small.py", "--device", "cpu", "--workers", "1")

    assert done.returncode == 0, done.stderr
    rows = {(t.params["optimizer"], t.params["epochs"]): t for t in trials(tmp_path, "small")}
    assert len(rows) == 4
    assert {len(t.intermediate_values) for (_, epochs), t in rows.items() if epochs == 10} == {10}
    # Every epoch that is trained takes its own time; one that is read off another trial has that trial's.
    timed = [
        seconds for each, points in runs(tmp_path, "small").values() for _, seconds in points.get("epoch_seconds", [])
    ]
    assert len(timed) == 30
    assert len(set(timed)) == 20
    for (optimizer, epochs), trial in rows.items():
        assert list(trial.intermediate_values.values()) == trained_alone(tmp_path, optimizer, epochs, trial.number)
        assert trial.value == trial.intermediate_values[epochs - 1]


def trained_alone(tmp_path, optimizer: str, epochs: int, number: int) -> list[float]:
    from data.synthetic import synthetic_faces
    from hpo.prepared import cores
    from hpo.seeds import configuration_seed
    from model.trainer import FaceTrainer

    faces = synthetic_faces(n_train=256, n_validation=128, n_test=0, image_size=24)
    params = {"optimizer": optimizer, "learning_rate": 0.05, "batch_size": 32, "epochs": epochs, "dropout": 0.2}
    trainer = FaceTrainer(faces, device="cpu", pool_stride=2, threads=cores())
    seed = configuration_seed(0, params)
    return [m["val_accuracy"] for m in trainer.train(params, seed=seed, workdir=tmp_path / f"alone-{number}")]


def test_a_trainer_that_can_not_share_is_refused(tmp_path):
    fields = "metric='m', reuse_epochs=True"
    (tmp_path / "s.py").write_text(
        "from hpo.spec import StudySpec\n"
        "class T:\n    def train(self, params, *, seed, workdir):\n        yield {'m': 1.0}\n"
        f"STUDY = StudySpec(name='s', suggest=lambda t: {{}}, prepare=lambda c: T(), {fields})\n"
    )

    done = run(tmp_path, "--study", "s.py")

    assert done.returncode == 2
    assert "continues_past_epochs = True" in done.stderr
