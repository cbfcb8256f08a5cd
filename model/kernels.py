"""Kernels of `model.fused`, in Triton's language: what lies between two convolutions, in few passes over memory.

Legend: a map is [B, H, W, C] in memory; n is its number of positions B·H·W, n_out that of the pooled map. A program
works on `block` positions and all their channels. Sums are float32 and made in a fixed order: a step is repeatable.
"""

import triton
import triton.language as tl


@triton.jit
def _hashed(x):
    """A well-mixed 32-bit number of each (lowbias32 of C. Wellons' hash prospector)."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    return x


@triton.jit
def patches(
    faces, rows, out, seed, mean, inverse_std, n,
    size: tl.constexpr, flips: tl.constexpr, reach: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """3×3 surroundings of each pixel of the images `rows`, normalised, as rows of 16; zero beyond an image's edge.

    Each image is first moved by up to `reach` pixels and mirrored, as its place in the batch and the seed draw it; the
    same as `augmentation.moved`.
    """
    at = tl.program_id(0) * block + tl.arange(0, block)
    k = tl.arange(0, 16)[None, :]
    i, j = (at // size) % size, at % size
    row = tl.load(rows + at // (size * size), mask=at < n, other=0)
    y, x = i[:, None] + k // 3 - 1, j[:, None] + k % 3 - 1
    inside = (k < 9) & (y >= 0) & (y < size) & (x >= 0) & (x < size) & (at < n)[:, None]
    if flips:
        place = (at // (size * size)).to(tl.uint32)[:, None]
        key = tl.load(seed).to(tl.uint64)
        bits = _hashed(place * 0x9E3779B9 ^ _hashed(key.to(tl.uint32) ^ 0x5BD1E995) ^ (key >> 32).to(tl.uint32))
        x = tl.where((bits & 1) == 1, size - 1 - x, x)
        if reach > 0:
            down, right = (bits >> 8) % (2 * reach + 1), (bits >> 20) % (2 * reach + 1)
            y = tl.minimum(tl.maximum(y - down.to(tl.int32) + reach, 0), size - 1)
            x = tl.minimum(tl.maximum(x - right.to(tl.int32) + reach, 0), size - 1)
    pixels = tl.load(faces + row[:, None] * size * size + y * size + x, mask=inside, other=0).to(tl.float32)
    values = tl.where(inside, (pixels - mean) * inverse_std, 0.0)
    tl.store(out + at[:, None].to(tl.int64) * 16 + k, values.to(out.dtype.element_ty), mask=(at < n)[:, None])


@triton.jit
def _keep(parts, first, second, channels: tl.constexpr):
    """A program's part of both sums."""
    place = parts + tl.program_id(0) * 2 * channels + tl.arange(0, channels)
    tl.store(place, tl.sum(first, 0))
    tl.store(place + channels, tl.sum(second, 0))


@triton.jit
def sums(y, parts, n, channels: tl.constexpr, block: tl.constexpr):
    """Sums of values and of their squares by channel, in as many parts as there are programs."""
    c = tl.arange(0, channels)[None, :]
    first = tl.zeros((block, channels), tl.float32)
    second = tl.zeros((block, channels), tl.float32)
    for start in range(tl.program_id(0) * block, n, tl.num_programs(0) * block):
        at = start + tl.arange(0, block)[:, None]
        values = tl.load(y + at.to(tl.int64) * channels + c, mask=at < n, other=0.0).to(tl.float32)
        first += values
        second += values * values
    _keep(parts, first, second, channels)


@triton.jit
def _total(parts, c, n_parts, channels: tl.constexpr, width: tl.constexpr):
    """Both sums over all parts, for the channels c [width]."""
    first = tl.zeros((16, width), tl.float32)
    second = tl.zeros((16, width), tl.float32)
    for start in range(0, n_parts, 16):
        part = start + tl.arange(0, 16)[:, None]
        place = parts + part * 2 * channels + c[None, :]
        first += tl.load(place, mask=part < n_parts, other=0.0)
        second += tl.load(place + channels, mask=part < n_parts, other=0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def statistics(
    parts, bias, mean, rstd, running_mean, running_var, n, n_parts, eps, momentum,
    channels: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / standard deviation of each channel, from their parts; the running ones are brought up to date."""
    c = tl.program_id(0) * width + tl.arange(0, width)
    first, second = _total(parts, c, n_parts, channels, width)
    average = first / n
    variance = second / n - average * average
    variance = tl.where(variance < 0, 0.0, variance)  # what is not a number stays so: the loss has to say that
    tl.store(mean + c, average)
    tl.store(rstd + c, 1 / tl.sqrt(variance + eps))
    old_mean, old_var = tl.load(running_mean + c), tl.load(running_var + c)
    tl.store(running_mean + c, old_mean + momentum * (average + tl.load(bias + c) - old_mean))
    tl.store(running_var + c, old_var + momentum * (variance * n / (n - 1) - old_var))


@triton.jit
def forward(
    y, mean, rstd, weight, shift, p, seed, out, code, n_out, salt,
    height: tl.constexpr, width: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr,
    stride: tl.constexpr, channels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Normalised, pooled, clipped and dropped; `code` says which of a window's four went through, 4 for none."""
    at = tl.program_id(0) * block + tl.arange(0, block)[:, None]
    c = tl.arange(0, channels)[None, :]
    inside = at < n_out
    image, i, j = at // (out_height * out_width), (at // out_width) % out_height, at % out_width
    corner = ((image * height + i * stride) * width + j * stride).to(tl.int64) * channels + c
    scale = tl.load(weight + c) * tl.load(rstd + c)
    offset = tl.load(shift + c) - tl.load(mean + c) * scale
    best = tl.load(y + corner, mask=inside, other=0.0).to(tl.float32) * scale + offset
    which = tl.zeros_like(best).to(tl.int32)
    for k in tl.static_range(1, 4):
        step = ((k // 2) * width + k % 2) * channels
        value = tl.load(y + corner + step, mask=inside, other=0.0).to(tl.float32) * scale + offset
        better = (value > best) | (value != value)
        which = tl.where(better, k, which)
        best = tl.where(better, value, best)
    chance = tl.load(p)
    number = tl.load(seed)
    # Two keys: with one, the masks of two steps would be the same numbers in another order.
    key = _hashed((number & 0xFFFFFFFF).to(tl.uint32) ^ salt)
    other = _hashed((number >> 32).to(tl.uint32) + key)
    place = (at * channels + c).to(tl.uint32)
    mixed = _hashed(_hashed(place ^ key) + other)
    kept = (mixed >> 8).to(tl.float32) * (1 / 16777216.0) >= chance
    alive = kept & ((best > 0) | (best != best))
    result = tl.where(alive, best / (1 - chance), 0.0)
    target = at.to(tl.int64) * channels + c
    tl.store(out + target, result.to(out.dtype.element_ty), mask=inside)
    tl.store(code + target, tl.where(alive, which, 4).to(tl.uint8), mask=inside)


@triton.jit
def gradient_sums(
    gradient, code, y, mean, rstd, p, parts, n_out,
    height: tl.constexpr, width: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr,
    stride: tl.constexpr, channels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Sums of the gradient, and of it times the normalised value, by channel, in parts."""
    c = tl.arange(0, channels)[None, :]
    average, inverse = tl.load(mean + c), tl.load(rstd + c)
    rescale = 1 / (1 - tl.load(p))
    first = tl.zeros((block, channels), tl.float32)
    second = tl.zeros((block, channels), tl.float32)
    for start in range(tl.program_id(0) * block, n_out, tl.num_programs(0) * block):
        at = start + tl.arange(0, block)[:, None]
        target = at.to(tl.int64) * channels + c
        which = tl.load(code + target, mask=at < n_out, other=4).to(tl.int32)
        alive = which < 4
        image, i, j = at // (out_height * out_width), (at // out_width) % out_height, at % out_width
        row = (image * height + i * stride + which // 2) * width + j * stride + which % 2
        value = tl.load(y + row.to(tl.int64) * channels + c, mask=alive, other=0.0).to(tl.float32)
        incoming = tl.load(gradient + target, mask=alive, other=0.0).to(tl.float32) * rescale
        first += incoming
        second += tl.where(alive, incoming * (value - average) * inverse, 0.0)
    _keep(parts, first, second, channels)


@triton.jit
def totals(parts, first, second, n_parts, channels: tl.constexpr, width: tl.constexpr):
    """Both sums, of all their parts."""
    c = tl.program_id(0) * width + tl.arange(0, width)
    one, two = _total(parts, c, n_parts, channels, width)
    tl.store(first + c, one)
    tl.store(second + c, two)


@triton.jit
def backward(
    gradient, code, y, mean, rstd, weight, d_shift, d_weight, p, out, n,
    height: tl.constexpr, width: tl.constexpr, out_height: tl.constexpr, out_width: tl.constexpr,
    stride: tl.constexpr, channels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The gradient of a convolution's output."""
    at = tl.program_id(0) * block + tl.arange(0, block)[:, None]
    c = tl.arange(0, channels)[None, :]
    image, i, j = at // (height * width), (at // width) % height, at % width
    incoming = tl.zeros((block, channels), tl.float32)
    for k in tl.static_range(4):
        # The window in which this position is the k-th; where windows do not overlap there is one k for each position.
        top, left = i - k // 2, j - k % 2
        there = (top >= 0) & (left >= 0) & (top % stride == 0) & (left % stride == 0)
        there = there & (top // stride < out_height) & (left // stride < out_width) & (at < n)
        window = (image * out_height + top // stride) * out_width + left // stride
        target = tl.where(there, window, 0).to(tl.int64) * channels + c
        mine = tl.load(code + target, mask=there, other=4).to(tl.int32) == k
        incoming += tl.load(gradient + target, mask=mine & there, other=0.0).to(tl.float32)
    incoming = incoming / (1 - tl.load(p))
    inverse = tl.load(rstd + c)
    target = at.to(tl.int64) * channels + c
    centred = (tl.load(y + target, mask=at < n, other=0.0).to(tl.float32) - tl.load(mean + c)) * inverse
    mean_gradient = (tl.load(d_shift + c) + centred * tl.load(d_weight + c)) / n
    result = tl.load(weight + c) * inverse * (incoming - mean_gradient)
    tl.store(out + target, result.to(out.dtype.element_ty), mask=at < n)
