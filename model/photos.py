"""A photo as pixels: upright, eight bits, opaque, whatever the file holds.

Legend: H, W pixels.
"""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data.errors import DataError

Pixels = NDArray[np.uint8]
"""uint8 [H, W, 3], blue, green, red: OpenCV's order."""

MAX_PIXELS = 100_000_000
"""Of a photo or a frame: what is decoded takes three bytes each, and a small file may promise any number."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")
"""Formats that are read; those that Pillow hands to other programs are not among them."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What turns a picture upright, by the value of EXIF's orientation. Source: EXIF 2.32, tag 274."""


def read_photo(path: Path) -> Pixels:
    """Read a photo as a viewer shows it: turned as its EXIF says, on white where it is transparent.

    Returns:
        uint8 [H, W, 3], blue, green, red. Sixteen bits are scaled to eight, grey has three equal channels, and of an
        animation it is the first picture.

    Raises:
        DataError: it is too large, broken, or no photo; the message does not name the file.
    """
    try:
        with warnings.catch_warnings():  # Pillow warns of sizes and of bad EXIF: both are dealt with here
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as picture:
                check_size(*picture.size)
                return _pixels(_upright(picture))
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"no photo that can be read, need {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise DataError(f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except Exception as error:  # a decoder raises whatever a broken file makes it stumble over
        if isinstance(error, OSError) and error.strerror:
            raise DataError(error.strerror) from None
        raise DataError(f"a broken photo ({_first_line(error)})") from None


def check_size(width: int, height: int) -> None:
    """Refuse a picture of too many pixels before it is decoded.

    Raises:
        DataError: there are more than `MAX_PIXELS`; the message does not name the file.
    """
    if width * height > MAX_PIXELS:
        raise DataError(f"{width}×{height} pixels, more than {MAX_PIXELS // 10**6} megapixels")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        orientation = picture.getexif().get(_ORIENTATION)
    except Exception:  # EXIF may be broken in as many ways as a file; the picture may be sound all the same
        orientation = None
    picture.load()
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def _pixels(picture: Image.Image) -> Pixels:
    if picture.mode in {"I", "F"} or picture.mode.startswith("I;16"):
        return _deep(np.asarray(picture))
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1])


def _deep(values: NDArray[np.generic]) -> Pixels:
    """Grey of more than eight bits [H, W]: 0 to 65535 become 0 to 255."""
    if values.dtype.kind not in "iu" or int(values.min()) < 0 or int(values.max()) > 65535:
        raise DataError(f"pixels of {values.dtype.name}, need 8 or 16 bits")
    grey = (values.astype(np.uint32) * 255 + 32767) // 65535
    return np.repeat(grey.astype(np.uint8)[..., np.newaxis], 3, axis=2)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__
