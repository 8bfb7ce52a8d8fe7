"""Framing: which part of a real mask a twin shows, and how large it is there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Framing:
    """A ``square`` of a mask, or all of it, at ``size`` (width, height), or at its own scale without one.

    The square has the shorter side, or ``tile_px`` if that is less, and then lies anywhere. Crops are not smaller than
    ``least_px``.
    """

    square: bool = True
    size: tuple[int, int] | None = None
    tile_px: int | None = None
    least_px: int = 1

    def part(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the part of a mask ``(H, W)`` that is shown."""
        if not self.square:
            return shape
        side = min(*shape, self.tile_px or min(shape))
        return side, side

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether a mask ``(H, W)`` has its final size."""
        return self.size is None or shape == self.size[::-1]
