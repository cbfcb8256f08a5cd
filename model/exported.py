"""A trained network as one file: weights, and all that it takes to use them. What recognises and what is served.

A safetensors file: tensors by the network's names, and under `fer` in its header, as JSON, how faces are prepared and
what the classes are. No pickle.

Legend: N faces, S pixels a side, K = 7 classes.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from data.files import write_whole
from model.network import N_CLASSES, EmotionCNN

_HEADER = "fer"
_FORMAT = 1
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a network wants its faces, and what it knows of them.

    Attributes:
        pool_stride: of the network: 1 as published, 2 for the compact one.
        image_size: S.
        mean: of the training images' values, in [0, 255].
        std: their spread.
        class_names: K names.
        facts: about the training, as JSON takes it: digest of the data, hyperparameters.
    """

    pool_stride: int
    image_size: int
    mean: float
    std: float
    class_names: tuple[str, ...]
    facts: Mapping[str, Any]


class Classifier(nn.Module):
    """Faces as they are to probabilities: preparation, network and softmax in one.

    Args:
        network: trained.
        preparation: of its faces.
    """

    def __init__(self, network: EmotionCNN, preparation: Preparation) -> None:
        super().__init__()
        self.network, self.preparation = network, preparation
        self.eval()

    def forward(self, faces: Tensor) -> Tensor:
        """Faces uint8 [N, S, S] to probabilities float32 [N, K]."""
        images = faces.unsqueeze(1).to(torch.float32)
        images = (images - self.preparation.mean) / self.preparation.std
        probabilities: Tensor = self.network(images).softmax(1)
        return probabilities

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of faces uint8 [N, S, S]: float32 [N, K], in batches.

        Raises:
            ValueError: they are not uint8 [N, S, S].
        """
        size = self.preparation.image_size
        if faces.dtype != np.uint8 or faces.ndim != 3 or faces.shape[1:] != (size, size):
            raise ValueError(f"faces must be uint8 [N, {size}, {size}], got {faces.dtype} {list(faces.shape)}")
        if not len(faces):
            return np.zeros((0, N_CLASSES), np.float32)
        with torch.inference_mode():
            parts = [self(part) for part in torch.from_numpy(np.ascontiguousarray(faces)).split(_BATCH)]  # type: ignore[no-untyped-call]
        found: NDArray[np.float32] = torch.cat(parts).numpy()
        return found

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        known = self.preparation
        header = {
            "format": _FORMAT, "pool_stride": known.pool_stride, "image_size": known.image_size, "mean": known.mean,
            "std": known.std, "class_names": list(known.class_names), "facts": dict(known.facts),
        }  # fmt: skip
        weights = {name: weight.contiguous() for name, weight in self.network.state_dict().items()}
        write_whole(path, save(weights, {_HEADER: json.dumps(header)}))


def load(path: Path) -> Classifier:
    """Read what `Classifier.save` wrote, on the CPU.

    Raises:
        ValueError: it is no such file.
        FileNotFoundError: there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            header = dict(json.loads((file.metadata() or {})[_HEADER]))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        if header.pop("format") != _FORMAT:
            raise ValueError("made by another version")
        preparation = Preparation(**{**header, "class_names": tuple(map(str, header["class_names"]))})
        if (
            len(preparation.class_names) != N_CLASSES
            or not 0 < preparation.std < math.inf
            or not math.isfinite(preparation.mean)
        ):
            raise ValueError("its preparation of faces is damaged")
        if any(weight.is_floating_point() and weight.dtype != torch.float32 for weight in weights.values()):
            raise ValueError("its weights are no float32")
        with torch.device("meta"):
            network = EmotionCNN(0.0, preparation.pool_stride, preparation.image_size)
        network.load_state_dict(weights, assign=True)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: no exported network, as hpo.export --file writes one ({words:.120})") from None
    return Classifier(network, preparation)
