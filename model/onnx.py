"""A trained network as an ONNX file: faces uint8 [N, S, S] in, probabilities float32 [N, 7] out, N free."""

import logging
import warnings
from pathlib import Path

import numpy as np
import torch

from data.files import replacing
from model.exported import Classifier

TOLERANCE = 1e-4
"""How far the file's probabilities may be from the network's."""


def write_onnx(classifier: Classifier, path: Path) -> float:
    """Write the file, whole or not at all, once ONNX Runtime has given with it what PyTorch gives without.

    Args:
        classifier: preparation of faces, network and softmax.
        path: input is named `faces`, output `probabilities`.

    Returns:
        The greatest difference of a probability.

    Raises:
        ValueError: it is more than `TOLERANCE`.
        ModuleNotFoundError: onnx, onnxscript or onnxruntime is missing.
    """
    import onnxruntime
    import onnxscript  # noqa: F401  what torch writes with; missing, torch says so in a page

    size = classifier.preparation.image_size
    faces = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, size, size), dtype=np.uint8))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with replacing(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, about torch
            torch.onnx.export(
                classifier,
                (faces,),
                temporary,
                input_names=["faces"],
                output_names=["probabilities"],
                dynamic_shapes={"faces": {0: torch.export.Dim("n", min=1)}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        difference = 0.0
        for n in (5, 1):
            (theirs,) = session.run(["probabilities"], {"faces": faces[:n].numpy()})
            difference = max(difference, float(np.abs(theirs - classifier.probabilities(faces[:n].numpy())).max()))
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{path}: its outputs differ by {difference:.2g} from PyTorch's, at most {TOLERANCE} may be"
            )
    return difference
