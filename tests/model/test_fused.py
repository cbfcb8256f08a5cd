"""The fused kernels against PyTorch's own operators, in Triton's interpreter: no GPU needed."""

import os
from dataclasses import replace

os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined

import pytest
import torch
from torch.nn import functional

from model.network import build_network

pytest.importorskip(
    "triton", reason="Triton comes with a CUDA build of torch; `pip install triton` brings it to others"
)

from model import fused
from model.augmentation import moved
from model.captured import CapturedSteps
from model.device import Compute
from model.hyperparameters import Hyperparameters
from model.optimizers import OPTIMIZERS
from model.steps import DeviceFaces, PlainSteps, TrainingState

del os.environ["TRITON_INTERPRET"]


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(fused, "_N_PARTS", 2)  # a program then has several tiles, as it has on a GPU


MEAN, STD = 129.0, 65.0


def network(stride: int, size: int):
    made = build_network(
        dropout=0.0, pool_stride=stride, image_size=size, weights=torch.Generator().manual_seed(1), masks=None
    )
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for norm in made.norms:  # negative scales too: pooling must look at what is normalised
            norm.weight.uniform_(-1, 1, generator=draw)
            norm.bias.uniform_(-0.3, 0.3, generator=draw)
    return made.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def faces(size: int):
    draw = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (7, size, size), dtype=torch.uint8, generator=draw)
    return DeviceFaces(images, torch.tensor([0, 1, 2, 3, 4, 5, 6]), MEAN, STD), torch.tensor([4, 0, 6])


def fused_logits(net, size: int, p: float = 0.0, seed: int = 5):
    some, rows = faces(size)
    inputs = fused.patches(some, rows, torch.tensor(seed), torch.float32)
    return fused.logits(net, inputs, torch.tensor(p), torch.tensor(seed))


@pytest.mark.parametrize(("stride", "size"), [(1, 6), (2, 9)])
def test_outputs_gradients_and_running_statistics_are_those_of_pytorchs_operators(stride, size):
    plain, ours = network(stride, size), network(stride, size)
    some, rows = faces(size)
    labels = torch.tensor([0, 3, 6])

    expected = plain((some.images[rows].unsqueeze(1).float() - MEAN) / STD)
    functional.cross_entropy(expected, labels).backward()
    found = fused_logits(ours, size)
    functional.cross_entropy(found, labels).backward()

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for (name, one), other in zip(plain.named_parameters(), ours.parameters(), strict=True):
        if name.startswith("convolutions") and name.endswith("bias"):  # without effect before batch norm
            assert other.grad is None
            assert float(one.grad.abs().max()) < 1e-6
        else:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-6)
    for one, other in zip(plain.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def steps(kind, *, epochs: int, batch_size: int = 3, n_parts: int = 1):
    compute = Compute(torch.device("cpu"), torch.channels_last, None)
    params = Hyperparameters(
        learning_rate=0.05, batch_size=batch_size, epochs=epochs, dropout=0.0, optimizer="sgd", lr_decay=0.1
    )
    net = network(2, 9)
    optimizer = OPTIMIZERS["sgd"].make(net.parameters(), 0.05, 0.0)
    state = TrainingState(net, optimizer, torch.Generator(), torch.Generator().manual_seed(1))
    return state, kind(state, faces(9)[0], params, compute, n_parts)


def test_an_epochs_steps_are_the_plain_ones_with_the_smaller_last_batch_and_the_rates_decay():
    (plain, one), (ours, other) = steps(PlainSteps, epochs=2), steps(CapturedSteps, epochs=2)

    for order in (torch.arange(7), torch.tensor([6, 0, 5, 1, 4, 2, 3])):
        expected, found = one.epoch(order, lambda: False), other.epoch(order, lambda: False)

        assert found.loss == pytest.approx(expected.loss, rel=1e-4)
        assert found.hits == expected.hits
    assert ours.updates == plain.updates == 6
    for (name, p), q in zip(plain.network.state_dict().items(), ours.network.state_dict().values(), strict=True):
        if not (name.startswith("convolutions") and name.endswith("bias")):
            torch.testing.assert_close(q, p, rtol=1e-3, atol=1e-5)


def test_a_batch_in_parts_is_the_plain_one_in_parts():
    (plain, one), (ours, other) = (
        steps(kind, epochs=1, batch_size=5, n_parts=2) for kind in (PlainSteps, CapturedSteps)
    )

    expected, found = one.epoch(torch.arange(7), lambda: False), other.epoch(torch.arange(7), lambda: False)

    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    assert found.hits == expected.hits
    assert ours.updates == plain.updates == 2
    torch.testing.assert_close(ours.network.output.weight, plain.network.output.weight, rtol=1e-3, atol=1e-5)


def test_a_number_that_is_none_shows_in_the_loss():
    state, ours = steps(CapturedSteps, epochs=1)
    with torch.no_grad():
        state.network.convolutions[1].weight[0, 0, 0, 0] = float("nan")

    assert not torch.isfinite(torch.tensor(ours.epoch(torch.arange(7), lambda: False).loss))


def test_patches_are_those_of_images_moved_and_mirrored_anew_for_every_step():
    some, rows = faces(12)
    ways = [(f, i, j) for f in (0, 1) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    seen = set()

    for seed in range(12):
        found = fused.patches(replace(some, augmentation="flip-shift"), rows, torch.tensor(seed), torch.float32)
        for place, image in enumerate(found[:, :9].reshape(len(rows), 144, 9)):
            n = len(ways)
            flips, shifts = (
                torch.tensor([w[0] for w in ways]),
                torch.tensor([[w[1] for w in ways], [w[2] for w in ways]]),
            )
            candidates = moved(some.images, rows[place].expand(n), flips, shifts)
            unfolded = functional.unfold((candidates.unsqueeze(1).float() - MEAN) / STD, 3, padding=1).transpose(1, 2)
            matching = [way for way, one in zip(ways, unfolded, strict=True) if torch.allclose(one, image, atol=1e-5)]
            assert len(matching) == 1
            seen.add(matching[0])

    assert {f for f, _, _ in seen} == {0, 1}
    assert {i for _, i, _ in seen} == {j for _, _, j in seen} == {-1, 0, 1}


def block(y, p: float, seed: int):
    channels = y.shape[1]
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    running = torch.zeros(channels), torch.ones(channels)
    return fused._Block.apply(y, ones, zeros, zeros, running, (1e-5, 0.1, 2, 0), torch.tensor(p), torch.tensor(seed))


def test_dropout_zeroes_its_share_anew_for_every_step_and_scales_the_rest():
    y = torch.randn((8, 64, 12, 12), generator=torch.Generator().manual_seed(0))
    y = y.contiguous(memory_format=torch.channels_last).requires_grad_()
    whole, first, second = block(y, 0.0, 1), block(y, 0.3, 1), block(y, 0.3, 2)
    alive = whole > 0

    kept, kept_then = (first > 0)[alive], (second > 0)[alive]

    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.02)
    assert float((kept & kept_then).float().mean()) == pytest.approx(0.49, abs=0.03)
    torch.testing.assert_close(first[first > 0], whole[first > 0] / 0.7)
    assert torch.equal(block(y, 0.3, 1), first)


def test_what_was_dropped_gets_no_gradient():
    y = torch.randn((2, 64, 4, 4), generator=torch.Generator().manual_seed(0))
    y = y.contiguous(memory_format=torch.channels_last).requires_grad_()
    mask = block(y, 0.5, 9).detach() > 0
    reference = y.detach().clone().requires_grad_()

    block(y, 0.5, 9).square().sum().backward()
    normed = functional.batch_norm(reference, None, None, torch.ones(64), torch.zeros(64), training=True)
    pooled = functional.relu(functional.max_pool2d(normed, 2))
    (pooled * mask / 0.5).square().sum().backward()

    torch.testing.assert_close(y.grad, reference.grad, rtol=1e-3, atol=1e-5)
