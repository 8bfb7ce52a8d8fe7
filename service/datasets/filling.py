"""Polygons as pixels, by the rules of the tools that read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_SUBPIXELS = 5
"""The COCO API samples borders at a fifth of a pixel."""
_MAX_POINTS = 20_000_000


def fill_coco(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The union of polygons ``(n, 2)`` of (x, y) as a mask ``(H, W)`` bool, as the COCO API fills them (``rleFrPoly``).

    A border that crosses the centre line of a column inverts the column from there on down. Raises ValueError for an
    outline with more than ``_MAX_POINTS`` points, which would use up memory.
    """
    mask = np.zeros((height, width), dtype=bool)
    for polygon in polygons:
        crossings = _crossings(np.asarray(polygon, dtype=np.float64), height, width)
        if not crossings.size:
            continue
        # every column is crossed an even number of times, so the columns beside the polygon do not change
        first, last = int(crossings.min()) // height, int(crossings.max()) // height + 1
        cells = (last - first) * height
        inversions = np.bincount(crossings - first * height, minlength=cells)[:cells]
        inside = (np.cumsum(inversions) & 1).astype(bool).reshape(last - first, height).T
        mask[:, first:last] |= inside[:, : width - first]
    return mask


def _crossings(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """The crossings of the polygon's border with the columns' centre lines, as pixel indices in column-major order."""
    x, y = _border(np.trunc(_SUBPIXELS * polygon + 0.5).astype(np.int64))
    moved = np.flatnonzero(x[1:] != x[:-1])
    left = np.minimum(x[1:], x[:-1])[moved]
    top = np.minimum(y[1:], y[:-1])[moved]
    column, rest = np.divmod(left - 2, _SUBPIXELS)
    on_centre = (rest == 0) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip((top[on_centre] + 0.5) / _SUBPIXELS - 0.5, 0, height)).astype(np.int64)
    crossings: np.ndarray = column[on_centre] * height + row
    return crossings


def _border(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points x and y of a closed line through corners ``(n, 2)`` of the subpixel grid.

    A side has the same points whichever end it is drawn from.
    """
    ends = np.roll(corners, -1, axis=0)
    across, down = np.abs(ends - corners).T
    flat = across >= down
    reversed_ = np.where(flat, corners[:, 0] > ends[:, 0], corners[:, 1] > ends[:, 1])
    first = np.where(reversed_[:, None], ends, corners)
    rise = np.where(reversed_[:, None], corners - ends, ends - corners)
    count = np.maximum(across, down) + 1
    if count.sum() > _MAX_POINTS:
        raise ValueError(
            f"its outline is {int(count.sum()) // _SUBPIXELS} px long; the limit is {_MAX_POINTS // _SUBPIXELS} px"
        )
    slope = np.where(flat, rise[:, 1] / np.maximum(across, 1), rise[:, 0] / np.maximum(down, 1))
    side = np.repeat(np.arange(len(corners)), count)
    step = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count)
    step = np.where(reversed_[side], count[side] - 1 - step, step)
    along = np.where(flat, first[:, 0], first[:, 1])[side] + step
    beside = np.trunc(np.where(flat, first[:, 1], first[:, 0])[side] + slope[side] * step + 0.5).astype(np.int64)
    return np.where(flat[side], along, beside), np.where(flat[side], beside, along)


def fill_with_border(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """A polygon ``(n, 2)`` of (x, y) in pixels as a mask ``(H, W)`` bool, as YOLO's trainers fill it.

    Its corners are rounded down to pixels, and the pixels of its border belong to it (OpenCV's ``fillPoly``).
    """
    corners = np.clip(np.floor(polygon), [0, 0], [width - 1, height - 1]).astype(int)
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    flat = [(int(x), int(y)) for x, y in corners]
    if len(flat) > 2:
        draw.polygon(flat, fill=1)
    draw.line([*flat, flat[0]], fill=1)
    return np.array(canvas, dtype=bool)
