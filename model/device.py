"""Where and how a network computes: device, memory layout and precision, decided in this one place."""

import ctypes
import importlib.util
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


@dataclass(frozen=True, slots=True)
class Compute:
    """A decision on how to compute.

    Attributes:
        device: where tensors live.
        memory_format: of activations and convolution weights.
        autocast: precision of the forward pass; None for float32. Weights are float32 always.
        captures: whether a training step is captured as a CUDA graph and runs fused kernels.
        validation_batch: images at a time in validation.
        memory: bytes that there are for trials.
        stream: of CUDA, on which captured steps run beside those of other trials; its own, since graphs that were
            captured on one stream share a work space (pytorch#193402).
    """

    device: torch.device
    memory_format: torch.memory_format
    autocast: torch.dtype | None
    captures: bool = False
    validation_batch: int = 256
    memory: float = math.inf
    stream: "torch.cuda.Stream | None" = None

    def beside(self) -> "Compute":
        """The same for another training beside this one."""
        if self.stream is None:
            return self
        return replace(self, stream=torch.cuda.Stream(self.device))  # type: ignore[no-untyped-call]

    def forward_context(self) -> AbstractContextManager[object]:
        """What a forward pass runs under."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    @contextmanager
    def denormals_off(self) -> Iterator[None]:
        """Numbers below 1.2e-38 count as zero on a CPU, where they take many times as long as others.

        An optimizer's moments get there: those of a unit that is never active fall by a tenth each step, and stay at
        the smallest number there is. Only here: what decides trials runs in the same thread, and is not to change.
        """
        if self.device.type != "cpu":
            yield
            return
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)

    def generator(self, seed: int) -> torch.Generator:
        """A generator of this device."""
        return torch.Generator(self.device).manual_seed(seed)

    def give_back(self) -> None:
        """Let others have the memory that nothing is in any more."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def normalised(self, faces: Tensor, mean: float, std: float) -> Tensor:
        """Faces uint8 [B, S, S] to float32 [B, 1, S, S] with mean 0 and spread 1 over the training images."""
        images = faces.unsqueeze(1).to(torch.float32).sub_(mean).div_(std)
        return images.contiguous(memory_format=self.memory_format)


def choose(device: str | None = None) -> Compute:
    """The compute for a device's name; `cuda` where there is one, else `mps`, else `cpu` where None is named.

    On the CPU channels-last is 1.1 to 1.2 times as fast as the plain layout. On CUDA bfloat16 autocast is used where
    the card has it: its products are rounded to 8 bits, sums and weights are float32.

    Raises:
        ValueError: no such device here.
    """
    name = device or _default()
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
    # torch's words for: no such device, not built for CUDA, a kind of device that holds no tensors here.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = name.split(":")[0] in {"cuda", "mps", "cpu"}
        reason = str(error).splitlines()[0][:100] if known else "there are cuda, cuda:1 and so on, mps, cpu"
        raise ValueError(f"device {name!r} can't be used here ({reason}); leave --device out, or use cpu") from None
    if chosen.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        torch.backends.cudnn.benchmark = True  # shapes are few, and each is run thousands of times
        if chosen.index is not None:
            torch.cuda.set_device(chosen)  # where kernels and graphs go that name no device
        precision = torch.bfloat16 if bf16 else None
        _, memory = torch.cuda.mem_get_info(chosen)
        captures = _can_capture(chosen)
        stream = torch.cuda.Stream(chosen) if captures else None  # type: ignore[no-untyped-call]
        memory_format, validation_batch = torch.channels_last, 1_024
        return Compute(chosen, memory_format, precision, captures, validation_batch, 0.9 * memory, stream)
    if chosen.type == "cpu":
        _keep_freed_memory()
        with (compute := Compute(chosen, torch.channels_last, None, memory=0.8 * _main_memory())).denormals_off():
            torch.ones(1 << 20).add_(1)  # torch's threads are as this one is when they begin
        return compute
    return Compute(chosen, torch.contiguous_format, None)


def _keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step, in this process and from now on.

    By default it gives every large tensor back to the system, which clears each page anew when it is first touched: a
    twentieth to a fifth of a step's time at batch 128. A thread has heaps of its own, of at most 64 MB each: those that
    begin from now on share the first thread's. Source: mallopt(3). What a process holds at its peak stays with it.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # musl has none
        for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):  # -1: never
            if not libc.mallopt(option, value):
                log.debug("glibc refuses option %d", option)


def use_threads(n: int) -> None:
    """Compute with so many CPU threads in the thread that calls this, whatever others of the process compute with.

    A thread takes over the process's number, the last that any thread set, when it first computes: were it to do so
    only then, it would lose what it had set (ATen/ParallelOpenMP.cpp). So it is asked before.
    """
    torch.get_num_threads()
    torch.set_num_threads(n)


def _main_memory() -> int:
    """Bytes of this machine's memory, or of the share that its container has."""
    import psutil  # a machine with a GPU, where nothing but training is measured, may lack it

    try:
        share = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        share = "max"
    whole = int(psutil.virtual_memory().total)
    return min(whole, int(share)) if share.isdecimal() else whole


def _can_capture(device: torch.device) -> bool:
    """Whether Triton works here: it comes with torch, but on Windows, and needs a C compiler."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        from model import fused
        from model.steps import DeviceFaces

        zero = torch.zeros(1, dtype=torch.int64, device=device)
        faces = DeviceFaces(torch.zeros((1, 4, 4), dtype=torch.uint8, device=device), zero, 0.0, 1.0)
        fused.patches(faces, zero, zero, torch.float32)
    except Exception as error:
        log.warning("Triton does not work here, training is slower without it: %s", str(error).splitlines()[0])
        return False
    return True


def _default() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
