"""Image files in an export's format: copied byte for byte if they are in it already, else encoded anew."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from service.datasets.items import as_rgb, decoding_fault, is_turned
from service.datasets.writing.options import ImageFormat
from service.errors import InvalidDataset
from service.kit.image_files import open_image_file
from service.kit.png import SIGNATURE, encode_image

SUFFIXES: dict[ImageFormat, str] = {"png": "png", "jpeg": "jpg"}
_JPEG = b"\xff\xd8\xff"
_EXIF = (b"Exif\0\0", b"eXIf")
"""How JPEG and PNG mark EXIF data. Most images have none and need not be opened."""
_HEAD_BYTES = 1 << 17
"""EXIF data lie within these first bytes: before the pixels, after colour profiles and the like."""
_QUALITY = 95


def as_format(data: bytes, wanted: ImageFormat, name: str) -> bytes:
    """The image in the wanted format. Raises InvalidDataset for bytes that are not an image.

    An image whose EXIF data ask for a rotation is encoded anew without them: its mask matches the stored pixels, and
    some readers would rotate the image alone.
    """
    matches = data.startswith(SIGNATURE if wanted == "png" else _JPEG)
    if matches and not any(mark in data[:_HEAD_BYTES] for mark in _EXIF):
        return data
    try:
        with open_image_file(data) as file:
            if matches and not is_turned(file):
                return data
            image = as_rgb(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(name, error) from None
    if wanted == "png":
        return encode_image(np.asarray(image), {})
    out = io.BytesIO()
    # colour at full resolution: subsampled, it would bleed over the borders in the mask
    image.save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()


def size_of(data: bytes, name: str, what: str = "image") -> tuple[int, int]:
    """Width and height in pixels, from the file's header.

    Raises InvalidDataset for bytes that cannot be decoded; ``what`` names the file in the message.
    """
    if data.startswith(SIGNATURE) and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    try:
        with open_image_file(data) as file:
            return file.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(name, error, what) from None


def suffix_of(data: bytes) -> str:
    """The suffix of an image file, by its first bytes; ``img`` for an unknown format."""
    for suffix, begins in (("png", SIGNATURE), ("jpg", _JPEG), ("bmp", b"BM"), ("tif", b"II*\0"), ("tif", b"MM\0*")):
        if data.startswith(begins):
            return suffix
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else "img"


def _unreadable(name: str, error: Exception, what: str = "image") -> InvalidDataset:
    return InvalidDataset(
        f"the {what} of {name!r} cannot be decoded ({decoding_fault(error)}); store it anew", reason="unreadable"
    )
