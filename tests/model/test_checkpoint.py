"""A checkpoint loads whole or not at all, and the one before it stands."""

import errno
import hashlib
import io
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import CheckpointFolder, Writing


def payload(epoch: int) -> dict:
    return {"epoch": epoch, "weights": torch.full((50,), float(epoch)), "history": [{"loss": 0.5}] * epoch}


@pytest.fixture
def folder(tmp_path):
    found = CheckpointFolder(tmp_path / "checkpoints")
    for epoch in (1, 2, 3):
        found.save(payload(epoch), epoch, (epoch - 1, {"w": torch.full((3,), float(epoch))}))
    return found


def newest(folder: CheckpointFolder) -> int | None:
    return next((found["epoch"] for found, _ in folder.load()), None)


def test_the_two_newest_are_kept_with_the_best_weights_they_name(folder):
    assert sorted(p.name for p in folder.path.iterdir()) == [
        "best-000001.safetensors", "best-000002.safetensors", "epoch-000002.pt", "epoch-000003.pt", "manifest.json",
    ]  # fmt: skip
    found, best = next(folder.load())
    assert found["epoch"] == 3
    assert torch.equal(found["weights"], payload(3)["weights"])
    assert torch.equal(best["w"], torch.full((3,), 3.0))


def test_the_best_weights_are_given_without_being_written_again(folder, tmp_path):
    target = tmp_path / "best.safetensors"
    weights = {"w": torch.full((3,), 3.0)}

    for _ in range(2):
        folder.give_best(target, 2, weights)
    assert target.samefile(folder.path / "best-000002.safetensors")
    folder.save(payload(4), 4, (3, {"w": torch.full((3,), 4.0)}))
    folder.save(payload(5), 5, (4, {"w": torch.full((3,), 5.0)}))

    assert not (folder.path / "best-000002.safetensors").exists()
    assert torch.equal(load_file(target)["w"], weights["w"])
    assert target.stat().st_nlink == 1
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["best.safetensors"]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"x")])
def test_best_weights_that_are_missing_or_damaged_are_written_anew_when_their_epoch_comes_again(folder, damage):
    damage(folder.path / "best-000002.safetensors")
    assert newest(folder) == 2

    folder.save(payload(3), 3, (2, {"w": torch.full((3,), 3.0)}))

    assert newest(folder) == 3
    assert torch.equal(next(folder.load())[1]["w"], torch.full((3,), 3.0))


def test_best_weights_that_are_not_kept_are_written(folder, tmp_path):
    folder.give_best(tmp_path / "best.safetensors", 0, {"w": torch.full((3,), 7.0)})

    assert torch.equal(load_file(tmp_path / "best.safetensors")["w"], torch.full((3,), 7.0))


@pytest.mark.parametrize("place", range(20))
def test_cut_at_any_place_the_one_before_is_used(folder, place, caplog):
    file = folder.path / "epoch-000003.pt"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * place // 20])

    assert newest(folder) == 2
    assert "epoch 3 can't be used" in caplog.text


@pytest.mark.parametrize("place", range(20))
def test_a_flipped_bit_anywhere_is_found(folder, place):
    file = folder.path / "epoch-000003.pt"
    content = bytearray(file.read_bytes())
    content[len(content) * place // 20] ^= 16
    file.write_bytes(content)

    assert newest(folder) == 2


@pytest.mark.parametrize("beside", [False, True])
def test_what_is_kept_while_training_goes_on_is_there_at_its_end(tmp_path, beside):
    writing = Writing(CheckpointFolder(tmp_path), beside=beside)
    for epoch in (1, 2, 3):
        writing.save(payload(epoch), epoch, (epoch, {"w": torch.zeros(3)}))
    writing.close()

    assert newest(writing.checkpoints) == 3


def test_a_disk_that_was_full_beside_training_is_said_with_the_next_one(tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CheckpointFolder, "save", refuse)
    writing = Writing(CheckpointFolder(tmp_path), beside=True)
    writing.save(payload(1), 1, (1, {}))

    with pytest.raises(OSError, match="No space left"):
        writing.save(payload(2), 2, (2, {}))
    writing.close()


def test_missing_best_weights_fall_back_too(folder):
    (folder.path / "best-000002.safetensors").unlink()

    assert newest(folder) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"epoch": 3}]', b'{"a": 1}', b"3", b"[" * 100_000])
def test_a_damaged_manifest_starts_again(folder, content):
    (folder.path / "manifest.json").write_bytes(content)

    assert "manifest.json is damaged" in "".join(folder.faults())
    assert newest(folder) is None


@pytest.mark.parametrize(
    "change",
    [{"file": None}, {"best_file": 3}, {"epoch": "3"}, {"sha256": {}}, {"file": "../kept.pt"}, {"best_file": "/"}],
)
def test_an_entry_of_a_manifest_that_is_not_whole_falls_back_and_touches_nothing_elsewhere(folder, change, caplog):
    elsewhere = folder.path.parent / "kept.pt"
    elsewhere.write_bytes(b"another's")
    entries = json.loads((folder.path / "manifest.json").read_text())
    (folder.path / "manifest.json").write_text(json.dumps([*entries[:-1], {**entries[-1], **change}]))

    assert [fault.rpartition("/")[2] for fault in folder.faults()] == [
        "manifest.json is damaged: 1 of 2 checkpoints are known"
    ]
    assert newest(folder) == 2
    assert "1 of 2 checkpoints are known" in caplog.text
    assert elsewhere.read_bytes() == b"another's"


def test_a_kill_amid_the_write_leaves_the_last_one(folder, monkeypatch):
    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.save(payload(4), 4, (3, {"w": torch.zeros(3)}))

    assert newest(folder) == 3


class Canary:
    def __reduce__(self):
        return (print, ("the canary ran",))


@pytest.mark.parametrize("as_torch_saves", [False, True])
def test_a_pickle_is_never_run(folder, capsys, as_torch_saves):
    content = saved({"epoch": Canary()}) if as_torch_saves else pickle.dumps(Canary())
    (folder.path / "epoch-000003.pt").write_bytes(content)
    manifest = json.loads((folder.path / "manifest.json").read_text())
    manifest[-1]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder.path / "manifest.json").write_text(json.dumps(manifest))

    assert newest(folder) == 2
    assert "canary" not in capsys.readouterr().out


def rewritten(folder: CheckpointFolder, key: str, content: bytes) -> None:
    """The newest file of that kind is another, and the manifest says so, as only a hand does it."""
    manifest = folder.path / "manifest.json"
    entries = json.loads(manifest.read_text())
    (folder.path / entries[-1][key]).write_bytes(content)
    sums = {"file": "sha256", "best_file": "best_sha256"}
    entries[-1][sums[key]] = hashlib.sha256(content).hexdigest()
    manifest.write_text(json.dumps(entries))


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("file", b""), ("file", b"\x80\x02."), ("file", b"\x80\x02\x85."), ("file", b"\x80\x02K\x01K\x01K\x01s."),
        ("file", pickle.dumps(print)), ("file", saved([1, 2])), ("file", saved(None)),
        ("best_file", b""), ("best_file", b"x"), ("best_file", b"\xff" * 64),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_passed_over_though_its_checksum_is_right(folder, key, content, caplog):
    rewritten(folder, key, content)

    assert newest(folder) == 2
    assert "the checkpoint of epoch 3 can't be used (" in caplog.text
    assert not folder.is_newest(2)
    assert folder.is_newest(3)
    assert "weights_only" not in caplog.text


@pytest.mark.parametrize("foreign", ["link", "another user's"])
def test_a_file_that_leads_elsewhere_or_is_another_users_is_not_read(folder, foreign, caplog):
    file = folder.path / "epoch-000003.pt"
    if foreign == "link":
        elsewhere = folder.path.parent / "elsewhere.pt"
        file.rename(elsewhere)
        file.symlink_to(elsewhere)
    elif os.geteuid() == 0:
        os.chown(file, 12345, -1)
    else:
        pytest.skip("only root can give a file away")

    assert newest(folder) == 2
    assert "epoch-000003.pt is no file of ours" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_this_user_has_kept_in_another_user_s_folder_is_read(folder):
    os.chown(folder.path, 12345, -1)

    assert newest(folder) == 3


def test_what_is_not_whole_is_told_and_left(folder):
    assert list(folder.faults()) == []
    (folder.path / "epoch-000002.pt").write_bytes(b"x")
    (folder.path / "best-000001.safetensors").unlink()

    assert [fault.rpartition("/")[2] for fault in folder.faults()] == [
        "epoch-000002.pt is damaged", "best-000001.safetensors is not there",
    ]  # fmt: skip
    assert (folder.path / "epoch-000002.pt").exists()
