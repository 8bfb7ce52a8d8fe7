"""From a PNG to the instance number of every pixel: which of the mask's objects it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from service.kit.image_files import open_image_file
from service.masks.png_file import GREY, PALETTE, MaskRefused, PngFile, in_pixels


def read_instances(file: PngFile) -> np.ndarray:
    """The instance numbers ``(H, W)`` int32 of a file, 0 for none: its grey levels, or the indices of its palette.

    Raises :class:`MaskRefused` for a file that has several channels, numbers transparent pixels, or cannot be decoded.
    """
    if file.colour not in (GREY, PALETTE):
        raise MaskRefused("has several channels; save the numbers of its objects as a grey PNG of 8 or 16 bits")
    try:
        with open_image_file(file.data) as image:
            image.load()
            numbers = np.asarray(image).astype(np.int32)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise MaskRefused(f"cannot be decoded ({error}); save the file again") from None
    if file.colour == GREY and 1 < file.depth < 8:
        # Pillow has scaled them to brightness
        numbers //= 255 // (2**file.depth - 1)
    hidden = np.isin(numbers, _transparent(file))
    if hidden.any():
        raise MaskRefused(
            f"is transparent at {in_pixels(int(hidden.sum()))} of number {int(numbers[hidden][0])}; save it without "
            "transparency, with 0 where there is no object"
        )
    return numbers


def _transparent(file: PngFile) -> list[int]:
    """The numbers above 0 whose pixels are transparent: one grey level, or those of a palette (11.3.2.1)."""
    given = file.transparency or b""
    clear = [int.from_bytes(given[:2], "big")] if file.colour == GREY else [at for at, a in enumerate(given) if not a]
    return [number for number in clear if number > 0]


def check_instances(numbers: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raises :class:`MaskRefused` for a number ``(H, W)`` that stands on pixels of two of the classes ``(H, W)``."""
    keys = np.unique(numbers.astype(np.int64) << 8 | labels)
    keys = keys[keys >> 8 > 0]
    again = np.flatnonzero(np.diff(keys >> 8) == 0)
    if again.size:
        number, first, second = int(keys[again[0]] >> 8), int(keys[again[0]] & 255), int(keys[again[0] + 1] & 255)
        row, column = divmod(int(((numbers == number) & (labels == second)).argmax()), numbers.shape[1])
        raise MaskRefused(
            f"has number {number} on pixels of {classes[first]} and, first at x {column}, y {row}, of "
            f"{classes[second]}, and an object has one class; give 0 where the mask shows another class"
        )
