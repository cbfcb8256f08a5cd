"""What a trial needs is known before it begins, and a batch that does not fit is split."""

import logging
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from data.synthetic import synthetic_faces
from model import needs
from model.hyperparameters import Hyperparameters
from model.network import EmotionCNN
from model.steps import n_parts_of, step
from model.trainer import FaceTrainer

FACES = synthetic_faces(n_train=49, n_validation=21, n_test=0, image_size=16)
PARAMS = {"learning_rate": 0.01, "batch_size": 16, "epochs": 2, "dropout": 0.0, "optimizer": "adam"}


def trainer() -> FaceTrainer:
    return FaceTrainer(FACES, device="cpu", pool_stride=2, checkpoint_seconds=0, threads=1)


def kept_bytes(network: EmotionCNN, images: Tensor) -> int:
    """Of all storages that a forward pass keeps; what does not grow with the batch is in it, too."""
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # the one thing by which two views of a storage are known
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images).float().logsumexp(1)
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("pool_stride", "size"), [(1, 48), (2, 48), (2, 24)])
def test_an_images_memory_is_what_a_step_keeps(pool_stride, size, dtype):
    with torch.device("meta"):
        network, images = EmotionCNN(0.5, pool_stride, size).to(dtype), torch.empty((4, 1, size, size), dtype=dtype)
    an_image = (kept_bytes(network, images) - kept_bytes(network, images[:2].clone())) / 2

    assert needs.image_bytes(pool_stride, size, dtype) == pytest.approx(1.25 * an_image, rel=0.01)


def test_the_published_network_has_133_million_weights():
    assert needs.weights_of(1, 48) == 133_083_015


@given(st.integers(2, 512), st.floats(1, 1e9), st.integers(0, 10**8), st.floats(1, 1e11))
def test_parts_are_as_few_as_fit(batch, an_image, n_weights, memory):
    of = needs.Needs(n_weights, an_image, memory)
    params = Hyperparameters(**{**PARAMS, "batch_size": batch})
    fixed, n = of.fixed(params), of.n_parts(params)

    assert 1 <= n <= batch
    largest = math.ceil(batch / n)
    assert largest * an_image + fixed <= memory * (1 + 1e-9) or largest == 1
    if n > 1:
        assert math.ceil(batch / (n - 1)) * an_image + fixed > memory * (1 - 1e-9)


@given(st.integers(1, 64), st.data())
def test_no_part_of_a_smaller_last_batch_is_larger_than_those_of_a_whole_one(batch, data):
    n_parts, n_images = data.draw(st.integers(1, batch)), data.draw(st.integers(1, batch))

    n = n_parts_of(n_images, batch, n_parts)

    assert math.ceil(n_images / n) <= math.ceil(batch / n_parts)


def test_gradients_of_parts_are_summed_to_the_batchs():
    ours = trainer()
    one, other = (ours._fresh(Hyperparameters(**PARAMS), seed=1) for _ in range(2))
    for state in (one, other):
        state.network.eval()  # batch norm would see a part
    batch = ours._training.batch(torch.arange(13), one.masks)

    loss, hits = step(one.network, one.optimizer, batch, ours.compute)
    parts_loss, parts_hits = step(other.network, other.optimizer, batch, ours.compute, n_parts=3)

    assert float(parts_loss) == pytest.approx(float(loss), rel=1e-5)
    assert int(parts_hits) == int(hits)
    for p, q in zip(one.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-6)


def test_a_batch_that_does_not_fit_is_said_and_trained_in_parts_also_by_who_goes_on(tmp_path, caplog):
    small, params = trainer(), Hyperparameters(**PARAMS)
    room = small._needs.fixed(params) + 5.5 * small._needs.image_bytes
    small._needs = replace(small._needs, memory=room)

    with caplog.at_level(logging.WARNING):
        epochs = small.train(PARAMS, seed=3, workdir=tmp_path)
        first = next(epochs)
        epochs.close()
    resumed = list(trainer().train(PARAMS, seed=3, workdir=tmp_path))  # on a machine of more memory
    whole = list(small.train(PARAMS, seed=3, workdir=tmp_path / "whole"))

    assert "a batch of 16 needs about" in caplog.text
    assert "trained in 4 parts" in caplog.text
    assert resumed[0] == first
    assert [m["train_loss"] for m in resumed] == [m["train_loss"] for m in whole]
    assert whole[0]["train_loss"] != next(trainer().train(PARAMS, seed=3, workdir=tmp_path / "alone"))["train_loss"]


def test_the_estimate_spans_the_cheapest_and_the_dearest():
    candidates = [{**PARAMS, "batch_size": size, "optimizer": name} for size in (4, 32) for name in ("sgd", "adam")]

    found = trainer().estimate(candidates)

    assert 0 < found["epoch_seconds"][0] <= found["epoch_seconds"][1] < 60
    weights = needs.weights_of(2, 16) * 4
    assert list(found["checkpoint"]) == [2 * weights, 4 * weights]
    assert found["memory"][0] < found["memory"][1]


@given(st.integers(2, 64), st.integers(1, 500), st.floats(1e3, 1e6))
def test_what_is_captured_leaves_room_for_the_last_batch_and_for_validation(batch, n_images, memory):
    of = needs.Needs(0, 100.0, memory, captures=True, n_images=n_images, validation_bytes=700.0)
    params = Hyperparameters(**{**PARAMS, "batch_size": batch})

    largest = math.ceil(batch / of.n_parts(params))
    last = n_parts_of(n_images % batch or batch, batch, of.n_parts(params))
    rest = math.ceil((n_images % batch) / last)
    assert largest * 100.0 + max(rest * 100.0, 700.0) <= memory or largest == 1


def test_a_trial_that_was_begun_where_there_was_more_memory_goes_on_in_more_parts_and_says_so(tmp_path, caplog):
    large, small = trainer(), trainer()
    small._needs = replace(
        small._needs, memory=small._needs.fixed(Hyperparameters(**PARAMS)) + 5.5 * small._needs.image_bytes
    )
    epochs = large.train(PARAMS, seed=3, workdir=tmp_path)
    first = next(epochs)
    epochs.close()

    again = list(small.train(PARAMS, seed=3, workdir=tmp_path))

    assert again[0] == first
    assert len(again) == 2
    assert "begun with batches in 1 parts, where there was more memory" in caplog.text
    assert "it is trained in 4 parts" in caplog.text
