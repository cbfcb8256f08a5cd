"""An epoch's steps on a CUDA device: one step is captured as a graph, and replayed for every batch.

A small network's step is a hundred launches of kernels that take microseconds each: launched one by one from Python the
device waits most of the time. All that changes from step to step (which images, learning rate, dropout masks) lies in
tensors on the device and is counted on there, so that nothing is compiled or captured anew within a trial, and the host
reads the device once an epoch. The last batch of an epoch may be smaller: it is run step by step, by the same function.
"""

import threading
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from model import fused
from model.device import Compute
from model.hyperparameters import Hyperparameters
from model.optimizers import update
from model.steps import DeviceFaces, Stop, Sums, TrainingState, n_parts_of

CAPTURE_FROM = 30
"""Steps that a trial must have left for a capture, which costs some ten, to be worth it."""
_WARM_UP = 3
_CAPTURING = threading.Lock()
"""Beginning a capture waits for the whole device, which no other thread of the process may be capturing on then."""


class CapturedSteps:
    """Steps of one trial, from its state on; see `steps.Steps`."""

    def __init__(
        self,
        state: TrainingState,
        faces: DeviceFaces,
        hyperparameters: Hyperparameters,
        compute: Compute,
        n_parts: int = 1,
    ) -> None:
        device, self._n_parts, self._stream = compute.device, n_parts, compute.stream
        self._state, self._faces, self._hyperparameters = state, faces, hyperparameters
        self._dtype = compute.autocast or torch.float32
        self._p = torch.tensor(hyperparameters.dropout, dtype=torch.float32, device=device)
        self._rate = torch.tensor(hyperparameters.learning_rate, dtype=torch.float32, device=device)
        for group in state.optimizer.param_groups:
            group["lr"] = self._rate
        self._order = torch.zeros(len(faces.labels), dtype=torch.int64, device=device)
        self._batch = torch.arange(hyperparameters.batch_size, device=device)
        self._cursor = torch.zeros((), dtype=torch.int64, device=device)
        self._updates = torch.tensor(state.updates, dtype=torch.int64, device=device)
        # Masks are a function of the trial's seed and the number of updates: what goes on needs no other state.
        self._seed = torch.tensor(state.masks.initial_seed() + state.updates, dtype=torch.int64, device=device)
        self._loss_sum = torch.zeros((), device=device)
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        n_left = (hyperparameters.epochs - state.epoch) * (len(faces.labels) // hyperparameters.batch_size)
        self._graph = self._captured() if n_left >= CAPTURE_FROM else None

    def epoch(self, order: Tensor, stop: Stop) -> Sums | None:
        """Train on the images `order` int64 [n], batch by batch; None where it was stopped."""
        if self._stream is None:  # without a device the steps are the same, one by one
            return self._epoch(order, stop)
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                return self._epoch(order, stop)
        finally:  # one that was stopped has steps on their way, and what they write to is not to be given away before
            torch.cuda.current_stream().wait_stream(self._stream)

    def _epoch(self, order: Tensor, stop: Stop) -> Sums | None:
        size, n_images = self._hyperparameters.batch_size, len(order)
        self._order[:n_images].copy_(order, non_blocking=True)
        for counter in (self._cursor, self._loss_sum, self._hits):
            counter.zero_()
        for start in range(0, n_images, size):
            if stop():
                return None
            if self._graph is not None and start + size <= n_images:
                self._graph.replay()
            else:
                self._step(self._order[start : min(start + size, n_images)])
            self._state.updates += 1
        return Sums(float(self._loss_sum), int(self._hits))

    def _next(self) -> None:
        """The step on the batch at the cursor."""
        rows = self._order[self._cursor + self._batch]
        self._cursor += self._hyperparameters.batch_size
        self._step(rows)

    def _step(self, rows: Tensor) -> None:
        network, optimizer = self._state.network, self._state.optimizer
        self._rate.copy_(self._hyperparameters.learning_rate / (1 + self._hyperparameters.lr_decay * self._updates))
        optimizer.zero_grad(set_to_none=True)
        n_parts = n_parts_of(len(rows), self._hyperparameters.batch_size, self._n_parts)
        for number, part in enumerate(rows.tensor_split(n_parts)):
            labels = self._faces.labels[part]
            seed = self._seed + (number << 32) if number else self._seed  # the masks of no other part or step
            inputs = fused.patches(self._faces, part, seed, self._dtype)
            logits = fused.logits(network, inputs, self._p, seed)  # [B, K]
            loss = functional.cross_entropy(logits, labels)
            share = loss * (len(part) / len(rows)) if n_parts > 1 else loss
            share.backward()  # type: ignore[no-untyped-call]
            self._loss_sum += loss.detach() * len(part)
            self._hits += (logits.detach().argmax(1) == labels).sum()
        update(optimizer)
        self._updates += 1
        self._seed += 1

    def _captured(self) -> torch.cuda.CUDAGraph:
        """A graph of `_next`; weights, optimizer and counters are afterwards as they were before."""
        before = [(tensor, tensor.detach().clone()) for tensor in self._changing()]
        known = {id(tensor) for tensor, _ in before}
        if self._stream is None:
            raise AssertionError("a compute that captures has a stream")
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with _CAPTURING:
            with torch.cuda.stream(self._stream):  # lazy state is made here, not in the graph
                for _ in range(_WARM_UP):
                    self._next()
                    self._cursor.zero_()  # always the first batch: there may be no third
            # It first gives back what an earlier trial's graph had for its own. Other threads may go on meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._next()
        torch.cuda.current_stream().wait_stream(self._stream)
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
            for tensor in self._changing():
                if id(tensor) not in known:
                    tensor.zero_()  # the optimizer's, which it had not made yet: all begin with zeros
        return graph

    def _changing(self) -> Iterator[Tensor]:
        yield from self._state.network.state_dict(keep_vars=True).values()
        for state in self._state.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))
        yield from (self._cursor, self._updates, self._seed, self._loss_sum, self._hits)
