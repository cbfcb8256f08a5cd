"""Binds faces and a device to training: what a study hands to the service. Knows no trial, only a working folder."""

import gc
import hashlib
import json
import logging
import math
import re
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file

from data.faces import Faces, Split
from model import needs
from model.artifacts import write_artifacts
from model.augmentation import AUGMENTATIONS, Augmentation
from model.checkpoint import CheckpointFolder, Payload, Writing, weights_faults
from model.device import choose, use_threads
from model.evaluation import accuracy, macro_f1
from model.exported import Classifier, Preparation
from model.forecast import Forecast
from model.hyperparameters import Hyperparameters, missing_names, unknown_names
from model.network import EmotionCNN
from model.progress import Progress, restore, snapshot
from model.state import fresh_network, fresh_state
from model.steps import DeviceFaces, Stop, TrainingState, n_parts_of
from model.training import train_epochs, validate

log = logging.getLogger(__name__)


_FORMAT = 2
"""Of checkpoints: raised when an older one would go on otherwise than it began."""


_RAN_OUT = re.compile(r"out of memory|ALLOC_FAILED|can't allocate memory")
"""What torch says of memory that ran out where it raises no `OutOfMemoryError`: cuDNN, cuBLAS, the CPU."""


def _more_parts(n_parts: int, hyperparameters: Hyperparameters, error: RuntimeError) -> int:
    """Twice as many parts of a batch; raises the error where memory was enough, or parts would be of single images."""
    n_images, ran_out = hyperparameters.batch_size, isinstance(error, torch.OutOfMemoryError)
    if not (ran_out or _RAN_OUT.search(str(error))) or math.ceil(n_images / (2 * n_parts)) < 2:  # batch norm needs two
        raise error
    return n_parts_of(n_images, n_images, 2 * n_parts)


_Trial = tuple[Hyperparameters, CheckpointFolder, str, Path]
"""What does not change while one is trained: with its fingerprint, and its working folder."""


def never() -> bool:
    """A `stop` that never asks to stop."""
    return False


def always() -> bool:
    """An `owned` of a folder that nobody else writes to."""
    return True


class FaceTrainer:
    """Trains `EmotionCNN` on faces; each call of `train` is one trial, resumable from its working folder.

    Args:
        faces: with the splits `train` and `validation`, and perhaps `test`.
        device: name of a torch device; the best one here by default.
        pool_stride: 1 for the published network, 2 for the compact one.
        augmentation: how training images are varied; `none` as published.
        checkpoint_seconds: the least time between two checkpoints; 0 writes one every epoch.
        threads: CPU threads; they belong to a trial's numbers, so a trial that goes on takes those it began with.
        share: of the memory of machine or device that is this trainer's.
        stop: asked before every batch; true ends `train` cleanly.
        owned: asked before anything in a working folder is replaced; false ends `train`, and it leaves that as it is.

    Raises:
        ValueError: no such device or augmentation, or no training or validation images.
    """

    continues_past_epochs = True
    """The decay of the learning rate counts updates, not what is left of them: more epochs change none of the first."""

    def __init__(
        self,
        faces: Faces,
        *,
        device: str | None = None,
        pool_stride: Literal[1, 2] = 1,
        augmentation: Augmentation = "none",
        checkpoint_seconds: float = 30.0,
        threads: int | None = None,
        share: float = 1.0,
        stop: Stop = never,
        owned: Callable[[], bool] = always,
    ) -> None:
        for split in ("train", "validation"):
            if not len(faces.splits.get(split, ())):
                raise ValueError(f"the data have no images for {split}")
        if augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {augmentation!r}")
        self.faces, self.pool_stride, self.augmentation = faces, pool_stride, augmentation
        self.checkpoint_seconds, self.stop, self.owned = checkpoint_seconds, stop, owned
        self.compute = choose(device)
        self.threads = threads or torch.get_num_threads()
        use_threads(self.threads)
        training = faces.images[faces.splits["train"]]
        self._mean, self._std = float(training.mean()), max(float(training.std()), 1.0)
        self._training = replace(self._on_device("train"), augmentation=augmentation)
        self._validation = self._on_device("validation")
        precision = self.compute.autocast or torch.float32
        bytes_of = needs.fused_image_bytes if self.compute.captures else needs.image_bytes
        memory, network = share * self.compute.memory, (pool_stride, faces.image_size)
        validated = needs.validation_image_bytes(*network, precision)
        n_validated = needs.validation_batch(self.compute.validation_batch, validated, memory)
        self.compute = replace(self.compute, validation_batch=n_validated)
        self._needs = needs.Needs(
            needs.weights_of(*network),
            bytes_of(*network, precision),
            memory,
            captures=self.compute.captures,
            n_images=len(self._training.labels),
            validation_bytes=n_validated * validated,
        )
        self._seconds = {"validation": 0.0, "checkpoint": 0.0}
        self._tags: dict[str, str] = {}

    def train(self, params: Mapping[str, Any], *, seed: int, workdir: Path) -> Iterator[dict[str, float]]:
        """Train one network; yields a metrics mapping an epoch (see `training.train_epochs`), epochs from 0.

        Where memory runs out all the same it goes on from the last whole epoch with batches in more parts.

        Called again with the same arguments after any interruption it first yields the recorded epochs, then goes on:
        in all it yields what an uninterrupted call does, bit for bit on a CPU, times aside. Closing the generator, or
        `stop()`, keeps what was trained. Leaves in `workdir`: `checkpoints/`, and at its end `weights/` (the best
        epoch's) and `artifacts/`.

        Args:
            params: fields of `Hyperparameters`.
            seed: of first weights, order of images, and masks with what varies images, each its own stream.
            workdir: the trial's folder, its own.

        Raises:
            ValueError: params that `check` refuses.
            torch.OutOfMemoryError: there is not even enough for a part of two images.
        """
        self._tags = {}
        self.check(params)
        hyperparameters = Hyperparameters(**params)
        checkpoints = CheckpointFolder(Path(workdir) / "checkpoints")
        fingerprint = self._fingerprint(hyperparameters, seed)
        with self._counted("checkpoint"):
            state, progress, threads, begun_in = self._begun(checkpoints, fingerprint, hyperparameters, seed)
        n_parts = self._n_parts(hyperparameters, begun_in)
        self._note_parts(hyperparameters, n_parts if begun_in is None else begun_in)
        use_threads(threads)
        try:
            if len(progress.history) > hyperparameters.epochs:  # recorded by a trial of more epochs
                progress = progress.first(hyperparameters.epochs)
            goes_on = yield from self._recorded(progress, hyperparameters, checkpoints, Path(workdir))
            if goes_on:
                trial = (hyperparameters, checkpoints, fingerprint, Path(workdir))
                epochs = self._in_parts(state, progress, trial, n_parts, seed)
                del state  # so that it is gone where that lets it go
                yield from epochs
        finally:
            use_threads(self.threads)

    def _recorded(
        self, progress: Progress, hyperparameters: Hyperparameters, checkpoints: CheckpointFolder, workdir: Path
    ) -> Generator[dict[str, float], None, bool]:
        """The epochs that were trained before; returns whether there are more to train."""
        n_yielded, goes_on = 0, False
        try:
            for metrics in progress.history:
                n_yielded += 1
                yield metrics
            goes_on = len(progress.history) < hyperparameters.epochs and not progress.diverged()
        finally:  # it may be paused amid what is recorded
            if n_yielded and not goes_on and self.owned():
                self._write_results(workdir, hyperparameters, progress.first(n_yielded), checkpoints)
        return goes_on

    def _in_parts(
        self, state: TrainingState, progress: Progress, trial: _Trial, n_parts: int, seed: int
    ) -> Iterator[dict[str, float]]:
        """The epochs that are left; where memory runs out, from the last whole one on with batches in more parts."""
        hyperparameters, checkpoints, fingerprint, _ = trial
        n_yielded = len(progress.history)
        while True:
            self._note_parts(hyperparameters, n_parts)
            try:
                with closing(self._train(state, progress, trial, n_parts)) as epochs:
                    for metrics in epochs:
                        n_yielded += 1
                        yield metrics
            except RuntimeError as error:
                n_parts = _more_parts(n_parts, hyperparameters, error)
                if not self.owned():
                    raise
                traceback.clear_frames(error.__traceback__)  # they hold tensors
                ran_out = error
            else:
                return
            del state, epochs
            gc.collect()
            self.compute.give_back()
            state, progress, *_ = self._begun(checkpoints, fingerprint, hyperparameters, seed)
            if len(progress.history) != n_yielded:  # what was kept last can't be used: epochs would be counted wrong
                raise ran_out
            log.warning("memory ran out: from epoch %d on a batch is trained in %d parts", state.epoch, n_parts)

    def _train(
        self, state: TrainingState, progress: Progress, trial: _Trial, n_parts: int
    ) -> Generator[dict[str, float], None, None]:
        hyperparameters, checkpoints, fingerprint, workdir = trial
        kept_at, n_images = time.monotonic(), len(self._training.labels)
        unkept: tuple[Payload, int, tuple[int, dict[str, torch.Tensor]]] | None = None
        is_whole = bool(progress.history)  # and no epoch has come to it of which not all is known
        writing = Writing(checkpoints, beside=self.compute.device.type != "cpu")
        try:
            for metrics in train_epochs(
                state, self._training, self._validation, hyperparameters, self.compute, self.stop, n_parts
            ):
                self._seconds["validation"] += metrics["epoch_seconds"] - n_images / metrics["images_per_second"]
                is_whole = False
                progress.add(metrics, state)
                best = (progress.best_epoch, progress.best_weights)
                unkept = (snapshot(state, progress, fingerprint, n_parts), state.epoch, best)
                is_whole = True
                finished = state.epoch == hyperparameters.epochs
                if finished or time.monotonic() - kept_at >= self.checkpoint_seconds:
                    if not self.owned():
                        return
                    with self._counted("checkpoint"):
                        writing.save(*unkept)
                    unkept, kept_at = None, time.monotonic()
                yield metrics
        finally:
            with self._counted("checkpoint"):
                writing.close()
                is_owned = self.owned()
                if is_owned and unkept is not None:
                    checkpoints.save(*unkept)
                if is_owned and is_whole:  # one that was stopped may never go on: its study may be at its end
                    self._write_results(workdir, hyperparameters, progress, checkpoints)

    def faults(self, workdir: Path) -> Iterator[str]:
        """What is not whole of a trial's checkpoints and weights, in words."""
        yield from CheckpointFolder(Path(workdir) / "checkpoints").faults()
        yield from weights_faults(Path(workdir) / "weights" / "best.safetensors")

    def _note_parts(self, hyperparameters: Hyperparameters, n_parts: int) -> None:
        n_images = hyperparameters.batch_size
        self._tags = {"batch_parts": str(n_parts_of(n_images, n_images, n_parts))} if n_parts > 1 else {}

    def tags(self) -> dict[str, str]:
        """What is to be noted of the trial that was trained last: `batch_parts`, where its batches were split."""
        return dict(self._tags)

    def seconds(self) -> dict[str, float]:
        """How long all calls of `train` so far took in validation, and with checkpoints and results."""
        return dict(self._seconds)

    @contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[kind] += time.perf_counter() - began

    def _write_results(
        self, workdir: Path, hyperparameters: Hyperparameters, progress: Progress, checkpoints: CheckpointFolder
    ) -> None:
        if progress.best_weights:
            weights = workdir / "weights"
            weights.mkdir(parents=True, exist_ok=True)
            checkpoints.give_best(weights / "best.safetensors", progress.best_epoch, progress.best_weights)
        confusion = np.array(progress.best_confusion, np.int64) if progress.best_weights else None
        write_artifacts(
            workdir / "artifacts",
            hyperparameters,
            progress.history,
            confusion,
            progress.best_epoch,
            self.faces.class_names,
        )

    def evaluate(self, workdir: Path, split: Split) -> dict[str, float]:
        """Loss, accuracy and macro F1 of the trial's best weights on a split.

        Raises:
            ValueError: the data have no such split.
            FileNotFoundError: the trial has left no weights.
        """
        if split not in self.faces.splits:
            raise ValueError(f"the data have no split {split!r}, only {', '.join(self.faces.splits)}")
        figures = validate(self._best_network(workdir), self._on_device(split), self.compute, never)
        if figures is None:
            raise AssertionError("an evaluation that is never stopped has figures")
        loss, confusion = figures
        return {"loss": loss, "accuracy": accuracy(confusion), "macro_f1": macro_f1(confusion)}

    def export(self, workdir: Path, path: Path) -> None:
        """Write the trial's best network with its preparation of faces: `.safetensors`, or `.onnx` (`model.onnx`).

        Raises:
            ValueError: another kind of file, or the ONNX file's outputs differ from the network's.
            FileNotFoundError: the trial has left no weights.
            ModuleNotFoundError: an extra is missing that ONNX needs.
        """
        classifier = self._classifier(workdir)
        if path.suffix == ".onnx":
            from model.onnx import write_onnx

            write_onnx(classifier, path)
        elif path.suffix == ".safetensors":
            classifier.save(path)
        else:
            raise ValueError(f"{path}: need a name that ends in .safetensors or .onnx")

    def review(self, workdir: Path) -> list[dict[str, Any]]:
        """What the trial's best network gets right and wrong, and what its data are worth: sections of a report.

        Returns:
            Mappings of `title`, `text`, `columns`, `rows` and `pictures` (names of files in `workdir/review`).

        Raises:
            FileNotFoundError: the trial has left no weights.
        """
        from model.review import review  # matplotlib: training needs none of it

        return review(self._classifier(workdir), self.faces, Path(workdir) / "review")

    def _classifier(self, workdir: Path) -> Classifier:
        network = self._best_network(workdir).to("cpu")
        told = Path(workdir) / "artifacts" / "hyperparameters.json"
        facts = {"data_digest": self.faces.identity, "hyperparameters": json.loads(told.read_text())}
        preparation = Preparation(
            self.pool_stride, self.faces.image_size, self._mean, self._std, self.faces.class_names, facts
        )
        return Classifier(network, preparation)

    def _best_network(self, workdir: Path) -> EmotionCNN:
        network = fresh_network(0.0, None, self.pool_stride, self.faces.image_size, self.compute, masks=None)
        network.load_state_dict(load_file(Path(workdir) / "weights" / "best.safetensors"))
        return network

    def check(self, params: Mapping[str, Any]) -> None:
        """Refuse, before any work, params that can't be trained with.

        Raises:
            ValueError: unknown or missing names, values out of range, a batch larger than the training split.
        """
        if unknown := unknown_names(dict(params)):
            raise ValueError(f"unknown params {', '.join(unknown)}, need fields of Hyperparameters")
        if missing := missing_names(dict(params)):
            raise ValueError(f"missing params {', '.join(missing)}")
        hyperparameters = Hyperparameters(**params)
        if hyperparameters.batch_size > len(self._training.labels):
            n_images = len(self._training.labels)
            raise ValueError(f"batch_size must be at most {n_images} (images), got {hyperparameters.batch_size}")
        self._needs.refuse_too_much(hyperparameters)

    def describe(self) -> dict[str, Any]:
        """Data digest, network, augmentation, class names, device, and the data set as MLflow notes it."""
        return {
            "data_digest": self.faces.identity,
            "network": f"EmotionCNN(pool_stride={self.pool_stride}, image_size={self.faces.image_size})",
            **self._augmented(),
            "class_names": list(self.faces.class_names),
            "device": str(self.compute.device),
            "dataset": {
                "name": self.faces.name,
                "digest": self.faces.identity,
                "source": self.faces.source,
                "split": self.faces.split_name,
                "counts": self.faces.counts(),
                "image_size": self.faces.image_size,
            },
        }

    def estimate(self, candidates: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
        """What trials with these params need, of the cheapest and of the dearest, from a few real steps of each.

        Returns:
            `epoch_seconds`, `memory` (bytes), `checkpoint` (bytes), each the least and the most.
        """
        return self._forecast().estimate([Hyperparameters(**params) for params in candidates])

    def side_by_side(self, candidates: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, float]]:
        """Numbers of trials at a time, 1, 2, 4 and so on, and how many images those train in a second all together.

        Measured as it is asked for, with the params of middling batch size; they share this trainer's threads, at least
        one each. Nothing where there is too little for two.
        """
        return self._forecast().side_by_side([Hyperparameters(**params) for params in candidates])

    def _forecast(self) -> Forecast:
        return Forecast(
            fresh=self._fresh,
            faces=self._training,
            n_validation=len(self._validation.labels),
            compute=self.compute,
            needs=self._needs,
            threads=self.threads,
            stop=self.stop,
        )

    def _n_parts(self, hyperparameters: Hyperparameters, begun_in: int | None) -> int:
        """Into how many parts a batch is split: as it was `begun_in`, if that fits here. Where it is, that is said."""
        found = self._needs.n_parts(hyperparameters)
        if begun_in is not None and found <= begun_in:
            return begun_in
        if begun_in is not None:
            log.warning("begun with batches in %d parts, where there was more memory", begun_in)
        if found > 1:
            log.warning(
                "a batch of %d needs about %.1f GB and %.1f are there: it is trained in %d parts, whose gradients are "
                "summed; batch norm sees a part",
                hyperparameters.batch_size, self._needs.whole(hyperparameters) / 1e9, self._needs.memory / 1e9, found,
            )  # fmt: skip
        return found

    def _fresh(self, hyperparameters: Hyperparameters, seed: int, *, weights: bool = True) -> TrainingState:
        size = self.faces.image_size
        return fresh_state(hyperparameters, seed, self.pool_stride, size, self.compute, weights=weights)

    def _begun(
        self, checkpoints: CheckpointFolder, fingerprint: str, hyperparameters: Hyperparameters, seed: int
    ) -> tuple[TrainingState, Progress, int, int | None]:
        """State and progress as the newest usable checkpoint has them, or a trial's beginning.

        Returns:
            Also what its numbers rest on and it must go on with: threads, and parts of a batch (None: none yet).
        """
        progress = Progress()
        for payload, best_weights in checkpoints.load():
            if payload.get("fingerprint") != fingerprint:
                log.warning("%s: made with other params, seed, data or device: training starts again", checkpoints.path)
                break
            state = self._fresh(hyperparameters, seed, weights=False)
            restore(payload, best_weights, state, progress)
            if not checkpoints.is_newest(state.epoch):
                log.warning("%s: training goes on from the checkpoint of epoch %d", checkpoints.path, state.epoch)
            return state, progress, int(payload["threads"]), int(payload.get("n_parts", 1))
        else:
            if not checkpoints.is_empty():
                log.warning("%s: no checkpoint can be used: training starts again from epoch 0", checkpoints.path)
        checkpoints.clear()
        return self._fresh(hyperparameters, seed), progress, self.threads, None

    def _fingerprint(self, hyperparameters: Hyperparameters, seed: int) -> str:
        # The kind of device and of steps too: what they remember fits no other kind.
        how = [self.compute.device.type, self.compute.captures, _FORMAT]
        made_of = [self.faces.identity, self.pool_stride, self.faces.image_size, *how, *self._augmented().values()]
        params = {name: value for name, value in asdict(hyperparameters).items() if name != "epochs"}
        whole = [params, seed, *made_of]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def _augmented(self) -> dict[str, str]:
        """The augmentation, where there is one: without it a trial is the same as before there could be any."""
        return {} if self.augmentation == "none" else {"augmentation": self.augmentation}

    def _on_device(self, split: Split) -> DeviceFaces:
        rows = self.faces.splits[split]
        return DeviceFaces(
            images=torch.from_numpy(self.faces.images[rows]).to(self.compute.device),
            labels=torch.from_numpy(self.faces.labels[rows].astype(np.int64)).to(self.compute.device),
            mean=self._mean,
            std=self._std,
        )
