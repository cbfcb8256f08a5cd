"""What trials need and how fast they are, alone and side by side, from a few real steps, before any begins."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Barrier

import torch

from model.device import Compute, use_threads
from model.hyperparameters import Hyperparameters
from model.needs import Needs, cheapest_and_dearest, step_seconds
from model.steps import DeviceFaces, Stop, TrainingState, make_steps

MOST = 8
"""Trainings at a time that are tried at most."""
_SECONDS = 0.6
_BEGIN_SECONDS = 60.0

Training = Callable[[], int]
"""Trains some steps; gives of how many images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Of trials of one trainer.

    Attributes:
        fresh: the state of a trial that begins, of hyperparameters and a seed.
        faces: of the training split.
        n_validation: images of the validation split.
        compute: how.
        needs: of memory.
        threads: CPU threads that are the trainer's.
        stop: true ends it early; what is said then means nothing.
    """

    fresh: Callable[[Hyperparameters, int], TrainingState]
    faces: DeviceFaces
    n_validation: int
    compute: Compute
    needs: Needs
    threads: int
    stop: Stop

    def estimate(self, of: Sequence[Hyperparameters]) -> dict[str, tuple[float, float]]:
        """See `FaceTrainer.estimate`."""
        seconds = sorted(self._epoch_seconds(one) for one in cheapest_and_dearest(of))
        if self.stop():
            return {}
        memory = [self.needs.whole(one) for one in of]
        sizes = [self.needs.checkpoint(one) for one in of]
        return {
            "epoch_seconds": (seconds[0], seconds[-1]),
            "memory": (min(memory), min(max(memory), self.needs.memory)),
            "checkpoint": (float(min(sizes)), float(max(sizes))),
        }

    def _epoch_seconds(self, hyperparameters: Hyperparameters) -> float:
        n_images = min(hyperparameters.batch_size, len(self.faces.labels))
        if self.compute.device.type == "cpu":  # there a step on many images takes as much longer
            n_images = min(n_images, 16)
        one = replace(hyperparameters, batch_size=n_images)
        steps = make_steps(self.fresh(one, 0), self.faces, one, self.compute, self.needs.n_parts(one))
        # Validation is a forward pass: about a third of a step.
        return step_seconds(steps, n_images, self.stop) / n_images * (len(self.faces.labels) + self.n_validation / 3)

    def side_by_side(self, of: Sequence[Hyperparameters]) -> Iterator[tuple[int, float]]:
        """See `FaceTrainer.side_by_side`."""
        middling = sorted(of, key=lambda one: one.batch_size)[len(of) // 2]
        most = MOST if self.compute.device.type == "cuda" else self.threads
        most = min(most, MOST, int(self.needs.memory / max(self.needs.whole(one) for one in of)))
        n = 1
        while 1 < most >= n:
            make = partial(self._some_steps, middling, self.threads // n)
            yield n, images_per_second([make] * n, self.stop)
            use_threads(self.threads)  # for threads that begin later and set none
            n *= 2

    def _some_steps(self, hyperparameters: Hyperparameters, threads: int) -> Training:
        """Steps to be timed: on a CPU one, on few images; on a GPU so many that it is not the launches' queue."""
        on_gpu = self.compute.device.type == "cuda"
        size = hyperparameters.batch_size if on_gpu else min(hyperparameters.batch_size, 32)
        n_images = min(size * (60 if on_gpu else 1), len(self.faces.labels))
        one = replace(hyperparameters, batch_size=min(size, n_images))
        use_threads(threads)
        steps = make_steps(self.fresh(one, 0), self.faces, one, self.compute.beside())
        order = torch.arange(n_images)

        def train() -> int:
            steps.epoch(order, self.stop)
            return n_images

        return train


def images_per_second(makes: Sequence[Callable[[], Training]], stop: Stop) -> float:
    """What trainings do together, each in a thread of its own, from when the last one is ready.

    Args:
        makes: each makes a training, in its thread: threads, streams and graphs are made ready there.
        stop: true ends it early; what is given then means nothing.

    Raises:
        threading.BrokenBarrierError: one of them raised before all were ready, or took longer than a minute.
    """
    barrier = Barrier(len(makes))

    def rate(make: Callable[[], Training]) -> float:
        try:
            training = make()
            training()  # the first also allocates, and compiles
            barrier.wait(_BEGIN_SECONDS)
        except BaseException:
            barrier.abort()  # the others wait for it
            raise
        began, n_images = time.perf_counter(), 0
        while n_images == 0 or (time.perf_counter() - began < _SECONDS and not stop()):
            n_images += training()
        return n_images / (time.perf_counter() - began)

    with ThreadPoolExecutor(len(makes)) as threads:
        return sum(threads.map(rate, makes))
