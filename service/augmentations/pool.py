"""The real items as a plan sees them: shares of the model's classes, masks, captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

IGNORE = 255
FOUND_SHARE = 0.005
"""A class is in an image from this share of the mask on, as in the records of made twins; less is noise."""


class Pool(Protocol):
    """The real items, numbered 0 to P - 1, their classes numbered as the model's (C of them).

    ``class_match`` (:mod:`service.augmentations.matching`) makes the model's class indices of the dataset's.
    """

    @property
    def histograms(self) -> np.ndarray:
        """``(P, C)`` float: the share of each mask's pixels that each class has. A row adds up to 1 less the share of
        255.

        The same array at every call: it is looked at often.
        """
        ...

    def mask(self, item: int) -> np.ndarray:
        """The class indices ``(H, W)`` uint8 of item ``item`` in the model's numbering, 255 for none. May be slow."""
        ...

    def caption(self, item: int) -> str | None:
        """The caption of item ``item``, if it has one. Asked for every item where a prompt uses captions, so it should
        be at hand."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayPool:
    """A pool of masks in memory, for few of them."""

    masks: Sequence[np.ndarray]
    classes: int
    captions: Sequence[str | None] = field(default=())

    @cached_property
    def histograms(self) -> np.ndarray:
        return (
            np.stack([histogram(mask, self.classes) for mask in self.masks])
            if self.masks
            else np.zeros((0, self.classes))
        )

    def mask(self, item: int) -> np.ndarray:
        return self.masks[item]

    def caption(self, item: int) -> str | None:
        return self.captions[item] if self.captions else None


def histogram(mask: np.ndarray, classes: int) -> np.ndarray:
    """The share ``(classes,)`` float64 of the pixels of a mask ``(H, W)`` uint8 that each class has.

    Raises ValueError for a mask that holds a value which is neither a class nor 255.
    """
    counts = np.bincount(mask.reshape(-1), minlength=256)
    if (strange := np.flatnonzero(counts[classes:IGNORE])).size:
        raise ValueError(
            f"the mask holds {strange[0] + classes}; the model's classes are 0 to {classes - 1}, and 255 for none"
        )
    return counts[:classes] / mask.size
