"""Serves a registered model: the code that MLflow loads. Faces uint8 [N, S, S] in, probabilities float32 [N, 7] out."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from model.exported import Classifier, load

with warnings.catch_warnings(record=True):  # that `predict` has no type hints; a filter of ours MLflow sets aside

    class Champion(PythonModel):
        """The network of one file, with its preparation of faces."""

        _classifier: Classifier

        def load_context(self, context: Any) -> None:
            """Read the network from the model's artifacts."""
            self._classifier = load(Path(context.artifacts["network"]))

        # No type hints: MLflow takes them for a schema, and knows no arrays in it.
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG002
            """Probabilities of the classes, float32 [N, 7], of faces [N, S, S] whose values are whole, 0 to 255."""
            given = np.asarray(model_input)
            faces = given.astype(np.uint8)
            if given.dtype != np.uint8 and not np.array_equal(faces, given):
                raise ValueError("faces must be whole numbers from 0 to 255")
            return self._classifier.probabilities(faces)


set_model(Champion())
