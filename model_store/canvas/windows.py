"""Overlapping windows over a canvas, and the weights by which what they predict is averaged (MultiDiffusion).

Bar-Tal et al. 2023: at every step all windows of a canvas are denoised, and each of its pixels takes the average of the
windows that cover it. Everything here is a pure function of whole numbers, so that the same canvas has the same windows
on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model_store.canvas.window_weights import WindowWeights

_STEPS = 4096
"""Weights of one axis are multiples of 1 / 4096, so that those of both axes are exact in float32, and sum to exactly
1."""


@dataclass(frozen=True)
class Windows:
    """Square windows of ``side`` over a canvas of ``height`` x ``width``, which overlap by at least ``overlap``.

    All are in units of one grid: the pixels, or the latents, that are denoised. Window ``i`` is row by row the i-th.
    Raises ValueError for a canvas that is smaller than a window, and an overlap of a whole window or more.
    """

    height: int
    width: int
    side: int
    overlap: int
    weights: WindowWeights = "smooth"

    def __post_init__(self) -> None:
        if min(self.height, self.width) < self.side:
            raise ValueError(
                f"a canvas of {self.width} x {self.height} is smaller than its windows of {self.side} x {self.side}"
            )
        if not 0 <= self.overlap < self.side:
            raise ValueError(f"windows of {self.side} overlap by 0 to {self.side - 1}, not by {self.overlap}")

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    @cached_property
    def tops(self) -> tuple[int, ...]:
        """The first row of each row of windows."""
        return window_starts(self.height, self.side, self.overlap)

    @cached_property
    def lefts(self) -> tuple[int, ...]:
        """The first column of each column of windows."""
        return window_starts(self.width, self.side, self.overlap)

    def place(self, number: int) -> tuple[slice, slice]:
        """The rows and columns of window ``number``, 0 .. len - 1."""
        row, column = divmod(number, len(self.lefts))
        top, left = self.tops[row], self.lefts[column]
        return slice(top, top + self.side), slice(left, left + self.side)

    def weight(self, number: int) -> np.ndarray:
        """The part that each pixel of window ``number`` takes from it, ``(side, side)`` float32 in [0, 1].

        For each pixel of the canvas the parts of all windows sum to exactly 1, also in float32 and in any order.
        """
        row, column = divmod(number, len(self.lefts))
        down, across = self.axis_weights
        return np.outer(down[row], across[column])

    @cached_property
    def axis_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """The parts of the rows of windows ``(rows, side)`` and of the columns, whose products the weights are."""
        return (
            parts_of_axis(self.height, self.side, self.tops, self.weights),
            parts_of_axis(self.width, self.side, self.lefts, self.weights),
        )

    def scaled(self, factor: int) -> Windows:
        """The same windows on a grid ``factor`` times as fine."""
        fine = Windows(
            self.height * factor, self.width * factor, self.side * factor, self.overlap * factor, self.weights
        )
        # they are placed on the coarse grid
        fine.__dict__["tops"] = tuple(top * factor for top in self.tops)
        fine.__dict__["lefts"] = tuple(left * factor for left in self.lefts)
        return fine


def window_starts(length: int, side: int, overlap: int) -> tuple[int, ...]:
    """Where windows of ``side`` begin along ``length``: as few as overlap by ``overlap`` or more, evenly spread."""
    gaps = -(-(length - side) // (side - overlap))
    return tuple((number * (length - side) * 2 + gaps) // (2 * gaps) if gaps else 0 for number in range(gaps + 1))


def parts_of_axis(length: int, side: int, starts: tuple[int, ...], weights: WindowWeights) -> np.ndarray:
    """The parts of windows along one axis, ``(windows, side)`` float32: multiples of 1 / 4096 that sum to exactly 1."""
    places = (np.arange(side) + 0.5) / side
    # where windows differ, an average changes as fast as its weights: by a tent most at the borders of windows, by
    # sin^2 most between them, and by the mean of both about the same everywhere
    tent = 1.0 - np.abs(2.0 * places - 1.0)
    profile = (tent + np.sin(np.pi * places) ** 2) / 2 if weights == "smooth" else np.ones(side)
    total = np.zeros(length)
    for start in starts:
        total[start : start + side] += profile
    steps = np.array([np.floor(profile / total[start : start + side] * _STEPS) for start in starts])
    given = np.zeros(length)
    largest, owner = np.zeros(length), np.zeros(length, dtype=np.int64)
    for number, start in enumerate(starts):
        here = slice(start, start + side)
        given[here] += steps[number]
        ahead = profile > largest[here]
        largest[here][ahead], owner[here][ahead] = profile[ahead], number
    # what rounding down leaves goes to the window that counts most
    places_of_all = np.arange(length)
    steps[owner, places_of_all - np.array(starts)[owner]] += _STEPS - given
    return (steps / _STEPS).astype(np.float32)
