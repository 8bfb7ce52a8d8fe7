"""Levels of images with more than 8 bits: which of them become black and white."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from service.kit.png import encode_image

WIDE = ("F", "I")
"""Pillow's modes of 32 bits."""
NO_WINDOW_FOR_CHANNELS = (
    "it has several channels of 16 bits, of which only the upper eight are read, and a window is one of grey levels; "
    "save it as 16-bit grey, or with 8 bits per channel and without --window"
)


def is_deep_grey(image: Image.Image) -> bool:
    """Whether the pixels are grey levels of 16 bits, or integers or floats of 32, as signed ones are."""
    return image.mode in WIDE or image.mode.startswith("I;16")


@dataclass(frozen=True)
class Levels:
    """A window: levels up to ``low`` are black, from ``high`` on white.

    Without one, 16-bit images keep their upper eight bits; ``strict`` refuses those that come out nearly black.
    """

    low: float | None = None
    high: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None) or (
            self.low is not None and self.high is not None and not -math.inf < self.low < self.high < math.inf
        ):
            raise ValueError(f"a window is LOW,HIGH with LOW below HIGH, not {self.low},{self.high}")

    @property
    def window(self) -> tuple[float, float] | None:
        """The window, if one is given."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def apply(self, image: Image.Image) -> bytes | None:
        """A PNG of a deep grey image as the window shows it; None for an image of 8 bits, or without a window."""
        if self.window is None or not is_deep_grey(image):
            return None
        return windowed_png(np.asarray(image), self.window)


def windowed_png(levels: np.ndarray, window: tuple[float, float]) -> bytes:
    """The PNG of levels ``(H, W)`` as a window shows them."""
    low, high = window
    # volumes have no number where nothing was measured
    known = np.nan_to_num(levels.astype(np.float64), nan=low, posinf=high, neginf=low)
    grey = ((known - low) * (255.0 / (high - low))).round().clip(0, 255).astype(np.uint8)
    return encode_image(np.repeat(grey[..., None], 3, axis=-1), {})


def read_window(text: str) -> Levels:
    """``"-160,240"`` as a window. Raises ValueError for another form."""
    low, comma, high = text.partition(",")
    try:
        return Levels(float(low), float(high))
    except ValueError as error:
        reason = f" ({error})" if comma and "window" in str(error) else ""
        raise ValueError(f"--window {text!r} should look like --window=0,4095, black and white{reason}") from None
