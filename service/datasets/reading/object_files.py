"""Pictures of objects: each object of an image has an index or a colour of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE
from service.datasets.reading.mask_samples import read_mask_samples
from service.datasets.reading.report import EntryFault

_NO_OBJECT = (0x000000, 0xE0E0C0)
"""Black, and Pascal VOC's void, in pictures that are painted."""


def read_objects(path: Path, labels: np.ndarray) -> np.ndarray:
    """The instances ``(H, W)`` int32 of a picture of objects by index or by colour, each of one class; 0 for none.

    Raises EntryFault.
    """
    name = f"{path.parent.name}/{path.name}"
    read = read_mask_samples(path)
    if read.lossy:
        raise EntryFault(
            "unknown_labels",
            f"its picture of objects {name} is a {read.lossy}, whose compression mixes objects; save it as PNG from "
            "its source, or remove it",
        )
    if read.samples.shape != labels.shape:
        height, width = read.samples.shape
        raise EntryFault(
            "size_differs",
            f"its picture of objects {name} is {width} x {height} px, its mask {labels.shape[1]} x {labels.shape[0]}; "
            "make both anew from one source, or remove it",
        )
    none = np.isin(read.samples, _NO_OBJECT if read.kind == "rgb" else (0, IGNORE)) | (labels == IGNORE)
    # one index may stand for objects of several classes
    ids = np.unique(read.samples.astype(np.int64) << 8 | labels, return_inverse=True)[1]
    return np.where(none, 0, ids.reshape(labels.shape) + 1).astype(np.int32)
