"""Fewer classes, and other names for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.datasets.classes import IGNORE, ClassList, DatasetClass
from service.datasets.writing.options import ExportOptions
from service.errors import InvalidDataset


@dataclass(frozen=True)
class ClassMapping:
    """``table`` ``(256,)`` uint8: the new index of each old one; None where nothing changes in masks."""

    classes: ClassList
    table: np.ndarray | None

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Old class indices ``(H, W)`` uint8 -> new ones."""
        return labels if self.table is None else self.table[labels]


def class_mapping(classes: ClassList, options: ExportOptions) -> ClassMapping:
    """The mapping that the options ask for. Raises InvalidDataset naming a class that is none."""
    kept = options.classes or classes.names
    for what, names in (("classes", kept), ("rename", options.rename)):
        if strange := [name for name in names if name not in classes.names]:
            raise InvalidDataset(
                f"{what} names {strange[0]!r}, which is no class; there are {', '.join(classes.names)}"
            )
    old = {entry.name: entry for entry in classes.classes}
    new: list[DatasetClass] = []
    table = np.full(256, IGNORE, dtype=np.uint8)
    for name in kept:
        renamed = options.rename.get(name, name)
        place = next((entry.index for entry in new if entry.name == renamed), None)
        if place is None:
            place = len(new)
            new.append(old[name].model_copy(update={"index": place, "name": renamed}))
        table[old[name].index] = place
    if options.dropped is not None:
        taker = next((entry.index for entry in new if entry.name == options.dropped), None)
        if taker is None:
            raise InvalidDataset(
                f"dropped is {options.dropped!r}, which is no class that is kept; it is the new name of one"
            )
        for entry in classes.classes:
            if entry.name not in kept:
                table[entry.index] = taker
    same = np.array_equal(table[: len(classes)], np.arange(len(classes)))
    return ClassMapping(ClassList(classes=tuple(new)), None if same else table)
