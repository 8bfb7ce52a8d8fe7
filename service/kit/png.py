"""PNG files whose bytes are a pure function of pixels and text: RGB images, and masks of class indices with a palette.

Written here and not by an imaging library, whose next version may filter or compress otherwise: the same twin must be
the same bytes tomorrow. The specification is the W3C's, "Portable Network Graphics (PNG)", third edition.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model_store.card import IGNORE_INDEX

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IGNORE_COLOUR = (255, 255, 255)
TEXT_KEYWORD = "twinset"
_COLOUR_GREY, _COLOUR_RGB, _COLOUR_PALETTE = 0, 2, 3
_LEVEL = 6
_BLOCK_BYTES = 1 << 20


def encode_image(image: np.ndarray, provenance: Mapping[str, Any]) -> bytes:
    """An 8-bit RGB PNG of ``(H, W, 3)`` uint8, with ``provenance`` as JSON in a text chunk."""
    _check(image, 3)
    height, width, _ = image.shape
    rows = np.ascontiguousarray(image).reshape(height, width * 3)
    return _file(width, height, _COLOUR_RGB, _filtered(rows, 3), [_text(provenance)])


def encode_mask(mask: np.ndarray, colours: Sequence[tuple[int, int, int]], provenance: Mapping[str, Any]) -> bytes:
    """A single-channel 8-bit PNG of the class indices ``(H, W)`` uint8, with the classes' colours as its palette.

    255 is `ignore` and shown white; indices between the last class and 255 belong to nothing (ValueError).
    """
    _check(mask, 2)
    stray = np.unique(mask[(mask >= len(colours)) & (mask != IGNORE_INDEX)])
    if stray.size:
        raise ValueError(f"the mask holds index {stray[0]}; there are {len(colours)} classes, and 255 for ignore")
    height, width = mask.shape
    return _file(
        width, height, _COLOUR_PALETTE, _unfiltered(mask), [_chunk(b"PLTE", mask_palette(colours)), _text(provenance)]
    )


def encode_indices(mask: np.ndarray) -> bytes:
    """A grey 8-bit PNG whose levels are the class indices ``(H, W)`` uint8: black to the eye, exact in every reader."""
    _check(mask, 2)
    height, width = mask.shape
    return _file(width, height, _COLOUR_GREY, _unfiltered(mask), [])


def encode_grey_16(values: np.ndarray, provenance: Mapping[str, Any] | None = None) -> bytes:
    """A grey PNG of ``(H, W)`` integers 0..65535, big-endian as PNG has it (specification, section 11.2.2)."""
    height, width = values.shape
    rows = np.zeros((height, 1 + 2 * width), dtype=np.uint8)
    rows[:, 1:] = values.astype(">u2").view(np.uint8).reshape(height, 2 * width)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return SIGNATURE + b"".join(
        (
            _chunk(b"IHDR", header),
            *([] if provenance is None else [_text(provenance)]),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)),
            _chunk(b"IEND", b""),
        )
    )


def mask_palette(colours: Sequence[tuple[int, int, int]]) -> bytes:
    """The 768 bytes of a mask's palette: the classes' colours by index, white for 255, black for the rest."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(colours)] = np.asarray(colours, dtype=np.uint8)
    palette[IGNORE_INDEX] = IGNORE_COLOUR
    return palette.tobytes()


def _unfiltered(mask: np.ndarray) -> np.ndarray:
    """Every row with filter 0: indices are labels, not brightness, so differences between neighbours mean nothing."""
    return np.concatenate([np.zeros((len(mask), 1), dtype=np.uint8), np.ascontiguousarray(mask)], axis=1)


def _check(pixels: np.ndarray, dimensions: int) -> None:
    shape_fits = pixels.ndim == dimensions and min(pixels.shape) > 0 and (dimensions == 2 or pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not shape_fits:
        wanted = "(H, W, 3)" if dimensions == 3 else "(H, W)"
        raise ValueError(f"a PNG is made of {wanted} uint8, not {pixels.shape} {pixels.dtype}")


def _filtered(rows: np.ndarray, step: int) -> np.ndarray:
    """Every row with its filter's number: the filter whose bytes have the smallest absolute sum as signed numbers.

    rows ``(H, W * step)`` uint8, with ``step`` bytes a pixel -> ``(H, 1 + W * step)``. The sum is the specification's
    heuristic (12.7); the first filter wins ties. A few rows are filtered at a time, for each takes thirty times its
    bytes meanwhile.
    """
    lines = np.empty((rows.shape[0], rows.shape[1] + 1), dtype=np.uint8)
    last = np.zeros(rows.shape[1], dtype=np.uint8)
    block = max(1, _BLOCK_BYTES // rows.shape[1])
    for top in range(0, len(rows), block):
        part = rows[top : top + block]
        lines[top : top + block] = _filtered_block(part, last, step)
        last = part[-1]
    return lines


def _filtered_block(rows: np.ndarray, before: np.ndarray, step: int) -> np.ndarray:
    """Some rows with their filters' numbers; ``before`` is the row above them."""
    raw = rows.astype(np.int16)
    left, above, above_left = np.zeros_like(raw), np.zeros_like(raw), np.zeros_like(raw)
    left[:, step:] = raw[:, :-step]
    above[0], above[1:] = before, raw[:-1]
    above_left[:, step:] = above[:, :-step]
    predictions = (0, left, above, (left + above) >> 1, _paeth(left, above, above_left))
    candidates = np.stack([(raw - prediction).astype(np.uint8) for prediction in predictions])
    costs = np.abs(candidates.view(np.int8).astype(np.int32)).sum(axis=2)
    best = costs.argmin(axis=0)
    lines = np.empty((rows.shape[0], rows.shape[1] + 1), dtype=np.uint8)
    lines[:, 0] = best
    lines[:, 1:] = candidates[best, np.arange(rows.shape[0])]
    return lines


def _paeth(left: np.ndarray, above: np.ndarray, above_left: np.ndarray) -> np.ndarray:
    """The neighbour nearest to left + above - above_left; ties go to left, then above (9.4)."""
    estimate = left + above - above_left
    to_left, to_above, to_both = np.abs(estimate - left), np.abs(estimate - above), np.abs(estimate - above_left)
    return np.where(
        (to_left <= to_above) & (to_left <= to_both), left, np.where(to_above <= to_both, above, above_left)
    )


def _file(width: int, height: int, colour: int, lines: np.ndarray, extra: Sequence[bytes]) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    data = _chunk(b"IDAT", zlib.compress(lines.tobytes(), _LEVEL))
    return b"".join([SIGNATURE, header, *extra, data, _chunk(b"IEND", b"")])


def _text(provenance: Mapping[str, Any]) -> bytes:
    """``tEXt`` under the keyword "twinset"; JSON escapes whatever Latin-1 cannot hold."""
    text = json.dumps(provenance, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return _chunk(b"tEXt", TEXT_KEYWORD.encode("latin-1") + b"\x00" + text.encode("latin-1"))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
