"""Registered models. MLflow's names come from `hpo.tracking`, which sets it up."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hpo.tracking import MlflowClient, MlflowException, ModelVersion, mlflow
from hpo.tracking_store import open_uri

_NONE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


@dataclass(frozen=True, slots=True)
class Registry:
    """Registered models, by explicit names and versions."""

    client: MlflowClient

    def by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version of that alias; None where there is none."""
        try:
            return self.client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code in _NONE:
                return None
            raise

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model."""
        return list(self.client.search_model_versions(f"name = '{name}'"))

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias mean a version."""
        self.client.set_registered_model_alias(name, alias, version)

    def upload(self, run_id: str, folder: Path) -> str:
        """Hand a saved model over to a run; gives where it lies."""
        self.client.log_artifacts(run_id, str(folder), "model")
        return f"{self.client.get_run(run_id).info.artifact_uri}/model"

    def create_version(self, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        """Register what was uploaded."""
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self.client.create_model_version(name, source, run_id, dict(tags))

    def save_model(self, folder: Path, code: Path, files: Mapping[str, Path], size: int | None, k: int | None) -> None:
        """Save a model from code, without pickle: faces uint8 [N, size, size] to probabilities float32 [N, k].

        Its signature leaves the faces out: MLflow would cut fractions off (faces in [0, 1] become black) before the
        model can refuse them. What they are is said in the model's metadata.
        """
        types = mlflow.types
        signature = metadata = None
        if size is not None and k is not None:
            outputs = types.Schema([types.TensorSpec(np.dtype(np.float32), (-1, k))])
            signature = mlflow.models.ModelSignature(outputs=outputs)
            metadata = {"inputs": f"faces, uint8 [N, {size}, {size}]"}
        needed = [
            f"{package}=={version(package).split('+')[0]}" for package in ("mlflow", "torch", "safetensors", "numpy")
        ]
        artifacts = {name: str(file) for name, file in files.items()}
        with warnings.catch_warnings(record=True):  # that no example is given: the signature says more
            mlflow.pyfunc.save_model(
                str(folder),
                python_model=str(code),
                artifacts=artifacts,
                signature=signature,
                metadata=metadata,
                pip_requirements=needed,
            )

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """Copy a version's files into a folder; gives where they lie there."""
        return Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=version.source, dst_path=str(folder), tracking_uri=self.client.tracking_uri
            )
        )


def registry(uri: str) -> Registry:
    """The registry of a tracking server or store.

    Raises:
        UserError: it can't be a tracking URI.
    """
    uri = open_uri(uri)
    return Registry(MlflowClient(tracking_uri=uri, registry_uri=uri))
