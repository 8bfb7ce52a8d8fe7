"""PNG files made by hand, good ones and bad ones, and cards to read them for."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from model_store.card import ModelCard
from tests.service.api.support import binary_card, mask_card

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TISSUE = ModelCard.model_validate(mask_card())
"""Four classes: red, blue, green and black."""
POLYPS = ModelCard.model_validate(binary_card())
"""Two classes: dark brown and pink."""
COLOURS = [entry.colour for entry in TISSUE.classes]


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int = 8, colour: int = 0, interlaced: bool = False) -> bytes:
    """IHDR."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def file(*chunks: bytes) -> bytes:
    """A PNG of these chunks and the last."""
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND")


def grey_file(samples: np.ndarray, *extra: bytes, depth: int = 8) -> bytes:
    """Grey samples ``(h, w)`` of ``depth`` bits as they are, with ``extra`` chunks before the pixel data."""
    height, width = samples.shape
    return file(header(width, height, depth), *extra, chunk(b"IDAT", zlib.compress(packed_rows(samples, depth))))


def palette_file(samples: np.ndarray, palette: list[tuple[int, int, int]], *extra: bytes, depth: int = 8) -> bytes:
    """Indices ``(h, w)`` of ``depth`` bits into ``palette``."""
    height, width = samples.shape
    colours = chunk(b"PLTE", bytes(np.array(palette, dtype=np.uint8).tobytes()))
    data = chunk(b"IDAT", zlib.compress(packed_rows(samples, depth)))
    return file(header(width, height, depth, 3), colours, *extra, data)


def packed_rows(samples: np.ndarray, depth: int) -> bytes:
    """Each row behind filter 0, several samples to a byte where they have fewer than 8 bits."""
    bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in bits)


def pillow_file(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """As Pillow writes it."""
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, kind, **options)
    return out.getvalue()


def stripes(side: int = 16, classes: int = 4) -> np.ndarray:
    """Class indices ``(side, side)`` uint8 in upright stripes with one odd pixel at x 3, y 1, so that all turns of it
    differ."""
    labels = np.tile((np.arange(side) * classes // side).astype(np.uint8), (side, 1))
    labels[1, 3] = classes - 1
    return labels


def painted(labels: np.ndarray, colours: list[tuple[int, int, int]] = COLOURS) -> np.ndarray:
    """``(h, w)`` class indices -> ``(h, w, 3)`` uint8."""
    return np.array(colours, dtype=np.uint8)[labels]
