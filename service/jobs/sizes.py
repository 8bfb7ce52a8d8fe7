"""Sizes of twins that need not be square, and how a model that draws squares makes them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from model_store.canvas.window_weights import WindowWeights
from service.kit.frozen import _Frozen

Fit = Literal["stretch", "crop", "canvas"]
"""``stretch``: drawn as a square and stretched. ``crop``: the centre square of each mask. ``canvas``: drawn as large as
the twin by overlapping windows."""
RECTANGLE_PATTERN = r"^[1-9][0-9]{0,5}x[1-9][0-9]{0,5}$"
Size = Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=RECTANGLE_PATTERN)]
"""The side of a square in pixels, or ``WIDTHxHEIGHT``."""


class CanvasParameters(_Frozen):
    """How the windows of a canvas lie, and how what they predict is averaged."""

    window_px: int = Field(ge=1, description="side of a window in the twin, one of the card's sizes")
    overlap_px: int = Field(ge=0, description="pixels of the twin by which neighbouring windows overlap, at least")
    weights: WindowWeights = Field(
        description="smooth: a window counts most in its middle; uniform: the same everywhere"
    )


def sides_of(size: int | str) -> tuple[int, int]:
    """(width, height) in pixels of a size. Raises ValueError for any other text."""
    if isinstance(size, int):
        return size, size
    if not re.fullmatch(RECTANGLE_PATTERN, size):
        raise ValueError(f"{size!r} is not WIDTHxHEIGHT, as 854x480 is")
    width, height = size.split("x")
    return int(width), int(height)


def size_of(width: int, height: int) -> int | str:
    """The size of these sides: one number for a square."""
    return width if width == height else f"{width}x{height}"
