"""Shared by all mask transforms: the segmentation they change, their context, and the type of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.augmentations.transforms.framing import Framing

IGNORE = 255
TransformArguments = dict[str, Any]
"""The arguments of a transform's function besides the mask, JSON-able."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class indices ``labels`` ``(H, W)`` uint8 of an image, and its ``instances`` ``(H, W)`` int32 where known.

    An instance number, 1 and up, is an object of one class; 0 is none. Pixels of label 255 have no instance.
    """

    labels: np.ndarray
    instances: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for arrays of another form."""
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8 or not self.labels.size:
            raise ValueError(
                f"a mask is (H, W) uint8 with at least one pixel, not {self.labels.shape} {self.labels.dtype}"
            )
        if self.instances is not None and self.instances.shape != self.labels.shape:
            raise ValueError(
                f"an instance map is as large as its mask, {self.labels.shape}: not {self.instances.shape}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.labels.shape[0], self.labels.shape[1]

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> Segmentation:
        """Both arrays changed alike."""
        labels = np.ascontiguousarray(change(self.labels))
        instances = None if self.instances is None else np.ascontiguousarray(change(self.instances))
        return Segmentation(labels, instances)

    def copy(self) -> Segmentation:
        """The same in memory of its own."""
        return self.each(np.copy)


@dataclass(frozen=True, eq=False)
class TransformContext:
    """What transforms know besides the mask.

    ``class_weights`` ``(256,)``: how much each label is wanted, 1 without preference; crops keep, clones and merges add
    wanted labels, and drops remove unwanted ones. ``background``: the labels that objects stand on, which are not
    objects themselves. ``others``: segmentations from which ``merge`` takes objects, with their 255 filled first if
    ``fill``. ``framing``: the part of a mask that is shown, and its size.
    """

    class_weights: np.ndarray = field(default_factory=lambda: np.ones(256))
    background: frozenset[int] = frozenset()
    others: Sequence[Segmentation] = ()
    fill: bool = False
    framing: Framing = field(default_factory=Framing)
