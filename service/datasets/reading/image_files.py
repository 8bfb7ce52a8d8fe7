"""Image files of a dataset, decoded, with what their headers say of the samples."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from service.datasets.items import decoding_fault
from service.datasets.reading.faults import is_of_the_machine
from service.datasets.reading.report import EntryFault
from service.kit.image_files import open_image_file

_RAW_MODE, _LOSSLESS, _SEVERAL = "raw mode", "lossless", "several"
_SAMPLE_FORMAT, _PHOTOMETRIC = 339, 262
TURNED_BY_PILLOW = "turned by Pillow"
"""The member of ``info`` with the orientation of a TIFF file, whose pixels Pillow has turned while it decoded them."""
_PAGED = ("TIFF", "GIF", "WEBP", "PNG")


def open_image(source: Path | bytes) -> Image.Image:
    """The decoded image of a file or its bytes. Raises EntryFault for one that cannot be decoded or is too large."""
    try:
        # Pillow warns of damaged tags, which either do not matter or make the decoding fail
        with warnings.catch_warnings(action="ignore"), open_image_file(source) as file:
            raw = _first_argument(file)
            # phones put previews into JPEG files; they are no pictures of their own
            several = file.format in _PAGED and bool(getattr(file, "is_animated", False))
            stated = file.getexif().get(ExifTags.Base.Orientation) if file.format == "TIFF" else None
            file.load()
            if stated is not None:
                file.info[TURNED_BY_PILLOW] = stated
            file.info[_RAW_MODE], file.info[_SEVERAL] = raw, several
            if file.format == "WEBP":
                file.info[_LOSSLESS] = _is_lossless_webp(source)
            return file
    except Image.DecompressionBombError as error:
        raise EntryFault("unreadable", str(error)) from None
    except Exception as error:
        # a damaged file makes Pillow raise whatever its decoder stumbles over: OSError, SyntaxError, struct.error, ...
        if is_of_the_machine(error) and not isinstance(error, MemoryError):
            raise
        raise EntryFault("unreadable", f"it cannot be decoded ({decoding_fault(error)})") from None


def raw_mode(image: Image.Image) -> str:
    """The form of the samples in the file, by Pillow's name: ``L;2`` for 2 bits, ``I;16B``, ``RGB;16L`` ..."""
    return str(image.info.get(_RAW_MODE, ""))


def has_several(image: Image.Image) -> bool:
    """Whether the file holds several pictures, such as the planes of a stack; the first one is decoded."""
    return bool(image.info.get(_SEVERAL))


def are_signed(image: Image.Image) -> bool:
    """Whether a TIFF has signed samples; Pillow decodes those of 8 bits as unsigned ones."""
    return 2 in _tiff_values(image, _SAMPLE_FORMAT)


def begin_with_white(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF (WhiteIsZero); Pillow inverts the samples of up to 8 bits, and no others."""
    return 0 in _tiff_values(image, _PHOTOMETRIC)


def is_lossless(image: Image.Image) -> bool:
    """Whether a WebP file holds its pixels unchanged."""
    return bool(image.info.get(_LOSSLESS))


def _tiff_values(image: Image.Image, tag: int) -> tuple[Any, ...]:
    found = getattr(image, "tag_v2", {}).get(tag, ())
    return found if isinstance(found, tuple) else (found,)


def _first_argument(file: Image.Image) -> Any:
    """Of the decoder's arguments, the one that names the form of the samples."""
    tiles = getattr(file, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _is_lossless_webp(source: Path | bytes) -> bool:
    data = source if isinstance(source, bytes) else source.read_bytes()
    place = 12
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, place)
        if kind in (b"VP8 ", b"VP8L"):
            return bool(kind == b"VP8L")
        place += 8 + size + size % 2
    return False
