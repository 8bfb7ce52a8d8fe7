"""Masks with the instances of their objects in one array, so that all that is done to a mask is done to both.

A key is ``instance << 8 | class index``, int32. A mask without instances stays class indices, uint8.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

Instances = Literal["maps", "regions", "none"]
"""What numbers a mask's objects: the dataset's instance maps, or connected regions of its classes."""

MAX_KEYED = (1 << 23) - 1
"""The largest number that a key holds."""


def with_instances(mask: np.ndarray, instances: np.ndarray | None) -> np.ndarray:
    """Keys ``(H, W)`` int32 of class indices ``(H, W)`` uint8 and instances ``(H, W)``, 0 for none and without any."""
    keys = mask.astype(np.int32)
    return keys if instances is None else instances.astype(np.int32) << 8 | keys


def labels_of(mask: np.ndarray) -> np.ndarray:
    """The class indices, uint8, of keys or of a mask without instances."""
    return mask if mask.dtype == np.uint8 else (mask & 255).astype(np.uint8)


def split(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Class indices and instances, of keys int64 of any shape."""
    return keys & 255, keys >> 8
