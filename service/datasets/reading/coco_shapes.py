"""The shapes of annotations in COCO's form, polygons and run-length encodings, as pixels of an image of known size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.datasets.filling import fill_coco
from service.datasets.patches import FillBudget, Patch
from service.datasets.reading.report import EntryFault
from service.datasets.rle import RleInvalid, as_runs, decode

_MAX_DISTANCE = 3.0
"""The maximum distance of a polygon's corner, in image sides; farther corners are mistakes, and costly to fill."""


def check_sides(sides: Sequence[Any], width: int, height: int) -> None:
    """Raises EntryFault if an image is listed with other sides (width, height) than its file has."""
    stated = [_number(side) for side in sides]
    if any(side not in (None, real) for side, real in zip(stated, (width, height), strict=True)):
        turned = " If EXIF data rotate it, save it rotated, without them" if stated == [height, width] else ""
        raise EntryFault(
            "size_differs",
            f"the file is {width} x {height} px, but listed with {str(sides[0])[:40]} x {str(sides[1])[:40]}: its "
            f"annotations are of another size; list it with its own size, and scale them.{turned}",
        )


def rle_pixels(encoding: dict[str, Any], height: int, width: int, budget: FillBudget) -> Patch:
    """The pixels of ``{"size": [height, width], "counts": ...}``. Raises RleInvalid, or ValueError for the budget."""
    if encoding.get("size") != [height, width]:
        raise RleInvalid(f"its size is {str(encoding.get('size'))[:40]}, its image's [{height}, {width}]")
    return decode(as_runs(encoding.get("counts")), height, width, budget)


def polygon_pixels(polygons: Sequence[Any], height: int, width: int, budget: FillBudget) -> Patch:
    """The union of polygons, each ``[x1, y1, x2, y2, ...]``. Raises ValueError for one that is not of this form."""
    return fill_coco([_polygon(polygon, height, width) for polygon in polygons], height, width, budget)


def _polygon(part: Any, height: int, width: int) -> np.ndarray:
    if isinstance(part, (int, float)):
        raise ValueError("its segmentation is one flat list of numbers; write a list of polygons: [[x1, y1, x2, ...]]")
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
        found = f"{len(part)} numbers" if isinstance(part, list) else f"{str(part)[:40]!r}"
        raise ValueError(f"a polygon must be a list of at least 3 corners: x1, y1, x2, y2, ..., not {found}")
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in part):
        raise ValueError("a polygon's corners must be finite numbers")
    points = np.array(part, dtype=np.float64).reshape(-1, 2)
    if points.min() >= 0 and points.max() <= 1 and (points % 1).any():
        raise ValueError("its corners are shares of width and height, 0 to 1; multiply x by the width, y by the height")
    if (np.abs(points) > _MAX_DISTANCE * np.array([width, height]) + 16).any():
        raise ValueError(f"a corner lies far outside of the {width} x {height} px of its image")
    return points


def _number(value: Any) -> float | None:
    """A side in pixels, which some tools write as 64.0 or "64"; None if it is not stated."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
