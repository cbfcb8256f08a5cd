"""What a step's shares of the device's limits rest on."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.limits import Limits, work
from model.needs import weights_of
from model.network import EmotionCNN


@pytest.mark.parametrize("pool_stride", [1, 2])
def test_the_arithmetic_is_what_torch_counts_of_a_step(pool_stride):
    with torch.device("meta"):
        network, images = EmotionCNN(0.0, pool_stride, 48), torch.empty(2, 1, 48, 48)
        labels = torch.zeros(2, dtype=torch.int64)
    with FlopCounterMode(display=False) as counted:
        cross_entropy(network(images), labels).backward()

    assert work(pool_stride, 48, 4).operations == pytest.approx(counted.get_total_flops() / 2, rel=1e-6)


def test_every_weight_is_moved_ten_times():
    assert work(1, 48, 4).weight_bytes == 10 * 4 * weights_of(1, 48)


def test_shares_are_of_both_rates():
    of, limit = work(2, 48, 4), Limits(operations=1e12, bytes=1e10)

    arithmetic, moved = limit.shares(of, batch=100, images_per_second=200.0)

    assert arithmetic == pytest.approx(200 * of.operations / 1e12)
    assert moved == pytest.approx(200 * (of.image_bytes + of.weight_bytes / 100) / 1e10)
