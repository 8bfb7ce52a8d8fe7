"""The masks of a request at the size of their twins: which sizes of files are taken, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from service.masks.png_file import MIN_SIDE_PX, MaskRefused

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class MaskFit:
    """How masks are brought to the size of their twins.

    ``width`` and ``height``: of all twins; None if each is as large as its mask. ``window_px`` and ``max_px`` limit
    such twins: a canvas is at least a window, and at most so many pixels.
    """

    fit: Literal["stretch", "crop", "canvas"] | None
    width: int | None = None
    height: int | None = None
    window_px: int = 0
    max_px: int = 0

    def check(self, width: int, height: int) -> None:
        """Raises :class:`MaskRefused` for a file of these sides, before its pixels are read."""
        if self.fit is None and width != height:
            small, large = min(width, height), max(width, height)
            raise MaskRefused(
                f"is {width} x {height} px, and masks are square; crop or pad it to {small} or {large} px, or give "
                "fit: stretch, crop (its centre square) or canvas (an image as large as the mask)"
            )
        if self.width is None and (fault := fault_of_sides(width, height, self.window_px, self.max_px)):
            raise MaskRefused(f"is {fault}")

    def apply(self, labels: np.ndarray, instances: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Class indices ``(H, W)`` uint8 and instance numbers ``(H, W)`` int32 at the size of the twin."""
        from model_store.masks.resize import majority_resize, resize_instances

        if self.fit == "crop":
            height, width = labels.shape
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            square = slice(top, top + side), slice(left, left + side)
            labels, instances = labels[square], None if instances is None else instances[square]
        if self.width is None or self.height is None:
            return labels, instances
        resized = majority_resize(labels, (self.width, self.height))
        return resized, None if instances is None else resize_instances(instances, labels, resized)


def fault_of_sides(width: int, height: int, window_px: int, max_px: int) -> str | None:
    """What is wrong with twins of these sides, with the remedy; None if nothing is."""
    size = f"{width} x {height} px"
    if min(width, height) < window_px:
        return (
            f"{size}, and a canvas is at least its window of {window_px} x {window_px}; give fit stretch, a smaller "
            "canvas.window_px where the model has one, or a larger size"
        )
    if min(width, height) < MIN_SIDE_PX:
        return f"{size}, and a twin is at least {MIN_SIDE_PX} x {MIN_SIDE_PX}; give a larger size"
    if width * height > max_px:
        return (
            f"{size}, {width * height} pixels, and a twin has at most {max_px}; cut it into several, or ask the "
            "operator of this service to raise TWINSET_MAX_CANVAS_PX"
        )
    return None
