"""The best network of a study as a registered MLflow model: its name is the study's, its alias `champion`."""

import importlib.util
import logging
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.errors import UserError
from hpo.options import tracking_uri as where
from hpo.urls import is_missing

if TYPE_CHECKING:
    from hpo.tracking import ModelVersion

CHAMPION, PREVIOUS = "champion", "previous"
NETWORK = "network"
"""The model's artifact that is the network's file."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A trained network that may become a study's champion.

    Attributes:
        study: whose champion: the registered model's name.
        run_id: of the MLflow run of the trial that trained it.
        trial: which trial of which study, for people.
        params: that it was trained with.
        metric: by which it is compared.
        direction: maximize or minimize.
        value: of the metric: the confirmed mean, or what the search saw.
        confirmed: whether it was confirmed on fresh seeds.
        configuration: that it was trained with: the study's id and the number of the search's trial.
        surpassed: configurations that were confirmed on the same seeds, and came out no better.
        n_seeds: on how many it was confirmed; 0 where it was not.
        description: what the trainer says of itself: data digest, class names, data set.
        figures: further metrics, such as the test split's.
        file: the network, as the trainer's `export` writes it.
    """

    study: str
    run_id: str
    trial: str
    params: Mapping[str, Any]
    metric: str
    direction: str
    value: float
    confirmed: bool
    configuration: str
    surpassed: Collection[str]
    n_seeds: int
    description: Mapping[str, Any]
    figures: Mapping[str, float]
    file: Path

    def tags(self) -> dict[str, str]:
        """What a model version says of itself, and is compared by."""
        state = "confirmed" if self.confirmed else "unconfirmed"
        return {
            "hpo.state": state,
            "hpo.trial": self.trial,
            "hpo.configuration": self.configuration,
            "hpo.metric": self.metric,
            "hpo.direction": self.direction,
            "hpo.value": repr(self.value),
            "hpo.n_seeds": str(self.n_seeds),
            "hpo.data_digest": str(self.description.get("data_digest", "")),
            **{f"hpo.{name}": repr(value) for name, value in self.figures.items()},
            **{f"param.{name}": str(value) for name, value in self.params.items()},
        }


def register(contender: Contender, uri: str, *, force: bool = False) -> str:
    """Make a network the champion, unless the present one is better; gives what was done, in a sentence.

    The one before stays, under the alias `previous`. Safe to repeat: a version that is there is not made again.

    Raises:
        UserError: MLflow is not reached, or refuses.
    """
    from hpo.registry import registry
    from hpo.tracking import MlflowException

    name = contender.study
    try:
        client = registry(uri)
        present = client.by_alias(name, CHAMPION)
        if present is not None and _is(present, contender):
            return f"the champion of {name} is {contender.trial} already, version {present.version}"
        if present is not None and not force and (reason := why_it_stays(present.tags, contender)):
            return f"the champion of {name} stays {present.tags.get('hpo.trial')}: {reason}; --force replaces it"
        versions = client.versions(name)
        version = next((v for v in versions if _is(v, contender)), None)
        if version is None:
            # A network that was registered before lies where others load it from: it is not written again.
            source = next((v.source for v in versions if _is_network_of(v, contender)), None)
            if source is None:
                with tempfile.TemporaryDirectory() as folder:
                    made = Path(folder) / "model"
                    client.save_model(made, _code(), {NETWORK: contender.file}, *_shape(contender.description))
                    source = client.upload(contender.run_id, made)
            version = client.create_version(name, source, contender.run_id, contender.tags())
        if present is not None and present.run_id != version.run_id:  # else it is the same network, confirmed again
            client.set_alias(name, PREVIOUS, present.version)
        client.set_alias(name, CHAMPION, version.version)
    except MlflowException as error:
        raise UserError(f"MLflow at {uri} registers no model: {str(error).splitlines()[0]:.200}") from None
    marked = "" if contender.confirmed else ", unconfirmed"
    return f"the champion of {name} is {contender.trial}{marked}: models:/{name}@{CHAMPION}, version {version.version}"


def champion_file(study: str, tracking_uri: str | None, folder: Path) -> Path:
    """Download the network's file of a study's champion; gives the file.

    Args:
        study: whose champion.
        tracking_uri: MLflow's; None for what the environment says.
        folder: where it is downloaded to.

    Raises:
        UserError: there is none, or MLflow is not reached.
    """
    from hpo.registry import registry
    from hpo.tracking import MlflowException

    uri = where(tracking_uri)
    if is_missing(uri):  # none is made for the question
        raise UserError(f"{uri}: there is no such store: no study has a champion here (or give --tracking-uri)")
    try:
        client = registry(uri)
        version = client.by_alias(study, CHAMPION)
        if version is None:
            raise UserError(
                f"study {study!r} has no champion in {uri}; make one with `python -m hpo.confirm --study {study}`, or "
                f"an unconfirmed one with `python -m hpo.export --study {study} --register`"
            )
        model = client.download(version, folder)
    except MlflowException as error:
        raise UserError(f"MLflow at {uri}: {str(error).splitlines()[0]:.200}") from None
    files = sorted((model / "artifacts").glob("*.safetensors"))
    if not files:
        raise UserError(f"the champion of {study!r} holds no network's file")
    return files[0]


def _is(version: "ModelVersion", contender: Contender) -> bool:
    return _is_network_of(version, contender) and _equal(version, contender, "hpo.state", "hpo.value")


def _is_network_of(version: "ModelVersion", contender: Contender) -> bool:
    return version.run_id == contender.run_id and _equal(version, contender, "hpo.trial", "hpo.data_digest")


def _equal(version: "ModelVersion", contender: Contender, *keys: str) -> bool:
    tags = contender.tags()
    return all(version.tags.get(key) == tags[key] for key in keys)


def why_it_stays(present: Mapping[str, str], contender: Contender) -> str | None:
    """Why a champion, of these tags, stays; None where it does not."""
    if present.get("hpo.state") == "confirmed" and not contender.confirmed:
        return "it is confirmed, and this one is not"
    if present.get("hpo.state") != "confirmed" and contender.confirmed:
        return None
    # A confirmation of it on as many seeds, or more, knows more than the one that made it champion.
    again = present.get("hpo.configuration") in {contender.configuration, *contender.surpassed}
    if contender.confirmed and again and int(present.get("hpo.n_seeds", 0)) <= contender.n_seeds:
        return None
    tags = contender.tags()
    if any(present.get(key) != tags[key] for key in ("hpo.data_digest", "hpo.metric", "hpo.direction")):
        return "it was trained on other data, or measured otherwise: the two can't be compared"
    sign = 1.0 if contender.direction == "maximize" else -1.0
    value = float(present["hpo.value"])
    if sign * value >= sign * contender.value:
        return f"its {contender.metric} is {value:.4f}, that of {contender.trial} {contender.value:.4f}"
    return None


def _code() -> Path:
    """The model's code, `studies/champion.py`: known by its place alone."""
    found = importlib.util.find_spec("studies")
    folders = [Path(p) for p in (found.submodule_search_locations or ())] if found else []
    return next(folder / "champion.py" for folder in folders)


def _shape(description: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Pixels a side and number of classes, where the trainer says."""
    dataset, names = description.get("dataset"), description.get("class_names")
    size = dataset.get("image_size") if isinstance(dataset, Mapping) else None
    return (int(size) if size else None), (len(names) if names else None)
