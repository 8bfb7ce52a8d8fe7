"""Pool of real items that a plan draws from: shares of the model's classes, masks, captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from service.augmentations.transforms.base import Segmentation

IGNORE = 255
FOUND_SHARE = 0.005
"""Smallest share of a mask from which a class counts as found, as in the records of twins; less is noise."""


class Pool(Protocol):
    """The real items, numbered 0 to P - 1, their classes numbered as the model's (C of them).

    :mod:`service.augmentations.matching` converts the dataset's class indices to the model's.
    """

    @property
    def histograms(self) -> np.ndarray:
        """``(P, C)`` float: the share of each class in each mask's pixels; a row adds up to 1 minus the share of 255.

        The same array at every call, since it is read often.
        """
        ...

    def segmentation(self, item: int) -> Segmentation:
        """Class indices of item ``item`` in the model's numbering, 255 = ignore, and its instances. May be slow."""
        ...

    def caption(self, item: int) -> str | None:
        """The caption of item ``item``, if it has one. Must be fast: prompts with captions read that of every item."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayPool:
    """A pool of few masks, all in memory."""

    masks: Sequence[np.ndarray]
    classes: int
    captions: Sequence[str | None] = field(default=())
    instances: Sequence[np.ndarray | None] = field(default=())

    @cached_property
    def histograms(self) -> np.ndarray:
        return (
            np.stack([histogram(mask, self.classes) for mask in self.masks])
            if self.masks
            else np.zeros((0, self.classes))
        )

    def segmentation(self, item: int) -> Segmentation:
        return Segmentation(self.masks[item], self.instances[item] if self.instances else None)

    def caption(self, item: int) -> str | None:
        return self.captions[item] if self.captions else None


def histogram(mask: np.ndarray, classes: int) -> np.ndarray:
    """The share ``(classes,)`` float64 of the pixels of a mask ``(H, W)`` uint8 that each class has.

    Raises ValueError for a mask that holds a value which is neither a class nor 255.
    """
    counts = np.bincount(mask.reshape(-1), minlength=256)
    if (unknown := np.flatnonzero(counts[classes:IGNORE])).size:
        raise ValueError(
            f"the mask holds {unknown[0] + classes}; the model's classes are 0 to {classes - 1}, and 255 means ignore"
        )
    return counts[:classes] / mask.size
