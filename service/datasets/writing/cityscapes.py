"""The writer for Cityscapes-style sets: the trees ``leftImg8bit`` and ``gtFine``, by split and city."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.writing.manifest import json_page
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import PreparedItem
from service.datasets.writing.state import WriterState
from service.kit.output_file import ExportFile
from service.kit.png import encode_grey_16, encode_image

INSTANCES_PER_CLASS = 1000


class CityscapesWriter:
    """Writer of ``{city}_{stem}_000000_...`` files; the city is the item's source, ``real`` or ``synthetic``.

    ``labelIds`` are the class indices, 255 ignored; ``instanceIds`` are 16 bits: an object's class times 1000 plus its
    number in the class, or the bare class index of the background; ``color`` is the painted mask. ``dataset.json`` has
    the classes.
    """

    replaced: ClassVar[dict[str, str]] = {"_": "-"}
    """Underscores separate the parts of a name."""
    per_split: ClassVar[bool] = True
    sharded: ClassVar[bool] = False

    def __init__(self, classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> None:
        self._classes = classes
        self._painted = np.full((256, 3), 255, dtype=np.uint8)
        self._painted[: len(classes)] = classes.colours

    def add(self, prepared: PreparedItem) -> Iterator[ExportFile]:
        """The image and three forms of its mask."""
        city = prepared.item.source
        base = f"{prepared.split}/{city}/{city}_{prepared.stem}_000000"
        for what, path, data in (
            ("image", f"leftImg8bit/{base}_leftImg8bit.{prepared.suffix}", prepared.image),
            ("mask", f"gtFine/{base}_gtFine_labelIds.png", prepared.index_png),
            ("mask_colour", f"gtFine/{base}_gtFine_color.png", encode_image(self._painted[prepared.labels], {})),
            ("objects", f"gtFine/{base}_gtFine_instanceIds.png", encode_grey_16(self._instances(prepared))),
        ):
            prepared.record_file(what, path, data)
            yield ExportFile.of(path, data)

    def _instances(self, prepared: PreparedItem) -> np.ndarray:
        """Instance ids ``(H, W)`` uint16; objects whose id would exceed 65535 keep the bare class index."""
        regions = prepared.objects
        numbers = np.zeros(len(regions) + 1, dtype=np.uint16)
        for value in np.unique(regions.values):
            of_class = np.flatnonzero(regions.values == value)
            wanted = value * INSTANCES_PER_CLASS + np.arange(len(of_class))
            fits = (
                (np.arange(len(of_class)) < INSTANCES_PER_CLASS) & (wanted <= 0xFFFF) & (wanted >= INSTANCES_PER_CLASS)
            )
            numbers[of_class + 1] = np.where(fits, wanted, value)
            if not fits.all() and value:
                prepared.lost["objects_without_id"] = prepared.lost.get("objects_without_id", 0) + int((~fits).sum())
        ids: np.ndarray = numbers[regions.map]
        np.copyto(ids, prepared.labels, where=regions.map == 0)
        return ids

    def finish(self) -> Iterator[ExportFile]:
        """``dataset.json`` with the classes."""
        yield ExportFile.of("dataset.json", json_page({"classes": self._classes.table(), "ignore": IGNORE}))

    def state(self) -> WriterState:
        """An empty state."""
        return WriterState()

    def restore(self, state: WriterState) -> None:
        """Nothing to restore."""

    def front_matter(self) -> str:
        """Empty."""
        return ""

    def layout(self) -> list[str]:
        """Lines for README.md that describe the files."""
        return [
            "`leftImg8bit/{split}/{city}/`: the images; the city is `real` or `synthetic`",
            "`gtFine/{split}/{city}/`: `labelIds` (class indices, 255 none), `color` (painted), `instanceIds` (class x "
            "1000 + number)",
            "`dataset.json`: the classes; their indices are the label ids, not those of the Cityscapes benchmark",
        ]

    def close(self) -> None:
        """Nothing to free."""
