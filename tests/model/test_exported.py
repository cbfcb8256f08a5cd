"""A trained network as a file: what is loaded gives what was saved, and nothing else is taken."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from data.synthetic import synthetic_faces
from model.exported import Classifier, Preparation, load
from model.network import EmotionCNN
from model.onnx import write_onnx
from model.trainer import FaceTrainer

NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def classifier(stride=2, size=16) -> Classifier:
    torch.manual_seed(0)
    return Classifier(
        EmotionCNN(0.3, stride, size), Preparation(stride, size, 120.0, 60.0, NAMES, {"data_digest": "abc"})
    )


def faces(n, size=16):
    return np.random.default_rng(n).integers(0, 256, (n, size, size), dtype=np.uint8)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_loaded_gives_what_was_saved(stride, tmp_path):
    ours = classifier(stride)
    ours.save(tmp_path / "network.safetensors")

    theirs = load(tmp_path / "network.safetensors")

    assert theirs.preparation == ours.preparation
    assert np.array_equal(theirs.probabilities(faces(5)), ours.probabilities(faces(5)))


def test_probabilities_are_of_any_number_of_faces_and_sum_to_one():
    for n in (0, 1, 300):
        found = classifier().probabilities(faces(n))
        assert found.shape == (n, 7)
        assert found.dtype == np.float32
        assert found.sum(1) == pytest.approx(np.ones(n), abs=1e-5)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 16, 15), np.uint8), np.zeros((16, 16), np.uint8), np.zeros((2, 16, 16))]
)
def test_other_arrays_than_faces_are_refused(wrong):
    with pytest.raises(ValueError, match=r"faces must be uint8 \[N, 16, 16\]"):
        classifier().probabilities(wrong)


DAMAGED = {
    "number": lambda _: 3,
    "word": lambda _: "fer",
    "six": lambda known: {**known, "class_names": list("abcdef")},
    "no mean": lambda known: {**known, "mean": "x"},
    "no spread": lambda known: {**known, "std": 0},
}


def test_another_file_is_refused_in_a_line(tmp_path):
    (tmp_path / "text.safetensors").write_text("no network")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "cut.safetensors", {"fer": json.dumps({"format": 1})})

    known = {
        "format": 1,
        "pool_stride": 2,
        "image_size": 16,
        "mean": 1.0,
        "std": 1.0,
        "class_names": list("abcdefg"),
        "facts": {},
    }
    for name, header in DAMAGED.items():
        save_file(
            classifier().network.state_dict(), tmp_path / f"{name}.safetensors", {"fer": json.dumps(header(known))}
        )

    for name in ("text", "other", "cut", *DAMAGED):
        with pytest.raises(ValueError, match="no exported network"):
            load(tmp_path / f"{name}.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("stride", [1, 2])
def test_the_onnx_file_gives_the_same_for_any_number_of_faces(stride, tmp_path):
    ours = classifier(stride)

    assert write_onnx(ours, tmp_path / "network.onnx") < 1e-4

    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    for n in (1, 2, 7):
        (theirs,) = session.run(["probabilities"], {"faces": faces(n)})
        assert np.abs(theirs - ours.probabilities(faces(n))).max() < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


def test_a_trainers_best_network_is_exported_as_it_validated_and_reviewed(tmp_path):
    drawn = synthetic_faces(n_train=70, n_validation=35, n_test=14, image_size=16)
    trainer = FaceTrainer(drawn, device="cpu", pool_stride=2, threads=1)
    params = {"learning_rate": 1e-3, "batch_size": 16, "epochs": 2, "dropout": 0.1, "optimizer": "adam"}
    history = list(trainer.train(params, seed=1, workdir=tmp_path))

    trainer.export(tmp_path, tmp_path / "network.safetensors")
    sections = trainer.review(tmp_path)

    network, rows = load(tmp_path / "network.safetensors"), drawn.splits["validation"]
    hits = network.probabilities(drawn.images[rows]).argmax(1) == drawn.labels[rows]
    assert hits.mean() == pytest.approx(max(m["val_accuracy"] for m in history))
    assert network.preparation.facts["hyperparameters"]["optimizer"] == "adam"
    titles = [section["title"] for section in sections]
    assert titles == ["What it confuses", "Most confidently wrong", "Faults of the data"]
    for picture in (name for section in sections for name in section.get("pictures", [])):
        assert (tmp_path / "review" / picture).read_bytes().startswith(b"\x89PNG")
    assert sum(row[1] for row in sections[0]["rows"]) == 35
    assert json.loads(json.dumps(sections)) == sections
    with pytest.raises(ValueError, match="ends in .safetensors or .onnx"):
        trainer.export(tmp_path, tmp_path / "network.pt")
