"""Intersection over union: how much of an object a format preserves."""

from __future__ import annotations

import numpy as np


def iou(kept: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two masks ``(H, W)`` bool; 1 for two empty ones."""
    union = np.count_nonzero(kept | true)
    return 1.0 if not union else np.count_nonzero(kept & true) / union
