import pytest
import torch
from torch import nn
from torch.nn import functional

from model.network import Dropout, EmotionCNN, build_network, n_weights


@pytest.mark.parametrize(("pool_stride", "n"), [(1, 133_083_015), (2, 2_731_911)])
def test_the_network_has_the_published_number_of_weights(pool_stride, n):
    with torch.device("meta"):
        assert n_weights(EmotionCNN(0.2, pool_stride)) == n


@pytest.mark.parametrize(("pool_stride", "size"), [(1, 24), (2, 24), (2, 48), (2, 17)])
def test_faces_become_seven_logits_whatever_the_stride_and_size(pool_stride, size):
    network = EmotionCNN(0.2, pool_stride, size)

    assert network(torch.zeros(3, 1, size, size)).shape == (3, 7)


def test_pooling_before_relu_changes_neither_values_nor_gradients():
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    y = x.detach().clone().requires_grad_()

    pooled_first = functional.relu(functional.max_pool2d(x, 2))
    relu_first = functional.max_pool2d(functional.relu(y), 2)
    (pooled_first * 3).sum().backward()
    (relu_first * 3).sum().backward()

    assert torch.equal(pooled_first, relu_first)
    assert torch.equal(x.grad, y.grad)


def test_dropout_zeroes_a_share_keeps_the_mean_and_rests_when_evaluating():
    dropout = Dropout(0.4, torch.Generator().manual_seed(1))
    x = torch.ones(200, 500)

    y = dropout(x)

    assert abs(float((y == 0).float().mean()) - 0.4) < 0.01
    assert abs(float(y.mean()) - 1) < 0.01
    assert torch.equal(dropout.eval()(x), x)


def test_first_weights_come_from_their_generator_alone():
    def made(seed: int) -> torch.Tensor:
        torch.manual_seed(seed * 100)
        weights = torch.Generator().manual_seed(5)
        return build_network(dropout=0, pool_stride=2, image_size=24, weights=weights, masks=None).hidden.weight

    assert torch.equal(made(1), made(2))


def test_first_weights_have_torchs_own_spread():
    weights = torch.Generator().manual_seed(5)
    ours = build_network(dropout=0, pool_stride=2, image_size=24, weights=weights, masks=None)
    torchs = EmotionCNN(0, 2, 24)

    for a, b in zip(ours.modules(), torchs.modules(), strict=True):
        if isinstance(a, nn.Conv2d | nn.Linear):
            assert float(a.weight.std()) == pytest.approx(float(b.weight.std()), rel=0.15)
            assert a.weight.abs().max() <= b.weight.abs().max() * 1.1
