"""Polygons as pixels, by the rules of the tools that read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from service.datasets.patches import EMPTY, FillBudget, Patch

_SUBPIXELS = 5
"""The COCO API samples borders at a fifth of a pixel."""
_MAX_POINTS = 4_000_000
_BLOCK_PIXELS = 1 << 20


def fill_coco(polygons: Sequence[np.ndarray], height: int, width: int, budget: FillBudget | None = None) -> Patch:
    """The union of polygons ``(n, 2)`` of (x, y) in an image of this size, as the COCO API fills them (``rleFrPoly``).

    A border that crosses the centre line of a column inverts the column from there on down. Raises ValueError for an
    outline with more than ``_MAX_POINTS`` points, which would use up memory, and beyond the ``budget``.
    """
    budget = budget or FillBudget()
    found = []
    for polygon in polygons:
        column, row = _crossings(np.asarray(polygon, dtype=np.float64), height, width, budget)
        if column.size:
            found.append((column, row))
    if not found:
        return EMPTY
    left, right = min(int(column.min()) for column, _ in found), max(int(column.max()) for column, _ in found) + 1
    top, bottom = min(int(row.min()) for _, row in found), max(int(row.max()) for _, row in found)
    budget.spend((bottom - top) * (right - left))
    mask = np.zeros((bottom - top, right - left), dtype=bool)
    for column, row in found:
        _invert(mask, column - left, row - top, budget)
    return Patch(top, left, mask)


def _invert(mask: np.ndarray, column: np.ndarray, row: np.ndarray, budget: FillBudget) -> None:
    """Adds to ``mask`` ``(h, w)`` what lies between the crossings of each column, an even number of them."""
    order = np.argsort(column, kind="stable")
    column, row = column[order], row[order]
    top, bottom = int(row.min()), int(row.max())
    rows = bottom - top + 1
    first, last = int(column[0]), int(column[-1]) + 1
    budget.spend(rows * (last - first))
    step = max(1, _BLOCK_PIXELS // rows)
    for start in range(first, last, step):
        end = min(start + step, last)
        within = slice(*np.searchsorted(column, [start, end]).tolist())
        cells = (column[within] - start) * rows + row[within] - top
        inversions = np.bincount(cells, minlength=(end - start) * rows).reshape(end - start, rows)
        inside = (np.cumsum(inversions, axis=1) & 1).astype(bool).T
        # the last row is that behind the lowest crossing, where every column is outside again
        mask[top:bottom, start:end] |= inside[:-1]


def _crossings(polygon: np.ndarray, height: int, width: int, budget: FillBudget) -> tuple[np.ndarray, np.ndarray]:
    """The columns and rows at which the polygon's border crosses the columns' centre lines; row H is below the last."""
    x, y = _border(np.trunc(_SUBPIXELS * polygon + 0.5).astype(np.int64), budget)
    moved = np.flatnonzero(x[1:] != x[:-1])
    left = np.minimum(x[1:], x[:-1])[moved]
    top = np.minimum(y[1:], y[:-1])[moved]
    column, rest = np.divmod(left - 2, _SUBPIXELS)
    on_centre = (rest == 0) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip((top[on_centre] + 0.5) / _SUBPIXELS - 0.5, 0, height)).astype(np.int64)
    return column[on_centre], row


def _border(corners: np.ndarray, budget: FillBudget) -> tuple[np.ndarray, np.ndarray]:
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
    budget.spend(int(count.sum()))
    slope = np.where(flat, rise[:, 1] / np.maximum(across, 1), rise[:, 0] / np.maximum(down, 1))
    side = np.repeat(np.arange(len(corners)), count)
    step = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count)
    step = np.where(reversed_[side], count[side] - 1 - step, step)
    along = np.where(flat, first[:, 0], first[:, 1])[side] + step
    beside = np.trunc(np.where(flat, first[:, 1], first[:, 0])[side] + slope[side] * step + 0.5).astype(np.int64)
    return np.where(flat[side], along, beside), np.where(flat[side], beside, along)


def fill_with_border(polygon: np.ndarray, height: int, width: int, budget: FillBudget | None = None) -> Patch:
    """A polygon ``(n, 2)`` of (x, y) in pixels of an image of this size, as YOLO's trainers fill it.

    Its corners are rounded down to pixels, and the pixels of its border belong to it (OpenCV's ``fillPoly``). Raises
    ValueError beyond the ``budget``.
    """
    corners = np.clip(np.floor(polygon), [0, 0], [width - 1, height - 1]).astype(int)
    left, top = corners.min(axis=0).tolist()
    right, bottom = corners.max(axis=0).tolist()
    rows, columns = bottom - top + 1, right - left + 1
    length = int(np.abs(np.diff(corners, axis=0, append=corners[:1])).max(axis=1).sum())
    # Pillow looks at every side of the polygon in every row
    (budget or FillBudget()).spend(rows * columns + rows * len(corners) + length)
    canvas = Image.new("1", (columns, rows))
    draw = ImageDraw.Draw(canvas)
    flat = [(int(x), int(y)) for x, y in corners - [left, top]]
    if len(flat) > 2:
        draw.polygon(flat, fill=1)
    draw.line([*flat, flat[0]], fill=1)
    return Patch(top, left, np.array(canvas, dtype=bool))
