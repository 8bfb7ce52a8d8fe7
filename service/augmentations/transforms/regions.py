"""Objects to drop, clone and merge: connected regions of a label, chosen by what is wanted, placed where they
belong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from service.augmentations.transforms.base import IGNORE
from service.datasets.components import Regions, connected

_FITS = 0.75
"""Share of its new place that has to be what the object stood on: boats stay in the water."""
_PLACES = 24


@dataclass(frozen=True, eq=False)
class Footprint:
    """The pixels of one region: ``rows`` and ``columns`` ``(n,)``, and its ``label``."""

    rows: np.ndarray
    columns: np.ndarray
    label: int

    @property
    def first(self) -> tuple[int, int]:
        """Its first pixel, row by row: what it is called by."""
        return int(self.rows[0]), int(self.columns[0])


def objects_of(labels: np.ndarray, ground: frozenset[int]) -> Regions:
    """The connected regions of ``(H, W)`` of labels that are neither ground nor 255."""
    return connected(labels, {IGNORE, *ground})


def footprint(regions: Regions, number: int) -> Footprint:
    """Region ``number`` (0, 1, ...)."""
    rows, columns = np.nonzero(regions.map == number + 1)
    return Footprint(rows, columns, int(regions.values[number]))


def footprints_at(labels: np.ndarray, places: Iterable[tuple[int, int]]) -> list[Footprint]:
    """The connected regions of ``(H, W)`` that the pixels (row, column) are in, whatever their labels."""
    regions = connected(labels, set())
    return [footprint(regions, int(regions.map[row, column]) - 1) for row, column in places]


def choose_regions(
    regions: Regions, most: int, largest_px: int, weight: np.ndarray, rng: np.random.Generator
) -> list[int]:
    """Up to ``most`` (at least one, drawn) different regions of at most ``largest_px`` pixels, in the order they were
    drawn.

    A class is as likely as its ``weight`` ``(256,)``, and so is each of its regions: a class of a hundred objects is
    drawn no more often than one with a single object.
    """
    able = np.flatnonzero(regions.areas() <= largest_px)
    if not able.size:
        return []
    values = regions.values[able]
    chance = weight[values] / np.bincount(values, minlength=256)[values]
    if chance.sum() <= 0:
        return []
    count = min(int(rng.integers(1, most + 1)), int((chance > 0).sum()))
    return [int(number) for number in rng.choice(able, size=count, replace=False, p=chance / chance.sum())]


def place_for(
    what: Footprint, source: np.ndarray, target: np.ndarray, rng: np.random.Generator, *, stay: bool
) -> tuple[int, int] | None:
    """By how many rows and columns to move a region of ``source`` so that it stands in ``target`` on what it stood on.

    Of some places at random the one that fits best; where it lay is looked at first if ``stay``. None where none fits:
    less than three quarters of its new place have the label that borders it most.
    """
    standing_on = _border_label(source, what)
    if standing_on is None:
        return None
    height, width = target.shape
    top, left = int(what.rows.min()), int(what.columns.min())
    bottom, right = int(what.rows.max()), int(what.columns.max())
    if bottom - top >= height or right - left >= width:
        return None
    downs = rng.integers(-top, height - bottom, size=_PLACES)
    acrosses = rng.integers(-left, width - right, size=_PLACES)
    moves = [(int(down), int(across)) for down, across in zip(downs, acrosses)]
    if stay and bottom < height and right < width:
        moves.insert(0, (0, 0))
    fits = [float((target[what.rows + down, what.columns + across] == standing_on).mean()) for down, across in moves]
    best = int(np.argmax(fits))
    return moves[best] if fits[best] >= _FITS else None


def paste(labels: np.ndarray, what: Footprint, down: int, across: int) -> None:
    """Writes a region into ``labels`` ``(H, W)``, moved; what falls beyond the borders is cut off, and 255 stays."""
    rows, columns = what.rows + down, what.columns + across
    inside = (rows >= 0) & (rows < labels.shape[0]) & (columns >= 0) & (columns < labels.shape[1])
    rows, columns = rows[inside], columns[inside]
    free = labels[rows, columns] != IGNORE
    labels[rows[free], columns[free]] = what.label


def _border_label(labels: np.ndarray, what: Footprint) -> int | None:
    """The label that most of the sides of the region's pixels meet; None where it meets nothing but 255 and the
    borders."""
    height, width = labels.shape
    met = np.zeros(256, dtype=np.int64)
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        rows, columns = what.rows + down, what.columns + across
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        met += np.bincount(labels[rows[inside], columns[inside]], minlength=256)
    met[[IGNORE, what.label]] = 0  # a neighbour of its own label is a pixel of its own
    return int(met.argmax()) if met.any() else None
