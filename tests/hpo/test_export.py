"""Whose weights are meant: another study's of the same name are never taken for them."""

import errno
from argparse import Namespace
from types import SimpleNamespace

import pytest

from hpo.errors import HpoError, UserError
from hpo.export import exported, with_weights
from tests.hpo.test_notebook import make_study


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Namespace(workdir="trials", tracking_uri=None)


def test_weights_that_are_here_are_taken(options, tmp_path):
    study = make_study(tmp_path)

    assert (with_weights(options, study, [1]) / "1/weights/best.safetensors").is_file()


def test_a_folder_that_was_moved_aside_for_another_study_of_that_name_is_still_its_own(options, tmp_path):
    study = make_study(tmp_path)
    ours = tmp_path / "trials" / "toy"
    ours.rename(ours.with_name(f"toy.before-{'f' * 8}"))
    (ours / "1/weights").mkdir(parents=True)
    (ours / ".study_id").write_text("0" * 32)

    assert (with_weights(options, study, [1]) / "1/weights/best.safetensors").is_file()


def test_where_only_another_study_has_weights_there_are_none(options, tmp_path):
    study = make_study(tmp_path)
    (tmp_path / "trials/toy/.study_id").write_text("0" * 32)

    assert not with_weights(options, study, [1]).exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_password_in_the_tracking_uri_is_not_shown(options, tmp_path, capsys):
    study = make_study(tmp_path)
    options.tracking_uri = "http://me:secret@host"

    with_weights(options, study, [0])

    said = capsys.readouterr().err
    assert "must hold no user and password" in said
    assert "secret" not in said


def test_a_study_of_optunas_own_making_is_refused(options, tmp_path):
    study = make_study(tmp_path)
    study._storage.set_study_user_attr(study._study_id, "hpo.study_id", None)

    with pytest.raises(UserError, match="was not made by hpo.run"):
        with_weights(options, study, [1])


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ValueError("no such kind"), UserError),
        (FileNotFoundError("gone"), UserError),
        (RuntimeError("damaged\nthe rest"), HpoError),
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
    ],
)
def test_what_an_export_raises_keeps_its_exit_code_and_is_a_line(raised, kind, tmp_path):
    def export(*_):
        raise raised

    with pytest.raises(kind) as caught:
        exported(SimpleNamespace(export=export), tmp_path, tmp_path / "out.onnx")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
