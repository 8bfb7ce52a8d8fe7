"""Resize: a square segmentation at another size, by majority."""

from __future__ import annotations

from model_store.masks.resize import majority_resize, resize_instances
from service.augmentations.transforms.base import Segmentation


def resize(segmentation: Segmentation, *, size_px: int) -> Segmentation:
    """``(s, s)`` -> ``(size_px, size_px)``: each pixel takes the label that covers most of it, and its instance."""
    labels = majority_resize(segmentation.labels, size_px)
    if segmentation.instances is None:
        return Segmentation(labels)
    return Segmentation(labels, resize_instances(segmentation.instances, segmentation.labels, labels))
