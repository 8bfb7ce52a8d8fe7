"""Perceptual fingerprints of twins: 256 bits that hardly change if an image is recompressed, resized or brightened.

The perceptual hash of Zauner (*Implementation and Benchmarking of Perceptual Image Hash Functions*, 2010): whether each
of the low frequencies of the image's discrete cosine transform is above their median. Here 16 by 16 of them, where 8 by
8 are usual, since images of one kind (tissue, roofs, roads) differ in more than their coarsest patches.

Each class's mean grey is subtracted from the image first: two images drawn for one mask share it by intention, and
would look like copies. So a fingerprint describes what the mask does not determine.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from service.kit.image_files import open_image_file

BITS = 256
WORDS = BITS // 64
_SIDE = 64
_FREQUENCIES = 16


def fingerprint(image: Image.Image, mask: np.ndarray | None = None) -> np.ndarray:
    """The fingerprint ``(4,)`` uint64 of an image of any size and mode, given its mask ``(h, w)`` uint8, if any."""
    # in floats: the patterns of a flat image are finer than grey levels
    grey = np.array(image.convert("RGB").convert("L"), dtype=np.float32)
    small = _small(grey)
    if mask is not None:
        small -= _small(_explained(grey, mask))
    waves = _WAVES[:_FREQUENCIES]
    frequencies = (waves @ small @ waves.T).reshape(-1)
    # the first is the mean brightness, which does not depend on the content
    above = frequencies > np.median(frequencies[1:])
    return np.packbits(above, bitorder="little").view(np.uint64)


def fingerprint_of(data: bytes, mask: np.ndarray | None = None) -> np.ndarray:
    """The fingerprint of an image file, given its mask. Raises ValueError for a file that cannot be decoded."""
    try:
        with open_image_file(data) as image:
            return fingerprint(image, mask)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image cannot be decoded ({error}); store it again") from None


def distance(one: np.ndarray, other: np.ndarray) -> int:
    """The number of bits in which two fingerprints differ, 0..256; about 128 for unrelated images."""
    return int(np.bitwise_count(one ^ other).sum())


def _small(grey: np.ndarray) -> np.ndarray:
    """``(H, W)`` float32 as ``(64, 64)`` float64, smoothed so that the result is the same from any size."""
    return np.array(Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), dtype=np.float64)


def _explained(grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean ``grey`` ``(H, W)`` of each pixel's class: ``(h, w)`` float32, as large as the mask."""
    labels = np.asarray(Image.fromarray(mask).resize(grey.shape[::-1], Image.Resampling.NEAREST)).reshape(-1)
    means = np.bincount(labels, weights=grey.reshape(-1), minlength=256) / np.maximum(
        np.bincount(labels, minlength=256), 1
    )
    return np.asarray(means.astype(np.float32)[mask])


def _cosines(side: int) -> np.ndarray:
    """The orthonormal discrete cosine transform (DCT-II) ``(side, side)``, one frequency per row."""
    place = (2 * np.arange(side) + 1) * np.pi / (2 * side)
    waves: np.ndarray = np.cos(np.arange(side)[:, None] * place) * np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    return waves


_WAVES = _cosines(_SIDE)
