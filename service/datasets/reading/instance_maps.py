"""Reading of instance maps that lie beside masks: grey PNGs with the number of each pixel's object."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE
from service.datasets.reading.mask_samples import read_mask_samples
from service.datasets.reading.report import EntryFault

INSTANCE_FOLDER = "instances"
"""The folder beside that of the masks."""


def read_instance_map(file: Path | bytes, name: str, labels: np.ndarray) -> np.ndarray:
    """The numbers ``(H, W)`` int32 of a map that goes with class indices ``(H, W)``; 0 where these are 255.

    Raises EntryFault for another size, colours, lossy compression, and a number on pixels of two classes.
    """
    read = read_mask_samples(file, narrow=False)
    if read.lossy or read.kind == "rgb":
        what = f"a {read.lossy}" if read.lossy else "in colours"
        raise EntryFault("unknown_labels", f"its map of instances {name} is {what}; save grey numbers of 8 or 16 bits")
    if read.samples.shape != labels.shape:
        height, width = read.samples.shape
        raise EntryFault(
            "size_differs",
            f"its map of instances {name} is {width} x {height} px, its mask {labels.shape[1]} x {labels.shape[0]}",
        )
    numbers = np.where(labels == IGNORE, 0, read.samples).astype(np.int32)
    keys = np.unique(numbers.astype(np.int64) << 8 | labels)
    keys = keys[keys >> 8 > 0]
    again = np.flatnonzero(np.diff(keys >> 8) == 0)
    if again.size:
        number = int(keys[again[0]] >> 8)
        raise EntryFault(
            "bad_annotation",
            f"its map of instances {name} has number {number} on pixels of two classes, and an object has one; give 0 "
            "where the mask shows another class",
        )
    return numbers
