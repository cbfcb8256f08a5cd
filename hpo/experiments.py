"""A study's experiment in MLflow as a whole: found, fetched from, and deleted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpo.errors import HpoError
from hpo.outbox import PARENT
from hpo.tracking import MlflowClient, cause_of, its_run
from hpo.urls import is_missing

_NOT_BESIDE = {"weights", "model"}
"""Of a run's artifacts those that a trial does not leave in its `artifacts/`: its weights, and a registered model."""


def experiment_of(uri: str, study: str) -> str | None:
    """The id of a study's experiment; None where there is none, or it was deleted. No store is made for the question.

    Raises:
        HpoError: MLflow is not reached.
    """
    if is_missing(uri):
        return None
    try:
        found = MlflowClient(tracking_uri=uri).get_experiment_by_name(study)
    except Exception as error:  # whatever a transport raises
        raise HpoError(f"MLflow at {uri} is not reached ({cause_of(error)})") from None
    return str(found.experiment_id) if found is not None and found.lifecycle_stage == "active" else None


def fetch_network(uri: str, study: str, study_id: str, number: int, into: Path) -> Path | None:
    """Fetch the best weights of a trial that another machine has trained from its run, and what lies beside them.

    Args:
        uri: where MLflow is.
        study: its name.
        study_id: its id.
        number: of the trial.
        into: a folder of the caller's, made here.

    Returns:
        That folder, with `weights/` and `artifacts/` as the trial's own has them; None where the run has no weights.

    Raises:
        HpoError: MLflow is not reached.
    """
    experiment = experiment_of(uri, study)
    if experiment is None:
        return None
    client = MlflowClient(tracking_uri=uri)
    try:
        for run in client.search_runs([experiment], its_run(study_id, str(number)), max_results=1):
            if not client.list_artifacts(run.info.run_id, "weights"):
                continue
            (into / "artifacts").mkdir(parents=True)
            client.download_artifacts(run.info.run_id, "weights", str(into))
            for each in client.list_artifacts(run.info.run_id):
                if each.path not in _NOT_BESIDE:
                    client.download_artifacts(run.info.run_id, each.path, str(into / "artifacts"))
            return into
    except Exception as error:  # whatever a transport raises
        raise HpoError(f"MLflow at {uri} is not reached ({cause_of(error)})") from None
    return None


def runs_of(uri: str, study: str, study_id: str) -> dict[str, str]:
    """The status of each run of a study: by its trial's number, of the study's own by `outbox.PARENT`.

    Raises:
        HpoError: MLflow is not reached.
    """
    experiment = experiment_of(uri, study)
    if experiment is None:
        return {}
    search = MlflowClient(tracking_uri=uri).search_runs
    try:
        runs = list(_paged(search, [experiment], f"tags.`hpo.study_id` = '{study_id}'"))
    except Exception as error:  # whatever a transport raises
        raise HpoError(f"MLflow at {uri} is not reached ({cause_of(error)})") from None
    return {run.data.tags.get("optuna.trial_number", PARENT): run.info.status for run in runs}


def delete_runs(uri: str, study: str, study_id: str) -> tuple[int, int]:
    """Delete a study's runs, by its id, and its experiment when nothing else is in it. May be repeated after a kill.

    The experiment is renamed first, so that its name is free. Runs that a registered model is made of stay.

    Returns:
        How many runs were deleted, and how many stay.

    Raises:
        HpoError: MLflow is not reached.
    """
    client, renamed = MlflowClient(tracking_uri=uri), f"{study} (deleted {study_id[:8]})"
    try:
        registered = {version.run_id for version in _paged(client.search_model_versions)}
        n_deleted = n_kept = 0
        for name in (study, renamed):
            experiment = client.get_experiment_by_name(name)
            if experiment is None or experiment.lifecycle_stage != "active":
                continue
            ids = [experiment.experiment_id]
            for run in list(_paged(client.search_runs, ids, f"tags.`hpo.study_id` = '{study_id}'")):
                if run.info.run_id in registered:
                    n_kept += 1
                    continue
                client.delete_run(run.info.run_id)
                n_deleted += 1
            if ids != ["0"] and not client.search_runs(ids, max_results=1):  # 0 is MLflow's own default
                if name != renamed:
                    client.rename_experiment(ids[0], renamed)
                client.delete_experiment(ids[0])
    except Exception as error:  # whatever a transport raises
        raise HpoError(f"MLflow at {uri} is not reached ({cause_of(error)})") from None
    return n_deleted, n_kept


def _paged(search: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """All that a search of MLflow's finds, page by page."""
    token = None
    while True:
        page = search(*args, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
