"""The whole training state on disk: written so that a kill at any moment leaves one that loads.

A checkpoint is written beside its place, flushed to the disk, renamed, and only then named in the manifest, with the
checksum of what lies there; what it replaces goes after that. Tensors and plain types only: nothing here is ever
unpickled freely.
"""

import json
import logging
import os
import pickle
import re
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.files import replacing, sha256, write, write_whole

_MANIFEST = "manifest.json"
_KEPT = 2

log = logging.getLogger(__name__)

Payload = dict[str, Any]
"""What a checkpoint holds: tensors, numbers, str, bytes, None, and lists, tuples and dicts of them."""


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """The checkpoints of one trial: the two newest, and the best weights that either of them names."""

    path: Path

    def save(self, payload: Payload, epoch: int, best: tuple[int, Mapping[str, Tensor]]) -> None:
        """Keep the state after `epoch` epochs, and the best weights so far with the epoch they come from.

        Raises:
            OSError, SafetensorError: the disk is full or refuses; what was kept before stays whole.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = self._known()
        best_epoch, weights = best
        best_file = _best_name(best_epoch)
        best_sum = next((entry["best_sha256"] for entry in reversed(kept) if entry["best_file"] == best_file), None)
        if best_sum is None or not (self.path / best_file).exists():
            best_sum = write_weights(self.path / best_file, weights)
        file = f"epoch-{epoch:06d}.pt"
        entry = {
            "epoch": epoch,
            "file": file,
            "sha256": write(self.path / file, lambda stream: torch.save(payload, stream)),
            "best_epoch": best_epoch,
            "best_file": best_file,
            "best_sha256": best_sum,
        }
        kept = [*(old for old in kept if old["epoch"] < epoch), entry][-_KEPT:]
        write_whole(self.path / _MANIFEST, json.dumps(kept, indent=1).encode())
        self._drop_all_but(kept)

    def give_best(self, target: Path, epoch: int, weights: Mapping[str, Tensor]) -> None:
        """Put the best weights, which are `weights`, of the epoch `epoch`, at `target`: what is kept here, if it is.

        A second name for the same file takes no time and no room; files here are never changed, only replaced.
        """
        kept = self.path / _best_name(epoch)
        if any(entry["best_file"] == kept.name for entry in self._known()):
            try:
                if target.exists() and target.samefile(kept):  # renaming one name of a file to another does nothing
                    return
                with replacing(target) as temporary:
                    temporary.unlink()
                    temporary.hardlink_to(kept)
            except OSError as error:
                log.debug("%s can't be linked to (%s): its weights are written again", kept, error)
            else:
                return
        write_weights(target, weights)

    def load(self) -> Iterator[tuple[Payload, dict[str, Tensor]]]:
        """The checkpoints that are whole, newest first: payload, and the best weights it names.

        A damaged one is passed over with a warning.
        """
        for entry in reversed(self._known()):
            try:
                path, best = self.path / entry["file"], self.path / entry["best_file"]
                for file, expected in ((path, entry["sha256"]), (best, entry["best_sha256"])):
                    self._refuse_foreign(file)
                    if sha256(file) != expected:
                        file.unlink()  # so that it is written anew when its epoch comes again
                        raise ValueError(f"{file.name} is damaged")
                payload = torch.load(path, map_location="cpu", weights_only=True)
                if not isinstance(payload, dict):
                    raise TypeError(f"{path.name} is no checkpoint")
                weights = load_file(best)
            except Exception as error:  # whatever reading a file raises that is none of ours
                log.warning("%s: the checkpoint of epoch %s can't be used (%s)", self.path, entry["epoch"], _why(error))
                continue
            yield payload, weights

    def _refuse_foreign(self, file: Path) -> None:
        """Raises ValueError where a file is another user's, or leads elsewhere."""
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in {self.path.stat().st_uid, os.geteuid()}:
            raise ValueError(f"{file.name} is no file of ours, nor of the folder's owner")

    def faults(self) -> Iterator[str]:
        """What of it is not whole, in words; nothing is changed by looking."""
        entries, fault = self._manifest()
        if fault is not None:
            yield fault
        for entry in entries:
            for name, expected in ((entry["file"], entry["sha256"]), (entry["best_file"], entry["best_sha256"])):
                path = self.path / name
                if not path.is_file():
                    yield f"{path} is not there"
                elif sha256(path) != expected:
                    yield f"{path} is damaged"

    def is_newest(self, epoch: int) -> bool:
        """Whether nothing newer than the checkpoint of that epoch was kept here."""
        entries, fault = self._manifest()
        return fault is None and all(entry["epoch"] <= epoch for entry in entries)

    def is_empty(self) -> bool:
        """Whether nothing was ever kept here."""
        return not self.path.is_dir() or not any(self.path.iterdir())

    def clear(self) -> None:
        """Let go of all of it."""
        (self.path / _MANIFEST).unlink(missing_ok=True)
        for file in self.path.iterdir() if self.path.is_dir() else ():
            file.unlink(missing_ok=True)

    def _known(self) -> list[dict[str, Any]]:
        """The manifest's entries, oldest first; what is wrong with it is logged."""
        entries, fault = self._manifest()
        if fault is not None:
            log.warning("%s: what it names is passed over", fault)
        return entries

    def _manifest(self) -> tuple[list[dict[str, Any]], str | None]:
        """The entries that are whole, oldest first, and what is wrong with the manifest, in words."""
        path = self.path / _MANIFEST
        try:
            entries = list(json.loads(path.read_text()))
        except FileNotFoundError:
            return [], None
        except (ValueError, TypeError, RecursionError, OSError) as error:
            return [], f"{path} is damaged ({error})"
        whole = [entry for entry in entries if _is_whole(entry)]
        few = len(whole) < len(entries)
        return whole, f"{path} is damaged: {len(whole)} of {len(entries)} checkpoints are known" if few else None

    def _drop_all_but(self, kept: list[dict[str, Any]]) -> None:
        names = {_MANIFEST, *(entry["file"] for entry in kept), *(entry["best_file"] for entry in kept)}
        for file in self.path.iterdir():
            if file.name not in names:
                file.unlink(missing_ok=True)


@dataclass(slots=True)
class Writing:
    """Keeps checkpoints of one trial, one after the other.

    Attributes:
        checkpoints: where they are kept.
        beside: whether in a thread of its own, while training goes on. What is to be kept must not change meanwhile,
            and an error comes with the next call. On a CPU training has every core: a thread more would only make its
            threads wait.
    """

    checkpoints: CheckpointFolder
    beside: bool
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"))
    _last: "Future[None] | None" = None

    def save(self, payload: Payload, epoch: int, best: tuple[int, Mapping[str, Tensor]]) -> None:
        """See `CheckpointFolder.save`; waits for the one before.

        Raises:
            OSError, SafetensorError: the disk is full or refuses; or did, with the one before.
        """
        if not self.beside:
            self.checkpoints.save(payload, epoch, best)
            return
        self._wait()
        self._last = self._thread.submit(self.checkpoints.save, payload, epoch, best)

    def close(self) -> None:
        """Wait until all is kept, and let go of the thread.

        Raises:
            OSError, SafetensorError: the disk is full or refuses.
        """
        try:
            self._wait()
        finally:
            self._thread.shutdown()

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()


def weights_faults(path: Path) -> Iterator[str]:
    """What is not whole of a file of weights, if it is there, in words."""
    try:
        if path.exists():
            load_file(path)
    except (SafetensorError, OSError) as error:
        yield f"{path} is damaged ({str(error).splitlines()[0]})"


def _why(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's own words tell how to switch this off
        return "it holds something else than tensors and plain values"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _is_whole(entry: object) -> bool:
    """Whether a manifest's entry names two files of its own folder, and all that is to be known of them."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("epoch"), int)
        and all(isinstance(entry.get(key), str) for key in ("file", "sha256", "best_file", "best_sha256"))
        and re.fullmatch(r"epoch-\d+\.pt", entry["file"]) is not None
        and re.fullmatch(r"best-\d+\.safetensors", entry["best_file"]) is not None
    )


def _best_name(epoch: int) -> str:
    return f"best-{epoch:06d}.safetensors"


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> str:
    """Write weights as safetensors, whole or not at all; gives the file's sha256 (hex)."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in weights.items()}
    with replacing(path) as temporary:
        save_file(plain, temporary)
    return sha256(path)
