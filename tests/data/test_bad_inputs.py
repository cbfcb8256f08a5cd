"""Every kind of bad input gets one clear line, and nothing is kept of it."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pyarrow as pa
import pytest
from pyarrow import parquet

from data import archives, fer2013, prepare
from data.errors import DataError
from tests.data.rows import PIXELS, csv_text, npz_bytes, rows
from tests.end_to_end.stores import run


def changed(row: int, text: str) -> bytes:
    lines = rows()
    lines[row - 1] = text
    return csv_text(lines)


def pixels_with(position: int, token: str) -> str:
    tokens = PIXELS.split(" ")
    tokens[position - 1] = token
    return " ".join(tokens)


def zipped(members: dict[str, bytes], *, link: str | None = None) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    return stream.getvalue()


def encrypted() -> bytes:
    """A zip whose member says that it is encrypted, in its own header and in the directory."""
    content = bytearray(zipped({"fer2013.csv": GOOD}))
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(header) + flags] |= 1
    return bytes(content)


def npz(**other: np.ndarray) -> bytes:
    """A good npz but for an array."""
    arrays = {"pixels": np.zeros((7, 48, 48), np.uint8), "emotion": np.arange(7), "usage": np.zeros(7, int)}
    return npz_bytes(**(arrays | other))


def parquet_of_no_text() -> bytes:
    """A parquet whose pixels are bytes that are no UTF-8."""
    stream, pixels = io.BytesIO(), pa.array([b"\x80"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"emotion": ["0"], "pixels": pixels, "Usage": ["Training"]}), stream)
    return stream.getvalue()


def npz_of(pixels: bytes) -> bytes:
    """A good npz but for the bytes of its pixels' array."""
    with zipfile.ZipFile(io.BytesIO(npz())) as good:
        members = {name: good.read(name) for name in good.namelist()}
    return zipped(members | {"pixels.npy": pixels})


def npz_of_a_shape(*shape: int) -> bytes:
    """An npz whose header promises an array of this shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return npz_of(header.getvalue())


def tarred(members: dict[str, bytes], *, link: str | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return stream.getvalue()


GOOD = csv_text(rows())
BOMB = b"emotion,pixels\n" + b"\n" * 200_000_000

BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("f.csv", lambda: b"", "file is empty"),
    "header only": ("f.csv", lambda: csv_text([]), "header but no rows"),
    "web page": ("f.csv", lambda: b"<!DOCTYPE html><html>log in</html>", "this is a web page, not a CSV; download it"),
    "git lfs": ("f.csv", lambda: b"version https://git-lfs.github.com/spec/v1\noid 1\n", "run git lfs pull"),
    "zip as csv": ("f.csv", lambda: zipped({"a": b"1"}), "starts with PK"),
    "png as csv": ("f.csv", lambda: b"\x89PNG\r\n\x1a\n", "starts with PNG"),
    "parquet as csv": ("f.csv", lambda: b"PAR1abc\n", "starts with PAR1"),
    "utf-16": ("f.csv", lambda: GOOD.decode().encode("utf-16"), "UTF-16 text; save as UTF-8"),
    "lone CR": ("f.csv", lambda: csv_text(rows(), end="\r"), "unsupported line ends"),
    "missing column": ("f.csv", lambda: csv_text(rows(), "emotion,pixel,Usage"), "no column 'pixels'; found"),
    "duplicate column": ("f.csv", lambda: csv_text(rows(), "emotion,pixels,pixels"), "column 'pixels' twice"),
    "semicolons": ("f.csv", lambda: GOOD.replace(b",", b";"), "looks ';'-separated"),
    "tabs": ("f.csv", lambda: GOOD.replace(b",", b"\t"), "looks '\\t'-separated"),
    "2303 pixels": ("f.csv", lambda: changed(7, f"0,{PIXELS[:-3]},Training"), "row 7: found 2303 pixels, need 2304"),
    "2305 pixels": ("f.csv", lambda: changed(7, f"0,{PIXELS} 1,Training"), "row 7: found 2305 pixels, need 2304"),
    "256": (
        "f.csv",
        lambda: changed(2, f"0,{pixels_with(12, '256')},Training"),
        "row 2: found pixel 12 = 256, need 0..255",
    ),
    "-1": ("f.csv", lambda: changed(2, f"0,{pixels_with(12, '-1')},Training"), "pixel 12 = -1, need 0..255"),
    "25.7": ("f.csv", lambda: changed(2, f"0,{pixels_with(12, '25.7')},Training"), "pixel 12 = '25.7', need a whole"),
    "nan": ("f.csv", lambda: changed(2, f"0,{pixels_with(12, 'nan')},Training"), "pixel 12 = 'nan', need a whole"),
    "empty token": ("f.csv", lambda: changed(2, f"0,{pixels_with(12, '')},Training"), "pixel 12 = '', need a whole"),
    "1_0": ("f.csv", lambda: changed(2, f"0,{pixels_with(12, '1_0')},Training"), "pixel 12 = '1_0', need a whole"),
    "0x1f": ("f.csv", lambda: changed(2, f"0,{pixels_with(12, '0x1f')},Training"), "pixel 12 = '0x1f', need a whole"),
    "arabic digit": ("f.csv", lambda: changed(2, f"0,{pixels_with(12, '٣')},Training"), "pixel 12 = '٣', need a whole"),
    "label 7": ("f.csv", lambda: changed(3, f"7,{PIXELS},Training"), "row 3: found emotion '7', need 0..6"),
    "label -1": ("f.csv", lambda: changed(3, f"-1,{PIXELS},Training"), "emotion '-1', need 0..6"),
    "label happy": ("f.csv", lambda: changed(3, f"happy,{PIXELS},Training"), "emotion 'happy', need 0..6"),
    "label empty": ("f.csv", lambda: changed(3, f",{PIXELS},Training"), "emotion '', need 0..6"),
    "label 3.0": ("f.csv", lambda: changed(3, f"3.0,{PIXELS},Training"), "emotion '3.0', need 0..6"),
    "usage training": ("f.csv", lambda: changed(4, f"3,{PIXELS},training"), "Usage 'training', need one of Training"),
    "usage empty": ("f.csv", lambda: changed(4, f"3,{PIXELS},"), "Usage '', need one of"),
    "missing field": ("f.csv", lambda: changed(4, f"3,{PIXELS}"), "row 4: found 2 fields, need 3"),
    "NUL": ("f.csv", lambda: GOOD[:5000] + b"\0" + GOOD[5001:], "NUL byte at offset 5000"),
    "long field": ("f.csv", lambda: changed(5, "1," + "1" * 200_000), "field longer than 16384"),
    "open quote": ("f.csv", lambda: csv_text([*rows()[:5], f'1,"{PIXELS}']), "damaged or cut short"),
    "not utf-8": ("f.csv", lambda: GOOD.replace(b"Training", b"Train\xffng", 1), "is not UTF-8 text"),
    "cut row": ("f.csv", lambda: GOOD[:-6000], "row 21: found"),
    "gzip cut": ("f.csv.gz", lambda: gzip.compress(GOOD)[:-300], "gzip is cut short"),
    "gzip sum": ("f.csv.gz", lambda: gzip.compress(GOOD)[:-8] + b"\1\2\3\4\5\6\7\0", "gzip is damaged"),
    "gzip junk": ("f.csv.gz", lambda: gzip.compress(GOOD) + b"junk", "gzip is damaged"),
    "tar.gz cut": ("f.tar.gz", lambda: tarred({"fer2013.csv": GOOD})[:-300], "cut short"),
    "zip cut": ("f.zip", lambda: zipped({"fer2013.csv": GOOD})[:-300], "zip is damaged"),
    "zip with a hole": (
        "f.zip",
        lambda: zipped({"f.csv": GOOD})[:100] + zipped({"f.csv": GOOD})[300:],
        "zip is damaged",
    ),
    "zip of no name": ("f.zip", lambda: zipped({".": GOOD}), "unsafe archive member"),
    "zip bomb": ("f.zip", lambda: zipped({"fer2013.csv": BOMB}), "expands too much"),
    "gzip bomb": ("f.csv.gz", lambda: gzip.compress(BOMB), "expands too much"),
    "zip climbs out": ("f.zip", lambda: zipped({"../fer2013.csv": GOOD}), "unsafe archive member"),
    "zip absolute": ("f.zip", lambda: zipped({"/fer2013.csv": GOOD}), "unsafe archive member"),
    "zip link": ("f.zip", lambda: zipped({"fer2013.csv": GOOD}, link="x"), "unsafe archive member"),
    "tar climbs out": ("f.tar.gz", lambda: tarred({"../fer2013.csv": GOOD}), "unsafe archive member"),
    "tar link": ("f.tar.gz", lambda: tarred({"fer2013.csv": GOOD}, link="x"), "unsafe archive member"),
    "zip encrypted": ("f.zip", encrypted, "fer2013.csv is encrypted; unpack it first"),
    "two of one rank": ("f.zip", lambda: zipped({"a/fer2013.csv": GOOD, "b/fer2013.csv": GOOD}), "ambiguous"),
    "nothing in zip": ("f.zip", lambda: zipped({"readme.txt": b"x"}), "no face data found"),
    "class absent": ("f.csv", lambda: csv_text([r for r in rows() if r[0] != "1"]), "no image of class disgust"),
    "npz objects": (
        "f.npz",
        lambda: npz_bytes(pixels=np.array([{}]), emotion=np.zeros(1), usage=np.zeros(1)),
        "holds objects",
    ),
    "npz missing": ("f.npz", lambda: npz_bytes(pixels=np.zeros((1, 48, 48))), "no array 'emotion'"),
    "npz range": (
        "f.npz",
        lambda: npz_bytes(pixels=np.full((1, 48, 48), 256), emotion=np.zeros(1, int), usage=np.zeros(1, int)),
        "pixel 1 = 256, need 0..255",
    ),
    "npz label nan": ("f.npz", lambda: npz(emotion=np.full(7, np.nan)), "emotion is of float64, need whole numbers"),
    "npz label 3.7": ("f.npz", lambda: npz(emotion=np.full(7, 3.7)), "emotion is of float64, need whole numbers"),
    "npz label 1j": ("f.npz", lambda: npz(emotion=np.full(7, 1j)), "emotion is of complex128, need whole numbers"),
    "npz label text": (
        "f.npz",
        lambda: npz(emotion=np.array(list("0123456"))),
        "emotion is of <U1, need whole numbers",
    ),
    "npz usage nan": ("f.npz", lambda: npz(usage=np.full(7, np.nan)), "usage is of float64, need whole numbers"),
    "npz label 7": ("f.npz", lambda: npz(emotion=np.arange(1, 8)), "row 7: found emotion 7, need 0..6"),
    "npz of no dimension": ("f.npz", lambda: npz(pixels=np.array(0)), "of shapes (), (7,), (7,), need [N, 48, 48]"),
    "npz of a broken header": ("f.npz", lambda: npz_of(b"\x93NUMPY\1\0\x08\0{'descr'"), "npz is damaged"),
    "npz of an odd header": ("f.npz", lambda: npz_of(b"\x93NUMPY\1\0\x01\0}"), "npz is damaged"),
    "npz of huge shape": ("f.npz", lambda: npz_of_a_shape(10**12, 48, 48), "npz is damaged"),
    "npz bomb": ("f.npz", lambda: zipped({"pixels.npy": BOMB}), "expands too much"),
    "parquet of no text": ("f.parquet", parquet_of_no_text, "parquet is damaged"),
    "parquet damaged": ("f.parquet", lambda: b"PAR1 nothing", "parquet is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line_and_exit_code_2(name, tmp_path, capsys):
    file, content, words = BAD[name]
    (tmp_path / file).write_bytes(content())

    code = prepare.main([str(tmp_path / file), "--check"])

    said = capsys.readouterr()
    assert code == 2
    assert words in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert "Traceback" not in said.err
    assert not list((tmp_path / "cache").rglob("packed.json"))


def test_an_archive_in_an_archive_is_read_however_large_it_is_and_a_bomb_in_one_is_none(tmp_path):
    noise = np.random.default_rng(0).integers(ord("0"), ord("9"), 3 * archives.FREE_BYTES, np.uint8).tobytes()
    for name, content in (("good.zip", noise), ("bomb.zip", BOMB)):
        (tmp_path / name).write_bytes(zipped({"fer2013.tar.gz": tarred({"fer2013.csv": content})}))

    with archives.find(tmp_path / "good.zip").open() as stream:
        assert stream.read() == noise
    with pytest.raises(DataError, match="expands too much"), archives.find(tmp_path / "bomb.zip").open() as stream:
        stream.read()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["web page", "256", "gzip cut", "npz label nan"])
def test_the_command_of_a_study_says_the_same_line_and_begins_no_trial(name, tmp_path):
    file, content, words = BAD[name]
    (tmp_path / file).write_bytes(content())

    done = run(tmp_path, "--study", "fer", "--data", file)

    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert optuna.study.get_all_study_names(f"sqlite:///{tmp_path / 'hpo.db'}") == []
    assert not (tmp_path / "trials").exists()


def test_columns_that_are_not_used_are_told_once_and_another_count_of_rows_too(tmp_path, caplog):
    (tmp_path / "f.csv").write_bytes(csv_text([f"{row},1,2" for row in rows()], "emotion,pixels,Usage,age,sex"))

    for _ in range(2):
        fer2013.load(tmp_path / "f.csv")

    said = [record.getMessage() for record in caplog.records]
    assert [words.partition(": ")[2] for words in said] == [
        "columns that are not used: 'age', 'sex'",
        "found {'Training': 7, 'PublicTest': 7, 'PrivateTest': 7} rows, the published file has "
        "{'Training': 28709, 'PublicTest': 3589, 'PrivateTest': 3589}",
    ]  # fmt: skip


def test_copies_of_images_and_blank_ones_are_counted_and_told_once(tmp_path, caplog):
    good = rows()
    twins = [f"{row.rpartition(',')[0]},PrivateTest" for row in good[:2]]
    (tmp_path / "f.csv").write_bytes(csv_text([*good, *twins, f"3,{' '.join('0' * 2304)},Training"]))

    for _ in range(2):
        fer2013.load(tmp_path / "f.csv")

    said = [record.getMessage() for record in caplog.records if "are blank" in record.getMessage()]
    assert said == [f"{tmp_path / 'f.csv'}: 2 images are exact copies of others, and 1 are blank"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("f.zip", zipped({"f.csv": GOOD})), ("f.tar.gz", tarred({"f.csv": GOOD})), ("f.csv.gz", gzip.compress(GOOD)),
    ],
)  # fmt: skip
def test_what_goes_wrong_in_who_reads_an_archive_is_not_told_of_the_archive(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ValueError, match="the reader's own"), archives.find(tmp_path / name).open():
        raise ValueError("the reader's own")


def test_the_first_five_bad_rows_are_told_then_a_count(tmp_path):
    (tmp_path / "f.csv").write_bytes(csv_text([f"9,{PIXELS},Training"] * 12))

    with pytest.raises(DataError) as caught:
        fer2013.load(tmp_path / "f.csv")

    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert lines[5].endswith("and 7 more bad rows")


def test_a_missing_file_names_the_ways_to_get_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER2013_DIR", raising=False)

    assert prepare.main(["--check"]) == 2

    said = capsys.readouterr().err
    for way in ("data.prepare --download", "--data PATH", "--study demo"):
        assert way in said


def test_an_image_of_another_size_is_refused(tmp_path):
    from PIL import Image

    folder = tmp_path / "images" / "train" / "angry"
    folder.mkdir(parents=True)
    Image.new("L", (50, 48)).save(folder / "a.png")

    with pytest.raises(DataError, match="found 50×48 pixels in train/angry/a.png, need 48×48"):
        fer2013.load(tmp_path / "images")


def test_a_folder_is_no_data_file_and_neither_is_a_device(tmp_path):
    with pytest.raises(DataError, match="no face data found"):
        fer2013.load(tmp_path)
    with pytest.raises(DataError, match="not a regular file"):
        fer2013.load(Path("/dev/null"))
