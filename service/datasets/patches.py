"""The pixels of one object, within a box that holds them: what a small object costs does not depend on its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_FILLED = 1 << 31
"""Pixels and corners that all objects of one image may need together: sixteen objects as large as the largest image,
two thousand in one of a megapixel."""


UNBOUNDED = 1 << 62
"""For objects that the project itself has drawn."""


@dataclass(frozen=True)
class Patch:
    """``mask`` ``(h, w)`` bool, its first pixel at row ``top`` and column ``left`` of the image."""

    top: int
    left: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[slice, slice]:
        """The rows and columns in the image."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def trimmed(self) -> Patch | None:
        """The same within the smallest box; None without any pixel."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if not rows.size:
            return None
        top, left = int(rows[0]), int(columns[0])
        return Patch(self.top + top, self.left + left, self.mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1])

    def on_canvas(self, height: int, width: int) -> np.ndarray:
        """The mask ``(H, W)`` bool of the whole image."""
        canvas = np.zeros((height, width), dtype=bool)
        canvas[self.box] = self.mask
        return canvas

    def iou(self, regions: np.ndarray, number: int, area: int) -> float:
        """Intersection over union with region ``number`` of ``(H, W)``, of ``area`` pixels; 1 for two empty ones."""
        shared = int(np.count_nonzero(self.mask & (regions[self.box] == number)))
        union = int(np.count_nonzero(self.mask)) + area - shared
        return 1.0 if not union else shared / union


EMPTY = Patch(0, 0, np.zeros((0, 0), dtype=bool))


class FillBudget:
    """What the objects of one image may still cost, in pixels."""

    def __init__(self, pixels: int = MAX_FILLED) -> None:
        self._most = self._left = pixels

    def spend(self, pixels: int) -> None:
        """Takes as many. Raises ValueError if there are fewer left."""
        self._left -= pixels
        if self._left < 0:
            raise ValueError(
                f"with it, the image's objects are drawn on more than {self._most} pixels; cut the image into tiles, "
                "or leave out objects that cover it again and again"
            )


def union(patches: Sequence[Patch], budget: FillBudget) -> Patch:
    """The pixels of all patches as one. Raises ValueError beyond the ``budget``."""
    filled = [patch for patch in patches if patch.mask.size]
    if len(filled) < 2:
        return filled[0] if filled else EMPTY
    top, left = min(patch.top for patch in filled), min(patch.left for patch in filled)
    bottom = max(patch.top + patch.mask.shape[0] for patch in filled)
    right = max(patch.left + patch.mask.shape[1] for patch in filled)
    budget.spend((bottom - top) * (right - left))
    mask = np.zeros((bottom - top, right - left), dtype=bool)
    for patch in filled:
        mask[Patch(patch.top - top, patch.left - left, patch.mask).box] |= patch.mask
    return Patch(top, left, mask)
