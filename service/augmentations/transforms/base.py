"""What all mask transforms share: the context they may use, and the check of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

IGNORE = 255
Drawn = dict[str, Any]
"""The parameters of a transform's function, JSON-able."""


@dataclass(frozen=True, eq=False)
class TransformContext:
    """What transforms know beside the mask.

    ``class_weights`` ``(256,)``: how much each label is wanted, 1 where there is no preference; crops keep, clones and
    merges add what is wanted, and drops take what is not. ``ground`` holds the labels that objects stand on, and are
    none. ``others`` are masks ``(h, w)`` uint8 from which ``merge`` takes objects; with ``fill``, once their 255 has
    been filled.
    """

    class_weights: np.ndarray = field(default_factory=lambda: np.ones(256))
    ground: frozenset[int] = frozenset()
    others: Sequence[np.ndarray] = ()
    fill: bool = False


def check_labels(labels: np.ndarray) -> None:
    """Raises ValueError unless ``labels`` is a mask."""
    if labels.ndim != 2 or labels.dtype != np.uint8 or not labels.size:
        raise ValueError(f"a mask is (H, W) uint8 with at least one pixel, not {labels.shape} {labels.dtype}")
