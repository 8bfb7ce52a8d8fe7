"""Class mapping: classes selected, reordered, renamed and merged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.datasets.classes import IGNORE, ClassList, DatasetClass
from service.datasets.writing.options import ExportOptions
from service.errors import InvalidDataset


@dataclass(frozen=True)
class ClassMapping:
    """A mapping of class indices: ``table`` ``(256,)`` uint8 is the new index of each old one, None for no change."""

    classes: ClassList
    table: np.ndarray | None

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """New class indices ``(H, W)`` uint8 for old ones."""
        return labels if self.table is None else self.table[labels]


def class_mapping(classes: ClassList, options: ExportOptions) -> ClassMapping:
    """The mapping that the options define. Raises InvalidDataset naming an unknown class."""
    kept = options.classes or classes.names
    for what, names in (("classes", kept), ("rename", options.rename)):
        if unknown := [name for name in names if name not in classes.names]:
            raise InvalidDataset(
                f"{what} names {unknown[0]!r}, which is not a class; there are {', '.join(classes.names)}"
            )
    old = {entry.name: entry for entry in classes.classes}
    new: list[DatasetClass] = []
    table = np.full(256, IGNORE, dtype=np.uint8)
    for name in kept:
        renamed = options.rename.get(name, name)
        index = next((entry.index for entry in new if entry.name == renamed), None)
        if index is None:
            index = len(new)
            new.append(old[name].model_copy(update={"index": index, "name": renamed}))
        table[old[name].index] = index
    if options.dropped is not None:
        target = next((entry.index for entry in new if entry.name == options.dropped), None)
        if target is None:
            raise InvalidDataset(f"dropped is {options.dropped!r}, which must be the new name of a kept class")
        for entry in classes.classes:
            if entry.name not in kept:
                table[entry.index] = target
    same = np.array_equal(table[: len(classes)], np.arange(len(classes)))
    return ClassMapping(ClassList(classes=tuple(new)), None if same else table)
