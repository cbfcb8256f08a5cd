"""The fixed architecture: three convolution blocks and two fully connected layers.

Legend: B batch, C channels, S image size, H map size, K = 7 classes.

Source: the paper's section on the network. Its text says that pooling has a stride of 1; taken so, the network has
133,083,015 weights. With a stride of 2, as in the FaceCNN code that it resembles, it has 2,731,911.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (64, 128, 256)
HIDDEN = 256
N_CLASSES = 7


class Dropout(nn.Module):
    """Zeroes activations with probability `p` and scales the others by 1 / (1 - p), from a generator of its own.

    `nn.Dropout` draws from torch's global generator; a trial's randomness must be its own.
    """

    def __init__(self, p: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.p = p
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x of any shape; the identity when evaluating or with p = 0."""
        if not self.training or self.p == 0:
            return x
        if x.device.type == "cpu":
            return x * _mask(x, self.p, self.generator)
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * keep.div_(1 - self.p)


def _mask(x: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """Like x: 0 with probability p, else 1 / (1 - p); p as a multiple of 2^-16.

    Four masks from each 64-bit draw: a draw for each would take as long as a convolution's product.
    """
    n = x.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    n_dropped = min(round(p * 2**16), 2**16 - 1)
    keep = torch.empty_like(x)  # dense, in x's own layout
    torch.ge(words.view(torch.int16)[:n], n_dropped - 2**15, out=keep.as_strided((n,), (1,)))
    return keep.mul_(2**16 / (2**16 - n_dropped))


class EmotionCNN(nn.Module):
    """Grey faces to logits of seven emotions.

    Args:
        dropout: after each block, in [0, 1).
        pool_stride: 1 as published, 2 for the compact reading.
        image_size: S, pixels a side.
        generator: of the dropout masks, on the device of the activations; torch's global one by default.

    Shapes by stage, for S = 48: [B, 1, 48, 48] → stride 1: [B, 64, 47, 47] → [B, 128, 46, 46] → [B, 256, 45, 45] →
    518,400; stride 2: [B, 64, 24, 24] → [B, 128, 12, 12] → [B, 256, 6, 6] → 9,216; then → 256 → 7.
    """

    def __init__(
        self, dropout: float, pool_stride: int = 1, image_size: int = 48, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.pool_stride, self.image_size = pool_stride, image_size
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        n_in, size = 1, image_size
        for n_out in CHANNELS:
            self.convolutions.append(nn.Conv2d(n_in, n_out, kernel_size=3, padding=1))
            self.norms.append(nn.BatchNorm2d(n_out))
            n_in, size = n_out, (size - 2) // pool_stride + 1
        if size < 1:
            raise ValueError(f"image_size {image_size} is too small for three poolings of stride {pool_stride}")
        self.dropout = Dropout(dropout, generator)
        self.hidden = nn.Linear(n_in * size * size, HIDDEN)
        self.output = nn.Linear(HIDDEN, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised faces float [B, 1, S, S] to logits [B, 7]."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x))  # [B, C, H, H]
            # Max pooling and ReLU commute exactly, values and gradients: pooled first, a quarter is left to clip.
            x = functional.relu(functional.max_pool2d(x, kernel_size=2, stride=self.pool_stride))
            x = self.dropout(x)
        x = functional.relu(self.hidden(x.flatten(1)))
        logits: Tensor = self.output(x)
        return logits


def initialised(network: EmotionCNN, generator: torch.Generator) -> EmotionCNN:
    """Give the network its first weights, from this CPU generator alone: U(-b, b), b = 1 / sqrt(fan in).

    Source: that is torch's default for convolutions and linear layers, which draws from the global generator.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            with torch.no_grad():
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return network


def build_network(
    *, dropout: float, pool_stride: int, image_size: int, weights: torch.Generator, masks: torch.Generator | None
) -> EmotionCNN:
    """An initialised `EmotionCNN` on the CPU: `weights` draws its weights, `masks` will draw its dropout."""
    return initialised(empty_network(dropout, pool_stride, image_size, masks, torch.device("cpu")), weights)


def empty_network(
    dropout: float, pool_stride: int, image_size: int, masks: torch.Generator | None, device: torch.device
) -> EmotionCNN:
    """An `EmotionCNN` whose weights are whatever the memory holds: to be drawn, or loaded."""
    with torch.device("meta"):  # no memory and no random numbers
        network = EmotionCNN(dropout, pool_stride, image_size, masks)
    return network.to_empty(device=device)


def n_weights(network: nn.Module) -> int:
    """How many trainable numbers a network has."""
    return sum(weight.numel() for weight in network.parameters())
