"""Pictures of objects: each object of an image has an index or a colour of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.reading.entry import Annotation
from service.datasets.reading.image_files import open_image, raw_mode
from service.datasets.reading.instance_maps import check_size, number_pairs, without
from service.datasets.reading.instance_numbers import check_numbers
from service.datasets.reading.mask_samples import MaskSamples, samples_of
from service.datasets.reading.report import EntryFault

_NO_OBJECT = (0x000000, 0xE0E0C0)
"""Black, and Pascal VOC's void, in pictures that are painted."""


def with_objects(annotation: Annotation, path: Path, classes: ClassList) -> Annotation:
    """A mask's annotation with the objects of its picture, by index or by colour, each of one class.

    One index may stand for objects of several classes, and what is numbered where the mask has the background or 255 is
    no object; both with a notice. Raises EntryFault that names the picture.
    """
    what, labels = f"its picture of objects {path.parent.name}/{path.name}", annotation.labels
    try:
        numbers, notices = without(_read(path, labels), labels, IGNORE, what, "255 (ignore)")
        if (background := classes.background) is not None:
            numbers, more = without(numbers, labels, background.index, what, background.name)
            notices += more
        classes_each = np.unique(number_pairs(numbers, labels) >> 8, return_counts=True)[1]
    except EntryFault as fault:
        raise EntryFault(fault.kind, f"{what}: {fault.detail}") from None
    if shared := int(np.count_nonzero(classes_each > 1)):
        notices += (f"{what} has the same index or colour on several classes, {shared} times: an object of each",)
    ids = np.unique(numbers.astype(np.int64) << 8 | labels, return_inverse=True)[1].reshape(labels.shape)
    instances = np.where(numbers == 0, 0, ids + 1).astype(np.int32)
    return replace(annotation, instances=instances, assumed=(*annotation.assumed, *notices))


def _read(path: Path, labels: np.ndarray) -> np.ndarray:
    """The indices, or colours as 0xRRGGBB, ``(H, W)`` int32; 0 for none."""
    image = open_image(path)
    channels = len(image.getbands())
    if channels > 1 and ";16" in raw_mode(image):
        # Pillow has dropped the lower 8 bits: colours that differ in these alone would be one object
        raise EntryFault("bad_annotation", f"it has {channels} channels of 16 bits; save it as a PNG of 8 bits")
    read = samples_of(image)
    if read.lossy:
        raise EntryFault(
            "bad_annotation",
            f"it is a {read.lossy}, whose compression mixes objects; save it as PNG from its source, or remove it",
        )
    check_size(read.samples, labels)
    check_numbers(read.samples)
    none = np.isin(read.samples, _void(read, channels, labels))
    if read.alpha is not None and (hidden := (read.alpha == 0) & ~none).any() and read.summary.see_through:
        raise EntryFault(
            "bad_annotation",
            f"it is transparent at {int(hidden.sum())} px of an object; save it without transparency, with black or 0 "
            "where there is none",
        )
    return np.where(none, 0, read.samples).astype(np.int32)


def _void(read: MaskSamples, channels: int, labels: np.ndarray) -> tuple[int, ...]:
    """The samples that stand for no object."""
    if read.kind == "rgb" or channels > 2:
        return _NO_OBJECT
    if int(read.samples.max()) <= IGNORE:
        return 0, IGNORE
    if ((read.samples == IGNORE) & (labels != IGNORE)).any():
        raise EntryFault(
            "bad_annotation",
            f"it numbers objects up to {int(read.samples.max())}, and has {IGNORE}, which is void otherwise, on pixels "
            "of a class; give that object another number",
        )
    return 0, IGNORE
