"""Images upright: EXIF data may ask for an image to be shown rotated or mirrored."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

from service.datasets.reading.image_files import TURNED_BY_PILLOW

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each orientation of EXIF (tag 0x0112) asks for, as ``PIL.ImageOps.exif_transpose`` does it."""


def orientation(image: Image.Image) -> int:
    """The orientation that an image's EXIF data state, 1 to 8; 1 is as stored, and so are damaged data."""
    try:
        stated = image.info.get(TURNED_BY_PILLOW) or image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # damaged EXIF data raise whatever their parser stumbles over; viewers show such images as stored
        return 1
    return stated if stated in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The image as it is meant to be shown."""
    turn = None if TURNED_BY_PILLOW in image.info else _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the pixels as the file stores them."""
    return turned_size(image.size, orientation(image)) if TURNED_BY_PILLOW in image.info else image.size


def turned_size(size: tuple[int, int], stated: int) -> tuple[int, int]:
    """Width and height of an image of this orientation as it is shown."""
    return size[::-1] if stated in (5, 6, 7, 8) else size


def turn_pixels(pixels: np.ndarray, stated: int) -> np.ndarray:
    """Pixels ``(H, W)`` as stored, as an image of this orientation shows them."""
    turned = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].T,
        8: np.rot90(pixels),
    }.get(stated, pixels)
    return np.ascontiguousarray(turned)
