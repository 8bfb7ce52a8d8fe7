"""Polygons as pixels, by the rules of the tools that read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_FINER = 5
_MAX_POINTS = 20_000_000
"""The COCO API looks at borders five times as finely as pixels."""


def fill_coco(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The union of polygons ``(n, 2)`` of (x, y) as a mask ``(H, W)`` bool, as the COCO API fills them (``rleFrPoly``).

    A border that crosses the centre line of a column turns the column over from there on down. Raises ValueError for an
    outline so long that following it would take all memory.
    """
    mask = np.zeros((height, width), dtype=bool)
    for polygon in polygons:
        crossings = _crossings(np.asarray(polygon, dtype=np.float64), height, width)
        if not crossings.size:
            continue
        # every column is crossed an even number of times, so those to the left and right of the polygon stay as they
        # are
        first, last = int(crossings.min()) // height, int(crossings.max()) // height + 1
        cells = (last - first) * height
        turns = np.bincount(crossings - first * height, minlength=cells)[:cells]
        inside = (np.cumsum(turns) & 1).astype(bool).reshape(last - first, height).T
        mask[:, first:last] |= inside[:, : width - first]
    return mask


def _crossings(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where the polygon's border crosses the columns' centre lines: places in the image read column by column."""
    x, y = _border(np.trunc(_FINER * polygon + 0.5).astype(np.int64))
    moved = np.flatnonzero(x[1:] != x[:-1])
    left = np.minimum(x[1:], x[:-1])[moved]
    top = np.minimum(y[1:], y[:-1])[moved]
    column, rest = np.divmod(left - 2, _FINER)
    on_centre = (rest == 0) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip((top[on_centre] + 0.5) / _FINER - 0.5, 0, height)).astype(np.int64)
    return column[on_centre] * height + row


def _border(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points x and y of a closed line through corners ``(n, 2)`` of the fine grid; a stretch has the same from
    either end."""
    ends = np.roll(corners, -1, axis=0)
    across, down = np.abs(ends - corners).T
    flat = across >= down
    turned = np.where(flat, corners[:, 0] > ends[:, 0], corners[:, 1] > ends[:, 1])
    first = np.where(turned[:, None], ends, corners)
    rise = np.where(turned[:, None], corners - ends, ends - corners)
    count = np.maximum(across, down) + 1
    if count.sum() > _MAX_POINTS:
        raise ValueError(
            f"its outline is {int(count.sum()) // _FINER} px long; at most {_MAX_POINTS // _FINER} are followed"
        )
    slope = np.where(flat, rise[:, 1] / np.maximum(across, 1), rise[:, 0] / np.maximum(down, 1))
    of = np.repeat(np.arange(len(corners)), count)
    step = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    step = np.where(turned[of], count[of] - 1 - step, step)
    along = np.where(flat, first[:, 0], first[:, 1])[of] + step
    beside = np.trunc(np.where(flat, first[:, 1], first[:, 0])[of] + slope[of] * step + 0.5).astype(np.int64)
    return np.where(flat[of], along, beside), np.where(flat[of], beside, along)


def fill_with_border(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """A polygon ``(n, 2)`` of (x, y) in pixels as a mask ``(H, W)`` bool, as trainers of YOLO fill it.

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
