"""Resize: a segmentation at another size, by majority."""

from __future__ import annotations

from collections.abc import Sequence

from model_store.masks.resize import majority_resize, resize_instances
from service.augmentations.transforms.base import Segmentation


def resize(segmentation: Segmentation, *, size_px: int | Sequence[int]) -> Segmentation:
    """``(H, W)`` at ``size_px``, a side or width and height: each pixel takes the label that covers most of it."""
    size = size_px if isinstance(size_px, int) else (size_px[0], size_px[1])
    labels = majority_resize(segmentation.labels, size)
    if segmentation.instances is None:
        return Segmentation(labels)
    return Segmentation(labels, resize_instances(segmentation.instances, segmentation.labels, labels))
