"""However a trial is interrupted, what it yields in all is what it yields alone."""

import errno
import itertools
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from data.synthetic import synthetic_faces
from model import progress, steps
from model.checkpoint import CheckpointFolder
from model.hyperparameters import Hyperparameters
from model.needs import Needs
from model.optimizers import OPTIMIZERS
from model.pictures import draw
from model.trainer import FaceTrainer
from model.training import train_epochs

FACES = synthetic_faces(n_train=49, n_validation=21, n_test=14, image_size=16)
PARAMS = {"learning_rate": 0.01, "batch_size": 16, "epochs": 4, "dropout": 0.3, "optimizer": "sgd"}
METRICS = {
    "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1", "learning_rate",
    "images_per_second", "epoch_seconds",
}  # fmt: skip


def trainer(stop=lambda: False, **settings_) -> FaceTrainer:
    defaults = {"device": "cpu", "pool_stride": 2, "checkpoint_seconds": 0, "threads": 1}
    return FaceTrainer(FACES, stop=stop, **{**defaults, **settings_})


def timeless(history) -> list[dict[str, float]]:
    return [{k: v for k, v in m.items() if k not in {"images_per_second", "epoch_seconds"}} for m in history]


class Stopper:
    """Stops at the n-th time that it is asked."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def contents(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("checkpoint_seconds", [0, 3600])
@pytest.mark.parametrize("closes", [True, False])
def test_who_has_lost_a_trial_replaces_nothing_that_its_new_owner_has_put_there(tmp_path, checkpoint_seconds, closes):
    owned = [True]
    late = trainer(owned=lambda: owned[0], checkpoint_seconds=checkpoint_seconds)
    epochs = late.train(PARAMS, seed=1, workdir=tmp_path)
    next(epochs)
    owned[0] = False
    whole = list(trainer().train(PARAMS, seed=1, workdir=tmp_path))
    left = contents(tmp_path)

    if closes:
        epochs.close()
    else:
        assert len(list(epochs)) <= 3

    assert contents(tmp_path) == left
    assert timeless(trainer().train(PARAMS, seed=1, workdir=tmp_path)) == timeless(whole)


def limited(monkeypatch, n_images: int, after: int = 0) -> None:
    """From so many steps on there is memory for so many images at a time."""
    plain, n_steps = steps.step, itertools.count()

    def step(network, optimizer, batch, compute, n_parts=1):
        held = torch.ones(1000)
        if next(n_steps) >= after and math.ceil(len(batch.labels) / n_parts) > n_images:
            raise torch.OutOfMemoryError(f"CUDA out of memory beside {len(held)}")
        return plain(network, optimizer, batch, compute, n_parts)

    monkeypatch.setattr(steps, "step", step)


def test_where_memory_runs_out_batches_are_trained_in_parts_as_they_would_have_been(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patched:
        patched.setattr(Needs, "n_parts", lambda *_: 4)
        parts = list(trainer().train(PARAMS, seed=1, workdir=tmp_path / "parts"))
    limited(monkeypatch, n_images=5)
    short = trainer()

    assert timeless(short.train(PARAMS, seed=1, workdir=tmp_path / "short")) == timeless(parts)
    assert short.tags() == {"batch_parts": "4"}
    assert "memory ran out: from epoch 0 on a batch is trained in 4 parts" in caplog.text


def test_where_memory_runs_out_later_training_goes_on_from_the_last_whole_epoch(tmp_path, monkeypatch, caplog):
    whole = list(trainer().train(PARAMS, seed=1, workdir=tmp_path / "whole"))
    limited(monkeypatch, n_images=8, after=2 * 4 + 1)  # amid the third epoch
    short = trainer(checkpoint_seconds=3600)

    history = list(short.train(PARAMS, seed=1, workdir=tmp_path / "short"))

    assert len(history) == 4
    assert timeless(history[:2]) == timeless(whole[:2])
    assert caplog.text.count("memory ran out: from epoch 2 on a batch is trained in 2 parts") == 1
    assert timeless(trainer().train(PARAMS, seed=1, workdir=tmp_path / "short")) == timeless(history)
    list(short.train({**PARAMS, "batch_size": 8}, seed=1, workdir=tmp_path / "fits"))
    assert short.tags() == {}


def test_where_not_even_two_images_fit_that_is_an_error_and_what_was_trained_is_kept(tmp_path, monkeypatch):
    whole = list(trainer().train(PARAMS, seed=1, workdir=tmp_path / "whole"))
    with monkeypatch.context() as patched:
        limited(patched, n_images=1, after=5)
        epochs = trainer(checkpoint_seconds=3600).train(PARAMS, seed=1, workdir=tmp_path / "short")
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            list(epochs)

    assert timeless(trainer().train(PARAMS, seed=1, workdir=tmp_path / "short")) == timeless(whole)


def test_memory_that_runs_out_where_what_was_kept_last_is_damaged_is_an_error(tmp_path, monkeypatch):
    def step(*args: object, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
        if (tmp_path / "checkpoints" / "epoch-000002.pt").exists():
            (tmp_path / "checkpoints" / "epoch-000002.pt").write_bytes(b"")
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*args)

    plain = steps.step
    monkeypatch.setattr(steps, "step", step)
    epochs = trainer().train(PARAMS, seed=1, workdir=tmp_path)
    next(epochs)
    next(epochs)

    with pytest.raises(torch.OutOfMemoryError):
        next(epochs)


def test_memory_that_runs_out_as_an_epoch_is_copied_leaves_the_weights_of_the_best_one(tmp_path, monkeypatch):
    plain, n_copies = progress.snapshot, itertools.count()

    def snapshot(*args):
        if next(n_copies) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*args)

    monkeypatch.setattr("model.trainer.snapshot", snapshot)
    short = trainer(checkpoint_seconds=3600)

    history = list(short.train(PARAMS, seed=1, workdir=tmp_path))

    assert len(history) == 4
    assert short.tags() == {"batch_parts": "2"}
    best = max(metrics["val_accuracy"] for metrics in history)
    assert short.evaluate(tmp_path, "validation")["accuracy"] == best


@pytest.mark.parametrize(
    "words", ["cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory"]
)
def test_other_words_for_memory_that_ran_out_are_known_and_other_errors_are_errors(tmp_path, monkeypatch, words):
    plain, n_steps = steps.step, itertools.count()
    said = [words, "a size that does not match"]

    def step(*args):
        if next(n_steps) % 6 == 5:
            raise RuntimeError(said.pop(0))
        return plain(*args)

    monkeypatch.setattr(steps, "step", step)

    with pytest.raises(RuntimeError, match="a size that does not match"):
        list(trainer().train(PARAMS, seed=1, workdir=tmp_path))


def test_the_parts_of_a_trial_are_told_again_with_what_is_recorded_and_of_no_other(tmp_path, monkeypatch):
    short = trainer()
    with monkeypatch.context() as patched:
        limited(patched, n_images=5)
        list(short.train(PARAMS, seed=1, workdir=tmp_path / "short"))
    list(short.train(PARAMS, seed=2, workdir=tmp_path / "whole"))
    whole = short.tags()
    list(short.train(PARAMS, seed=1, workdir=tmp_path / "short"))

    assert (whole, short.tags()) == ({}, {"batch_parts": "4"})


def test_where_no_checkpoint_can_be_used_that_is_said_and_training_starts_again(tmp_path, caplog):
    whole = list(trainer().train(PARAMS, seed=1, workdir=tmp_path / "whole"))
    for damaged in ("manifest.json", "*.pt", "*.safetensors"):
        workdir = tmp_path / damaged[2:]
        epochs = trainer().train(PARAMS, seed=1, workdir=workdir)
        for _ in range(3):
            next(epochs)
        epochs.close()
        for file in (workdir / "checkpoints").glob(damaged):
            file.unlink()
        caplog.clear()

        assert timeless(trainer().train(PARAMS, seed=1, workdir=workdir)) == timeless(whole)
        assert caplog.text.count("no checkpoint can be used: training starts again from epoch 0") == 1


def test_where_the_newest_checkpoint_can_not_be_used_it_is_said_from_which_training_goes_on(tmp_path, caplog):
    whole = list(trainer().train(PARAMS, seed=1, workdir=tmp_path / "whole"))
    epochs = trainer().train(PARAMS, seed=1, workdir=tmp_path / "short")
    for _ in range(3):
        next(epochs)
    epochs.close()
    (tmp_path / "short" / "checkpoints" / "epoch-000003.pt").write_bytes(b"x")

    assert timeless(trainer().train(PARAMS, seed=1, workdir=tmp_path / "short")) == timeless(whole)
    assert "training goes on from the checkpoint of epoch 2" in caplog.text


def test_of_a_trial_that_has_trained_nothing_nothing_is_said(tmp_path, caplog):
    list(trainer().train(PARAMS, seed=1, workdir=tmp_path))

    assert "checkpoint" not in caplog.text


def test_who_has_lost_a_trial_amid_what_is_recorded_replaces_nothing(tmp_path):
    list(trainer().train(PARAMS, seed=1, workdir=tmp_path))
    epochs = trainer(owned=lambda: False).train(PARAMS, seed=1, workdir=tmp_path)
    next(epochs)
    (tmp_path / "artifacts" / "history.csv").write_text("another's")

    epochs.close()

    assert (tmp_path / "artifacts" / "history.csv").read_text() == "another's"


def test_an_epoch_yields_the_named_metrics(tmp_path):
    history = list(trainer().train(PARAMS, seed=1, workdir=tmp_path))

    assert len(history) == 4
    assert all(set(metrics) == METRICS for metrics in history)
    assert all(0 <= m["val_accuracy"] <= 1 and m["train_loss"] > 0 for m in history)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 35), seconds=st.sampled_from([0, 1e9]))
def test_stopped_anywhere_and_called_again_equals_uninterrupted(optimizer, n, seconds, tmp_path_factory):
    params = {**PARAMS, "optimizer": optimizer, "learning_rate": 1e-3}
    whole = list(trainer().train(params, seed=7, workdir=tmp_path_factory.mktemp("whole")))
    workdir = tmp_path_factory.mktemp("cut")

    first = list(trainer(Stopper(n), checkpoint_seconds=seconds).train(params, seed=7, workdir=workdir))
    again = list(trainer().train(params, seed=7, workdir=workdir))

    assert timeless(again) == timeless(whole)
    assert again[: len(first)] == first  # recorded epochs, times among them, come as they were


def test_what_was_no_training_is_counted(tmp_path):
    ours = trainer()
    before = ours.seconds()
    history = list(ours.train(PARAMS, seed=1, workdir=tmp_path))

    validated = sum(m["epoch_seconds"] - 49 / m["images_per_second"] for m in history)
    assert before == {"validation": 0, "checkpoint": 0}
    assert ours.seconds()["validation"] == pytest.approx(validated)
    assert ours.seconds()["checkpoint"] > 0


@pytest.mark.parametrize("augmentation", ["flip", "flip-shift"])
def test_varied_images_come_again_the_same_after_a_stop(augmentation, tmp_path):
    plain = list(trainer().train(PARAMS, seed=7, workdir=tmp_path / "plain"))
    whole = list(trainer(augmentation=augmentation).train(PARAMS, seed=7, workdir=tmp_path / "whole"))
    list(trainer(Stopper(9), augmentation=augmentation).train(PARAMS, seed=7, workdir=tmp_path / "cut"))
    again = list(trainer(augmentation=augmentation).train(PARAMS, seed=7, workdir=tmp_path / "cut"))

    assert timeless(again) == timeless(whole) != timeless(plain)


def test_an_augmentation_that_is_none_of_the_three_is_refused():
    with pytest.raises(ValueError, match="must be one of none, flip, flip-shift, got 'mixup'"):
        trainer(augmentation="mixup")


def test_resumed_weights_are_bit_for_bit_the_uninterrupted_ones(tmp_path):
    list(trainer().train(PARAMS, seed=7, workdir=tmp_path / "whole"))
    list(trainer(Stopper(9)).train(PARAMS, seed=7, workdir=tmp_path / "cut"))
    list(trainer().train(PARAMS, seed=7, workdir=tmp_path / "cut"))

    whole, cut = (load_file(tmp_path / name / "weights" / "best.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_closing_keeps_what_was_trained(tmp_path):
    epochs = trainer(checkpoint_seconds=1e9).train(PARAMS, seed=7, workdir=tmp_path)
    first = [next(epochs), next(epochs)]
    epochs.close()

    again = list(trainer().train(PARAMS, seed=7, workdir=tmp_path))

    assert again[:2] == first
    assert len(again) == 4


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CheckpointFolder, "save", refuse)

    with pytest.raises(OSError, match="No space left"):
        list(trainer().train(PARAMS, seed=1, workdir=tmp_path))


def test_another_seed_or_data_starts_again(tmp_path, caplog):
    first = list(trainer().train(PARAMS, seed=7, workdir=tmp_path))
    other = list(trainer().train(PARAMS, seed=8, workdir=tmp_path))

    assert timeless(other) != timeless(first)
    assert "made with other params, seed, data or device" in caplog.text


def test_randomness_is_the_trials_alone(tmp_path):
    torch.manual_seed(1)
    first = list(trainer().train(PARAMS, seed=7, workdir=tmp_path / "a"))
    torch.manual_seed(2)
    torch.rand(10)
    again = list(trainer().train(PARAMS, seed=7, workdir=tmp_path / "b"))

    assert timeless(first) == timeless(again)


def test_a_trial_goes_on_with_the_thread_count_that_it_began_with(tmp_path):
    whole = list(trainer(threads=1).train(PARAMS, seed=7, workdir=tmp_path / "whole"))
    list(trainer(Stopper(9), threads=1).train(PARAMS, seed=7, workdir=tmp_path / "cut"))

    again = list(trainer(threads=2).train(PARAMS, seed=7, workdir=tmp_path / "cut"))

    assert timeless(again) == timeless(whole)
    assert torch.get_num_threads() == 2


def test_divergence_is_yielded_ends_the_trial_and_stays_ended(tmp_path):
    params = {**PARAMS, "learning_rate": 1e3, "optimizer": "momentum", "epochs": 30}

    history = list(trainer().train(params, seed=1, workdir=tmp_path))
    again = list(trainer().train(params, seed=1, workdir=tmp_path))

    assert len(history) < 30
    assert not np.isfinite([history[-1]["train_loss"], history[-1]["val_loss"]]).all()
    assert len(again) == len(history)


def test_a_network_that_its_last_update_has_broken_has_no_accuracy():
    ours, one_batch = trainer(), Hyperparameters(**{**PARAMS, "batch_size": 49})
    state, asked = ours._fresh(one_batch, 1), []

    def breaks() -> bool:
        asked.append(1)
        if len(asked) == 2:  # before the first batch is validated
            next(state.network.parameters()).data.fill_(math.nan)
        return False

    (only,) = train_epochs(state, ours._training, ours._validation, one_batch, ours.compute, breaks)

    assert math.isfinite(only["train_loss"])
    assert math.isnan(only["val_accuracy"])
    assert math.isnan(only["val_macro_f1"])


def test_a_stopped_trial_leaves_the_weights_of_what_it_has(tmp_path):
    (first,) = trainer(Stopper(8)).train({**PARAMS, "batch_size": 7}, seed=1, workdir=tmp_path)

    assert first["val_accuracy"] == trainer().evaluate(tmp_path, "validation")["accuracy"]


def test_what_a_trial_leaves(tmp_path):
    history = list(trainer().train(PARAMS, seed=1, workdir=tmp_path))
    draw(tmp_path)

    assert {p.name for p in (tmp_path / "artifacts").iterdir()} == {
        "hyperparameters.json", "history.csv", "learning_curve.png", "confusion_matrix.png", "confusion_matrix.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "artifacts" / "hyperparameters.json").read_text())["optimizer"] == "sgd"
    assert pd.read_csv(tmp_path / "artifacts" / "history.csv")["val_accuracy"].tolist() == [
        pytest.approx(m["val_accuracy"]) for m in history
    ]
    confusion = json.loads((tmp_path / "artifacts" / "confusion_matrix.json").read_text())
    best = max(m["val_accuracy"] for m in history)
    assert np.trace(confusion["matrix"]) / np.sum(confusion["matrix"]) == pytest.approx(best)
    assert np.sum(confusion["matrix"]) == 21


def test_evaluate_scores_the_best_weights(tmp_path):
    ours = trainer()
    history = list(ours.train(PARAMS, seed=1, workdir=tmp_path))

    scored = ours.evaluate(tmp_path, "validation")

    assert scored["accuracy"] == pytest.approx(max(m["val_accuracy"] for m in history))
    assert set(ours.evaluate(tmp_path, "test")) == {"loss", "accuracy", "macro_f1"}


@pytest.mark.parametrize(
    ("change", "words"),
    [({"batch_size": 50}, "at most 49"), ({"lion": 1}, "unknown params lion"), ({"epochs": 0}, "epochs must be")],
)
def test_check_refuses_before_any_work(change, words):
    with pytest.raises(ValueError, match=words):
        trainer().check({**PARAMS, **change})


def test_check_names_what_is_missing():
    with pytest.raises(ValueError, match="missing params dropout"):
        trainer().check({k: v for k, v in PARAMS.items() if k != "dropout"})


def test_a_good_configuration_clearly_beats_bad_ones(tmp_path):
    """Drawn faces are hard enough that hyperparameters matter: what demo and every test of a search rest on."""
    faces = synthetic_faces(n_train=980, n_validation=350, image_size=24)
    ours = FaceTrainer(faces, device="cpu", pool_stride=2)

    def best(**change: object) -> float:
        params = {**PARAMS, "epochs": 4, "batch_size": 32, "optimizer": "adam", **change}
        history = ours.train(params, seed=1, workdir=tmp_path / str(len(list(tmp_path.iterdir()))))
        return max(m["val_accuracy"] for m in history)

    good = best(learning_rate=1e-3, dropout=0.1)
    assert good > best(learning_rate=1e-6, dropout=0.1) + 0.1
    assert good > best(learning_rate=0.3, dropout=0.1) + 0.1


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="can't be used here"):
        trainer(device="cuda:77")


def test_a_trial_that_ended_before_its_first_epoch_has_no_pictures(tmp_path):
    draw(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_fewer_epochs_are_read_off_and_more_go_on_from_a_shared_checkpoint(tmp_path):
    def trained(epochs, folder):
        return [
            {k: v for k, v in m.items() if "second" not in k}
            for m in trainer().train({**PARAMS, "epochs": epochs}, seed=1, workdir=folder)
        ]

    long, short = trained(6, tmp_path / "shared"), trained(2, tmp_path / "shared")
    longer = trained(8, tmp_path / "shared")

    assert short == long[:2] == trained(2, tmp_path / "alone")
    assert longer == trained(8, tmp_path / "whole")
    assert pd.read_csv(tmp_path / "shared" / "artifacts" / "history.csv").shape[0] == 8


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_trials_side_by_side_in_threads_yield_what_each_yields_alone(optimizer, tmp_path):
    trials = [{**PARAMS, "optimizer": optimizer, "dropout": p, "batch_size": b} for p, b in ((0.0, 16), (0.4, 7))]
    alone = [list(trainer().train(p, seed=i, workdir=tmp_path / f"alone{i}")) for i, p in enumerate(trials)]
    together = threading.Barrier(2)

    def run(i: int) -> list[dict[str, float]]:
        one = trainer()
        together.wait(60)
        return list(one.train(trials[i], seed=i, workdir=tmp_path / f"beside{i}"))

    with ThreadPoolExecutor(2) as threads:
        beside = list(threads.map(run, range(2)))

    assert [timeless(history) for history in beside] == [timeless(history) for history in alone]


def test_a_trial_goes_on_with_the_threads_it_began_with_beside_one_of_fewer(tmp_path):
    begun = trainer(threads=2).train(PARAMS, seed=1, workdir=tmp_path / "two")
    next(begun), next(begun)
    begun.close()
    alone = list(trainer(threads=2).train(PARAMS, seed=1, workdir=tmp_path / "alone"))
    together = threading.Barrier(2)

    def run(name: str, seed: int) -> list[int]:
        one = trainer(threads=1)
        together.wait(60)
        return [torch.get_num_threads() for _ in one.train(PARAMS, seed=seed, workdir=tmp_path / name)]

    with ThreadPoolExecutor(2) as threads:
        counts = list(threads.map(run, ("two", "one"), (1, 2)))

    assert counts == [[2] * 4, [1] * 4]
    assert timeless(trainer().train(PARAMS, seed=1, workdir=tmp_path / "two")) == timeless(alone)


def test_trials_at_a_time_share_the_trainers_threads_and_memory():
    ours = trainer(threads=4)

    rates = dict(ours.side_by_side([PARAMS]))

    assert set(rates) == {1, 2, 4}
    assert all(rate > 0 for rate in rates.values())
    assert torch.get_num_threads() == 4
    for small in (trainer(threads=1), trainer(threads=4, share=1e-12)):
        assert list(small.side_by_side([PARAMS])) == []
