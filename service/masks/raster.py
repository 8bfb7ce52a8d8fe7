"""A PNG as samples, and the colour of each sample.

An image that can be a mask has at most 256 colours, so everything after this works on tables of 256 entries.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from service.kit.image_files import open_image_file
from service.masks.png_file import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, MaskRefused, PngFile, in_pixels

Colour = tuple[int, int, int]
Kind = Literal["grey", "palette", "rgb"]
_ROW_BLOCK = 128
_MAX_COLOURS = 256


@dataclass(frozen=True)
class Raster:
    """Samples ``(s, s)`` uint8; for each sample that occurs, in ascending order, its number of pixels and its colour.

    A sample is what the file stores: a grey level in the file's own bit depth, an index into its palette, or, for
    ``rgb``, a number given here to each colour. A colour is None where the palette has none for the index.
    """

    kind: Kind
    depth: int
    samples: np.ndarray
    counts: dict[int, int]
    colours: dict[int, Colour | None]

    def first_of(self, wanted: Collection[int]) -> tuple[int, tuple[int, int]]:
        """The first pixel, row by row, whose sample is one of ``wanted``: the sample, and the place ``(x, y)``."""
        row, column = divmod(int(np.isin(self.samples, list(wanted)).argmax()), self.samples.shape[1])
        return int(self.samples[row, column]), (column, row)


def read_raster(file: PngFile) -> Raster:
    """The samples of a file that :func:`service.masks.png_file.check_png` has accepted.

    Raises :class:`MaskRefused` for pixels that cannot be decoded, are not opaque, or have more than 256 colours.
    """
    pixels = _decoded(file)
    if file.colour in (GREY_ALPHA, RGB_ALPHA):
        _check_opaque(pixels[..., -1] < 255)
        pixels = pixels[..., :-1]
    elif file.transparency is not None:
        _check_opaque(_transparent(pixels, file))
    if file.colour in (RGB, RGB_ALPHA):
        samples, table = _numbered(np.ascontiguousarray(pixels))
        return _raster("rgb", 8, samples, table)
    if file.colour == PALETTE:
        table = list(struct.iter_unpack("3B", file.palette or b""))
        return _raster("palette", file.depth, pixels, table)
    samples = pixels.reshape(pixels.shape[:2])
    step = 255 // (2**file.depth - 1)
    return _raster("grey", file.depth, samples, [(level * step,) * 3 for level in range(2**file.depth)])


def _decoded(file: PngFile) -> np.ndarray:
    """Samples as the file stores them: ``(s, s)`` uint8, or ``(s, s, channels)`` where there are several."""
    try:
        with open_image_file(file.data) as image:
            image.load()
            pixels = np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise MaskRefused(f"cannot be decoded ({error}); save the file again") from None
    if file.colour == GREY and 1 < file.depth < 8:
        # Pillow has scaled them to brightness: of 2 bits, 3 has become 255.
        pixels //= 255 // (2**file.depth - 1)
    return pixels


def _transparent(pixels: np.ndarray, file: PngFile) -> np.ndarray:
    """The pixels that the file's tRNS chunk makes transparent, ``(s, s)`` bool (11.3.1.1)."""
    given = file.transparency or b""
    if file.colour == PALETTE:
        alpha = np.full(256, 255, dtype=np.uint8)
        alpha[: min(len(given), 256)] = np.frombuffer(given[:256], dtype=np.uint8)
        faded: np.ndarray = alpha[pixels] < 255
        return faded
    channels = 1 if file.colour == GREY else 3
    if len(given) != 2 * channels:
        raise MaskRefused(
            f"is damaged: its transparency has {len(given)} bytes, not {2 * channels}; save the file again"
        )
    wanted = np.frombuffer(given, dtype=">u2")
    matching: np.ndarray = (pixels.reshape(*pixels.shape[:2], channels) == wanted).all(axis=-1)
    return matching


def _check_opaque(transparent: np.ndarray) -> None:
    if transparent.any():
        row, column = divmod(int(transparent.argmax()), transparent.shape[1])
        raise MaskRefused(
            f"is not opaque at {in_pixels(int(transparent.sum()))}, the first at x {column}, y {row}; "
            "save it without transparency"
        )


def _numbered(pixels: np.ndarray) -> tuple[np.ndarray, list[Colour]]:
    """``(s, s, 3)`` uint8 -> the number of each pixel's colour ``(s, s)`` uint8, and the colours by their numbers."""
    found = Image.fromarray(pixels).getcolors(_MAX_COLOURS)
    if found is None:
        raise TooManyColours(pixels)
    packed = np.array(sorted(_packed(np.array([colour for _, colour in found]))), dtype=np.uint32)
    samples = np.empty(pixels.shape[:2], dtype=np.uint8)
    for top in range(0, len(pixels), _ROW_BLOCK):
        rows = slice(top, top + _ROW_BLOCK)
        samples[rows] = np.searchsorted(packed, _packed(pixels[rows]))
    return samples, [(int(value >> 16), int(value >> 8 & 255), int(value & 255)) for value in packed]


class TooManyColours(MaskRefused):
    """An RGB image with more colours than there can be classes."""

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__(f"has more than {_MAX_COLOURS} colours")
        self.pixels = pixels

    def unknown_colours(self, colours: Sequence[Colour]) -> tuple[int, Colour, tuple[int, int]]:
        """The number of its colours that are not in ``colours``, the first of them, and its place ``(x, y)``."""
        known = _packed(np.array(colours))
        seen = np.zeros(1 << 24, dtype=bool)
        first: tuple[Colour, tuple[int, int]] | None = None
        for top in range(0, len(self.pixels), _ROW_BLOCK):
            packed = _packed(self.pixels[top : top + _ROW_BLOCK])
            seen[packed] = True
            if first is None and (unknown := ~np.isin(packed, known)).any():
                row, column = divmod(int(unknown.argmax()), unknown.shape[1])
                first = tuple(map(int, self.pixels[top + row, column])), (column, top + row)  # type: ignore[assignment]
        seen[known] = False
        assert first is not None  # more than 256 colours, and at most 255 are known
        return int(seen.sum()), *first


def _packed(colours: np.ndarray) -> np.ndarray:
    """``(..., 3)`` uint8 -> ``(...)`` uint32, 0xRRGGBB."""
    wide = colours.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _raster(kind: Kind, depth: int, samples: np.ndarray, table: list[Colour]) -> Raster:
    counts = Image.fromarray(samples).histogram()
    present = {sample: count for sample, count in enumerate(counts) if count}
    return Raster(kind, depth, samples, present, {s: table[s] if s < len(table) else None for s in present})
