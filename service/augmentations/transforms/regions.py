"""Objects to drop, clone and merge: instances or connected regions of a label, their choice, and their placement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from service.augmentations.transforms.base import IGNORE, Segmentation
from service.datasets.components import Regions, objects

FITS = 0.75
"""Least share of its new place that must have the label the object stood on: boats stay in the water."""
_PLACES = 24


@dataclass(frozen=True, eq=False)
class Footprint:
    """The pixels of one object: ``rows`` and ``columns`` ``(n,)``, and its ``label``."""

    rows: np.ndarray
    columns: np.ndarray
    label: int

    @property
    def first(self) -> tuple[int, int]:
        """The first pixel, row by row, which identifies the object."""
        return int(self.rows[0]), int(self.columns[0])


def objects_of(segmentation: Segmentation, background: frozenset[int]) -> Regions:
    """The instances, and the connected regions of the rest, with labels that are neither background nor 255."""
    return objects(segmentation.labels, segmentation.instances, {IGNORE, *background})


def footprint(regions: Regions, number: int) -> Footprint:
    """Region ``number`` (0, 1, ...)."""
    rows, columns = np.nonzero(regions.map == number + 1)
    return Footprint(rows, columns, int(regions.values[number]))


def footprints(regions: Regions, numbers: Iterable[int]) -> list[Footprint]:
    """Several regions (0, 1, ...), found in one pass."""
    owners = regions.map.reshape(-1)
    places = np.flatnonzero(owners)
    places = places[np.argsort(owners[places], kind="stable")]
    begins = np.searchsorted(owners[places], np.arange(1, len(regions) + 2))
    found = []
    for number in numbers:
        rows, columns = np.divmod(places[begins[number] : begins[number + 1]], regions.map.shape[1])
        found.append(Footprint(rows, columns, int(regions.values[number])))
    return found


def footprints_at(segmentation: Segmentation, places: Iterable[tuple[int, int]]) -> list[Footprint]:
    """The instances or connected regions that the pixels (row, column) are in, whatever their labels."""
    regions = objects(segmentation.labels, segmentation.instances, set())
    return footprints(regions, [int(regions.map[row, column]) - 1 for row, column in places])


def choose_regions(
    regions: Regions, max_count: int, largest_px: int, weight: np.ndarray, rng: np.random.Generator
) -> list[int]:
    """Draws 1 to ``max_count`` different regions of at most ``largest_px`` pixels, in random order.

    The probability of a class is its ``weight`` ``(256,)``, shared by its regions: a class with a hundred objects is
    drawn as often as one with a single object.
    """
    able = np.flatnonzero(regions.areas() <= largest_px)
    if not able.size:
        return []
    values = regions.values[able]
    chance = weight[values] / np.bincount(values, minlength=256)[values]
    if chance.sum() <= 0:
        return []
    count = min(int(rng.integers(1, max_count + 1)), int((chance > 0).sum()))
    return [int(number) for number in rng.choice(able, size=count, replace=False, p=chance / chance.sum())]


def place_for(
    what: Footprint, source: np.ndarray, target: np.ndarray, rng: np.random.Generator, *, stay: bool
) -> tuple[int, int] | None:
    """Rows and columns by which to move a region of ``source`` so that it stands on the same label in ``target``.

    The best of some random places, and of the old place too if ``stay``. None if none fits, which is if less than three
    quarters of the new place have the label that surrounds the region most.
    """
    label_below = border_label(source, what)
    if label_below is None:
        return None
    height, width = target.shape
    top, left = int(what.rows.min()), int(what.columns.min())
    bottom, right = int(what.rows.max()), int(what.columns.max())
    if bottom - top >= height or right - left >= width:
        return None
    downs = rng.integers(-top, height - bottom, size=_PLACES)
    acrosses = rng.integers(-left, width - right, size=_PLACES)
    moves = [(int(down), int(across)) for down, across in zip(downs, acrosses, strict=True)]
    if stay and bottom < height and right < width:
        moves.insert(0, (0, 0))
    fits = [float((target[what.rows + down, what.columns + across] == label_below).mean()) for down, across in moves]
    best = int(np.argmax(fits))
    return moves[best] if fits[best] >= FITS else None


def paste(segmentation: Segmentation, what: Footprint, down: int, across: int, *, number: int | None = None) -> None:
    """Writes a moved object into ``segmentation``; it is cut off at the borders, and 255 stays.

    It is a new instance, unless it has a ``number``.
    """
    labels, instances = segmentation.labels, segmentation.instances
    rows, columns = what.rows + down, what.columns + across
    inside = (rows >= 0) & (rows < labels.shape[0]) & (columns >= 0) & (columns < labels.shape[1])
    rows, columns = rows[inside], columns[inside]
    free = labels[rows, columns] != IGNORE
    labels[rows[free], columns[free]] = what.label
    if instances is not None:
        instances[rows[free], columns[free]] = instances.max() + 1 if number is None else number


def border_label(labels: np.ndarray, what: Footprint) -> int | None:
    """The label next to most sides of the region's pixels; None if there is nothing but 255 and the borders."""
    height, width = labels.shape
    met = np.zeros(256, dtype=np.int64)
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        rows, columns = what.rows + down, what.columns + across
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        met += np.bincount(labels[rows[inside], columns[inside]], minlength=256)
    met[[IGNORE, what.label]] = 0  # neighbours with the same label belong to the object, or are another one
    return int(met.argmax()) if met.any() else None
