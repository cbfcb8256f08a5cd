import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from model import photos
from model.photos import read_photo

RAMP = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
"""A picture that no turn or mirror leaves as it is."""


def test_colours_come_in_opencvs_order(tmp_path):
    Image.new("RGB", (4, 3), (200, 100, 50)).save(tmp_path / "a.png")

    pixels = read_photo(tmp_path / "a.png")

    assert pixels.shape == (3, 4, 3)
    assert pixels[0, 0].tolist() == [50, 100, 200]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(tmp_path, orientation):
    """The sides are as OpenCV turns them, which has its own code for it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.kron(RAMP, np.ones((16, 16), np.uint8))).save(tmp_path / "a.jpg", exif=exif, quality=95)

    ours, opencvs = read_photo(tmp_path / "a.jpg"), cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR)

    assert ours.shape == opencvs.shape
    assert np.abs(ours.astype(int) - opencvs).max() <= 3


def test_an_unknown_orientation_and_broken_exif_leave_the_photo_as_it_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(RAMP).save(tmp_path / "b.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")

    assert np.array_equal(read_photo(tmp_path / "a.png")[..., 0], RAMP)
    assert np.array_equal(read_photo(tmp_path / "b.png")[..., 0], RAMP)


def test_grey_becomes_three_equal_channels(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")

    assert np.array_equal(read_photo(tmp_path / "a.png"), np.dstack([RAMP] * 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, channels):
    deep = np.squeeze(np.dstack([RAMP.astype(np.uint16) * 257] * channels))
    cv2.imwrite(str(tmp_path / "a.png"), deep)

    assert np.array_equal(read_photo(tmp_path / "a.png"), np.dstack([RAMP] * 3))


def test_what_is_transparent_is_white(tmp_path):
    alpha = np.zeros((6, 10), np.uint8)
    alpha[:, 5:] = 255
    Image.fromarray(np.dstack([RAMP, RAMP, RAMP, alpha])).save(tmp_path / "a.png")

    pixels = read_photo(tmp_path / "a.png")

    assert (pixels[:, :5] == 255).all()
    assert np.array_equal(pixels[:, 5:, 1], RAMP[:, 5:])


def test_a_palette_and_one_bit_are_read(tmp_path):
    Image.new("P", (4, 3), 7).save(tmp_path / "a.gif")
    Image.new("1", (4, 3), 1).save(tmp_path / "b.png")

    assert read_photo(tmp_path / "a.gif").shape == (3, 4, 3)
    assert (read_photo(tmp_path / "b.png") == 255).all()


def test_a_truncated_photo_is_broken_not_half_grey(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])

    with pytest.raises(DataError, match="a broken photo"):
        read_photo(tmp_path / "a.jpg")


def test_a_file_of_another_kind_is_refused_with_what_is_read(tmp_path):
    (tmp_path / "a.png").write_text("no picture")

    with pytest.raises(DataError, match="no photo that can be read, need JPEG, PNG"):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize(("side", "words"), [(10_001, "10001×10001 pixels"), (60_000, "more than 100 megapixels")])
def test_a_small_file_that_promises_a_huge_picture_is_refused_before_it_is_decoded(tmp_path, side, words, recwarn):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )  # fmt: skip

    with pytest.raises(DataError, match=words):
        read_photo(tmp_path / "a.png")

    assert not recwarn.list


def test_pixels_of_no_known_depth_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "a.tiff")

    with pytest.raises(DataError, match="pixels of float32, need 8 or 16 bits"):
        photos.read_photo(tmp_path / "a.tiff")
