"""The network's training on a CUDA device, with what lies between two convolutions as one pass over memory each way.

Batch norm, max pooling, ReLU and dropout do little arithmetic: what they cost is reading and writing. As separate
kernels they read a convolution's output some twenty times; here it is read four times. The first convolution, of one
channel, is a product of patches with a matrix.

Numbers: sums in float32, whatever the activations are. A convolution's bias before batch norm has no effect and a
gradient of zero, exactly: it is left out, and the running mean, which must hold it, is given it.

Legend: B batch, S image size, H, W map size, C channels; rows are positions [B·H·W] of maps that lie in memory as
[B, H, W, C]. Batch norm's backward pass: Ioffe, Szegedy 2015, arXiv:1502.03167, section 3.
"""

from typing import Any, cast

import torch
import triton
from torch import Tensor
from torch.nn import functional

from model import kernels
from model.augmentation import reach
from model.network import EmotionCNN
from model.steps import DeviceFaces

_N_PARTS = 528
"""Partial sums of a reduction: four for each multiprocessor of an H100."""
_TILE = 2_048
"""Numbers that a program holds at a time."""
_PATCH = 16
"""Nine pixels of a patch, and zeros: matrix units want multiples of eight."""


class _Block(torch.autograd.Function):
    """Batch norm, 2×2 max pooling, ReLU and dropout, of a convolution's output without its bias."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, shift: Tensor, bias: Tensor, running: tuple[Tensor, Tensor],
        settings: tuple[float, float, int, int], p: Tensor, seed: Tensor,
    ) -> Tensor:  # fmt: skip
        eps, momentum, stride, salt = settings
        batch, channels, height, width = y.shape
        out_height, out_width = (height - 2) // stride + 1, (width - 2) // stride + 1
        n, n_out, block = batch * height * width, batch * out_height * out_width, _TILE // channels
        parts = torch.empty((_N_PARTS, 2, channels), device=y.device)
        mean, rstd = torch.empty((2, channels), device=y.device)
        kernels.sums[(_N_PARTS,)](y, parts, n, channels, block)
        grid = (channels // 16,)
        kernels.statistics[grid](parts, bias, mean, rstd, *running, n, _N_PARTS, eps, momentum, channels, 16)
        shape = (batch, channels, out_height, out_width)
        out = torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=torch.channels_last)
        code = torch.empty(shape, dtype=torch.uint8, device=y.device, memory_format=torch.channels_last)
        maps = (height, width, out_height, out_width, stride, channels, block)
        kernels.forward[(triton.cdiv(n_out, block),)](
            y, mean, rstd, weight, shift, p, seed, out, code, n_out, salt, *maps
        )
        ctx.save_for_backward(y, code, mean, rstd, weight, p)
        ctx.maps = maps
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        y, code, mean, rstd, weight, p = ctx.saved_tensors
        *_, channels, block = ctx.maps
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        n, n_out = y.numel() // channels, gradient.numel() // channels
        parts = torch.empty((_N_PARTS, 2, channels), device=y.device)
        kernels.gradient_sums[(_N_PARTS,)](gradient, code, y, mean, rstd, p, parts, n_out, *ctx.maps)
        d_shift, d_weight = torch.empty((2, channels), device=y.device)
        kernels.totals[(channels // 16,)](parts, d_shift, d_weight, _N_PARTS, channels, 16)
        out = torch.empty_like(y)
        kernels.backward[(triton.cdiv(n, block),)](
            gradient, code, y, mean, rstd, weight, d_shift, d_weight, p, out, n, *ctx.maps
        )
        return out, d_weight, d_shift, None, None, None, None, None


def patches(faces: DeviceFaces, rows: Tensor, seed: Tensor, dtype: torch.dtype) -> Tensor:
    """What the first convolution looks at: of the images `rows` int64 [B], varied and normalised: [B·S·S, 16].

    Args:
        faces: of the training split.
        rows: of the batch.
        seed: of what varies this batch's images, int64 0-d.
        dtype: of the patches.
    """
    images, size = faces.images, faces.images.shape[1]
    n = len(rows) * size * size
    out = torch.empty((n, _PATCH), dtype=dtype, device=images.device)
    variation = (faces.augmentation != "none", reach(faces.augmentation, size))
    kernels.patches[(triton.cdiv(n, 256),)](
        images, rows, out, seed, faces.mean, 1 / faces.std, n, size, *variation, 256
    )
    return out


def logits(network: EmotionCNN, inputs: Tensor, p: Tensor, seed: Tensor) -> Tensor:
    """The network's answer [B, 7] to `patches`, in training.

    Args:
        network: on the device, its convolutions' weights in channels-last layout.
        inputs: [B·S·S, 16], of the precision to compute in.
        p: chance of dropout, float32 0-d.
        seed: of this step's dropout masks, int64 0-d.
    """
    size = network.image_size
    x = inputs
    for layer, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
        weight = cast("Tensor", convolution.weight)
        if layer == 0:
            matrix = functional.pad(weight.reshape(len(weight), 9), (0, _PATCH - 9)).t().to(x.dtype)
            y = (x @ matrix).view(-1, size, size, len(weight)).permute(0, 3, 1, 2)  # channels-last [B, C, S, S]
        else:
            y = functional.conv2d(x, weight.to(x.dtype), padding=1)
        cast("Tensor", norm.num_batches_tracked).add_(1)
        x = _Block.apply(
            y, norm.weight, norm.bias, convolution.bias, (norm.running_mean, norm.running_var),
            (norm.eps, norm.momentum, network.pool_stride, layer * 0x9E3779B9 & 0x7FFFFFFF), p, seed,
        )  # type: ignore[no-untyped-call]  # fmt: skip
    hidden, output = network.hidden, network.output
    x = functional.relu(functional.linear(x.flatten(1), hidden.weight.to(x.dtype), hidden.bias.to(x.dtype)))
    return functional.linear(x, output.weight.to(x.dtype), output.bias.to(x.dtype)).float()
