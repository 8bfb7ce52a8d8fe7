"""Merge: objects of another mask pasted onto this one, where they lay or where they fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from model_store.masks.resize import majority_resize
from service.augmentations.transforms.base import Drawn, Strengths, TransformContext
from service.augmentations.transforms.crop import crop, frame
from service.augmentations.transforms.filling import fill_ignored
from service.augmentations.transforms.regions import (
    choose_regions,
    footprint,
    footprints_at,
    objects_of,
    paste,
    place_for,
)


class Merge(Strengths):
    """The more a class is wanted, the more likely its objects are taken over."""

    chance: float = Field(0.25, ge=0, le=1, description="Share of masks that it is applied to, 0..1.")
    most: int = Field(3, ge=0, le=100, description="Most objects taken over, 0..100.")
    largest: float = Field(0.2, ge=0, le=0.5, description="Largest object taken over, as a share of its mask, 0..0.5.")

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        if not self.most or not scene.others:
            return None
        number = int(rng.integers(len(scene.others)))
        window = frame(scene.others[number], scene.class_weights)
        other = _prepared(scene.others[number], window, scene.fill, min(labels.shape))
        regions = objects_of(other, scene.ground)
        pasted = []
        for chosen in choose_regions(regions, self.most, int(self.largest * other.size), scene.class_weights, rng):
            what = footprint(regions, chosen)
            move = place_for(what, other, labels, rng, stay=True)
            if move is not None:
                pasted.append([*what.first, *move])
        return {"other": number, "window": window, "filled": scene.fill, "objects": pasted} if pasted else None


def merge(
    labels: np.ndarray,
    others: Sequence[np.ndarray],
    *,
    other: int,
    window: Drawn,
    filled: bool,
    objects: Sequence[Sequence[int]],
) -> np.ndarray:
    """``(H, W)`` with regions of mask number ``other`` of ``others``, of which the square ``window`` is taken to the
    size of the shorter side first, and its 255 filled if ``filled``.

    Each region is the one that holds (row, column) there, moved by (down, across) pixels. Pixels of 255 in ``labels``
    stay.
    """
    source = _prepared(others[other], window, filled, min(labels.shape))
    out = labels.copy()
    regions = footprints_at(source, [(row, column) for row, column, _, _ in objects])
    for what, (_, _, down, across) in zip(regions, objects):
        paste(out, what, down, across)
    return out


def _prepared(other: np.ndarray, window: Drawn, filled: bool, side_px: int) -> np.ndarray:
    source = majority_resize(crop(other, **window), side_px)
    return fill_ignored(source) if filled else source
