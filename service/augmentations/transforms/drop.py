"""Drop: objects taken out, their places filled with the labels around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from service.augmentations.transforms.base import IGNORE, Drawn, Strengths, TransformContext
from service.augmentations.transforms.filling import fill_nearest
from service.augmentations.transforms.regions import choose_regions, footprint, footprints_at, objects_of


class Drop(Strengths):
    """The less a class is wanted, the more likely its objects are taken."""

    chance: float = Field(0.25, ge=0, le=1, description="Share of masks that it is applied to, 0..1.")
    most: int = Field(2, ge=0, le=100, description="Most objects taken out, 0..100.")
    largest: float = Field(0.1, ge=0, le=0.5, description="Largest object taken out, as a share of the mask, 0..0.5.")

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        if not self.most:
            return None
        regions = objects_of(labels, scene.ground)
        unwanted = 1 / np.maximum(scene.class_weights, 1e-3)
        chosen = choose_regions(regions, self.most, int(self.largest * labels.size), unwanted, rng)
        # something has to be left to fill the places with
        room = int((labels != IGNORE).sum())
        taken = []
        for number in chosen:
            what = footprint(regions, number)
            room -= len(what.rows)
            if room <= 0:
                break
            taken.append(list(what.first))
        return {"at": taken} if taken else None


def drop(labels: np.ndarray, *, at: Sequence[Sequence[int]]) -> np.ndarray:
    """``(H, W)`` without the regions that hold the pixels ``at`` (row, column); each of their pixels takes the nearest
    label left."""
    hole = np.zeros(labels.shape, dtype=bool)
    for what in footprints_at(labels, [(row, column) for row, column in at]):
        hole[what.rows, what.columns] = True
    return fill_nearest(labels, hole)
