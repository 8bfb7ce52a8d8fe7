"""Clone: objects of the mask once more, at other places of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from service.augmentations.transforms.base import Drawn, Strengths, TransformContext
from service.augmentations.transforms.regions import (
    choose_regions,
    footprint,
    footprints_at,
    objects_of,
    paste,
    place_for,
)


class Clone(Strengths):
    """The more a class is wanted, the more likely its objects are cloned."""

    chance: float = Field(0.25, ge=0, le=1, description="Share of masks that it is applied to, 0..1.")
    most: int = Field(2, ge=0, le=100, description="Most objects cloned, 0..100.")
    largest: float = Field(0.1, ge=0, le=0.5, description="Largest object cloned, as a share of the mask, 0..0.5.")

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        if not self.most:
            return None
        regions = objects_of(labels, scene.ground)
        clones = []
        for number in choose_regions(regions, self.most, int(self.largest * labels.size), scene.class_weights, rng):
            what = footprint(regions, number)
            move = place_for(what, labels, labels, rng, stay=False)
            if move is not None and move != (0, 0):
                clones.append([*what.first, *move])
        return {"clones": clones} if clones else None


def clone(labels: np.ndarray, *, clones: Sequence[Sequence[int]]) -> np.ndarray:
    """``(H, W)`` with regions once more: each the one that holds (row, column), moved by (down, across) pixels. 255
    stays."""
    out = labels.copy()
    sources = footprints_at(labels, [(row, column) for row, column, _, _ in clones])
    for what, (_, _, down, across) in zip(sources, clones):
        paste(out, what, down, across)
    return out
