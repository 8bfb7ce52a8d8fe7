"""Shapes of objects: an object larger or smaller, and the places of a mask where it is free to stand."""

from __future__ import annotations

import numpy as np
from PIL import Image

from service.augmentations.transforms.regions import FITS, Footprint
from service.datasets.components import connected

_RANDOM_PLACES = 64
"""Places that are tried before all of them are."""


def scaled(what: Footprint, factor: float, *, whole: bool) -> Footprint:
    """An object ``factor`` times as long and as wide, with its box at row and column 0.

    Its outline is interpolated, so that it stays smooth. With ``whole``, what falls apart keeps its largest part only.
    """
    top, left = int(what.rows.min()), int(what.columns.min())
    rows, columns = what.rows - top, what.columns - left
    if factor == 1:
        return Footprint(rows, columns, what.label)
    height, width = int(rows.max()) + 1, int(columns.max()) + 1
    box = np.zeros((height, width), dtype=np.uint8)
    box[rows, columns] = 255
    sides = max(1, round(width * factor)), max(1, round(height * factor))
    cover = np.asarray(Image.fromarray(box).resize(sides, Image.Resampling.BILINEAR))
    inside = cover >= min(128, int(cover.max()))  # at least one pixel, however thin it is
    if whole:
        parts = connected(inside.astype(np.uint8), {0})
        inside = parts.map == int(parts.areas().argmax()) + 1
    rows, columns = np.nonzero(inside)
    return Footprint(rows - rows.min(), columns - columns.min(), what.label)


def side_of(what: Footprint) -> float:
    """The side in pixels of a square of the same area."""
    return float(np.sqrt(len(what.rows)))


def is_cut(what: Footprint, shape: tuple[int, int]) -> bool:
    """Whether an object of a mask of ``shape`` touches its border, which may have cut it."""
    height, width = shape
    reaches = what.rows.min() == 0 or what.columns.min() == 0
    return bool(reaches or what.rows.max() == height - 1 or what.columns.max() == width - 1)


def any_place(
    shape: Footprint, blocked: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> tuple[int, int] | None:
    """A random (top, left) for a shape on ``ground``, clear of what is ``blocked``; None if there is none at all.

    Both are ``(H, W)`` bool. At least three quarters of the place are ground.
    """
    height, width = blocked.shape
    down, across = height - int(shape.rows.max()), width - int(shape.columns.max())
    if down < 1 or across < 1:
        return None
    tops, lefts = rng.integers(down, size=_RANDOM_PLACES), rng.integers(across, size=_RANDOM_PLACES)
    rows, columns = shape.rows[:, None] + tops, shape.columns[:, None] + lefts
    fits = ~blocked[rows, columns].any(axis=0) & (ground[rows, columns].mean(axis=0) >= FITS)
    if fits.any():
        first = int(fits.argmax())
        return int(tops[first]), int(lefts[first])
    places = np.argwhere(_free(shape, blocked, ground))
    if not len(places):
        return None
    top, left = places[int(rng.integers(len(places)))]
    return int(top), int(left)


def nearest_place(
    shape: Footprint, blocked: np.ndarray, ground: np.ndarray, centre: tuple[float, float]
) -> tuple[int, int] | None:
    """The (top, left) at which a shape lies nearest to ``centre`` (row, column); None if there is none.

    Right there it may stand on any ground, as its object did.
    """
    tall, broad = int(shape.rows.max()) + 1, int(shape.columns.max()) + 1
    height, width = blocked.shape
    if tall > height or broad > width:
        return None
    top = min(max(0, round(centre[0] - (tall - 1) / 2)), height - tall)
    left = min(max(0, round(centre[1] - (broad - 1) / 2)), width - broad)
    if not blocked[shape.rows + top, shape.columns + left].any():
        return top, left
    places = np.argwhere(_free(shape, blocked, ground))
    if not len(places):
        return None
    nearest = places[int(((places - (top, left)) ** 2).sum(axis=1).argmin())]
    return int(nearest[0]), int(nearest[1])


def _free(shape: Footprint, blocked: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """All places ``(down, across)`` bool where the shape meets nothing blocked and enough ground."""
    height, width = blocked.shape
    stamp = np.zeros(blocked.shape)
    stamp[shape.rows, shape.columns] = 1
    conjugate = np.conj(np.fft.rfft2(stamp))

    def met(pixels: np.ndarray) -> np.ndarray:
        # the correlation, of whole numbers; it wraps around only where the shape would reach beyond the borders
        found: np.ndarray = np.rint(np.fft.irfft2(np.fft.rfft2(pixels) * conjugate, s=pixels.shape))
        return found[: height - int(shape.rows.max()), : width - int(shape.columns.max())]

    return np.asarray((met(blocked) == 0) & (met(ground) >= FITS * len(shape.rows)))
