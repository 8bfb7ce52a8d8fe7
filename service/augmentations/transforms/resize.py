"""Resize: a square annotation at another size, by majority."""

from __future__ import annotations

from model_store.masks.instance_resize import majority_instances
from model_store.masks.resize import majority_resize
from service.augmentations.transforms.base import Annotation


def resize(annotation: Annotation, *, size_px: int) -> Annotation:
    """``(s, s)`` -> ``(size_px, size_px)``: each pixel takes the label that covers most of it, and its instance."""
    labels = majority_resize(annotation.labels, size_px)
    if annotation.instances is None:
        return Annotation(labels)
    return Annotation(labels, majority_instances(annotation.labels, annotation.instances, labels))
