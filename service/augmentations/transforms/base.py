"""Shared by all mask transforms: their context, the type of their arguments, and the check of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

IGNORE = 255
TransformArguments = dict[str, Any]
"""The arguments of a transform's function besides the mask, JSON-able."""


@dataclass(frozen=True, eq=False)
class TransformContext:
    """What transforms know besides the mask.

    ``class_weights`` ``(256,)``: how much each label is wanted, 1 without preference; crops keep, clones and merges add
    wanted labels, and drops remove unwanted ones. ``background``: the labels that objects stand on, which are not
    objects themselves. ``others``: masks ``(h, w)`` uint8 from which ``merge`` takes objects, with their 255 filled
    first if ``fill``.
    """

    class_weights: np.ndarray = field(default_factory=lambda: np.ones(256))
    background: frozenset[int] = frozenset()
    others: Sequence[np.ndarray] = ()
    fill: bool = False


def check_labels(labels: np.ndarray) -> None:
    """Raises ValueError unless ``labels`` is a mask."""
    if labels.ndim != 2 or labels.dtype != np.uint8 or not labels.size:
        raise ValueError(f"a mask is (H, W) uint8 with at least one pixel, not {labels.shape} {labels.dtype}")
