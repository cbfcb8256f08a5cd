"""Optimizers by the names that a study suggests."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from model.optimizers import OPTIMIZERS, update

TRAIN = """
import sys, tempfile
from pathlib import Path
from data.synthetic import synthetic_faces
from model.trainer import FaceTrainer

faces = synthetic_faces(n_train=9, n_validation=8, n_test=0, image_size=16)
params = {"learning_rate": 0.01, "batch_size": 4, "epochs": 2, "dropout": 0.1, "optimizer": sys.argv[1]}
with tempfile.TemporaryDirectory() as folder:
    for _ in range(2):  # the second time it goes on from its checkpoint
        trainer = FaceTrainer(faces, device="cpu", pool_stride=2, checkpoint_seconds=0, threads=1)
        assert len(list(trainer.train(params, seed=1, workdir=Path(folder)))) == 2
print(sorted(name for name in sys.modules if name in {"torch._dynamo", "triton"}))
"""


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_is_torchs_own_step(name):
    made = []
    for _ in range(2):
        weights = [nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4)), nn.Parameter(torch.ones(3))]
        made.append((weights, OPTIMIZERS[name].make(weights, 0.1, 0.01)))
    (ours, our_optimizer), (theirs, their_optimizer) = made

    for power in (1, 2, 3):
        for weight in (*ours, *theirs):
            weight.grad = (weight.detach() + 0.3) ** power
        update(our_optimizer)
        their_optimizer.step()

    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    assert str(our_optimizer.state_dict()) == str(their_optimizer.state_dict())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_needs_no_compiler_whose_import_takes_seconds(optimizer):
    found = subprocess.run([sys.executable, "-c", TRAIN, optimizer], capture_output=True, text=True, check=True)

    assert found.stdout == "[]\n"
