"""Cityscapes-style: images and masks side by side in two trees, ``leftImg8bit`` and ``gtFine``, by split and city."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.writing.manifest import json_page
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import Prepared
from service.datasets.writing.state import WriterState
from service.kit.output_file import ExportFile
from service.kit.png import encode_grey_16, encode_image

INSTANCES_A_CLASS = 1000


class CityscapesWriter:
    """Names are ``{city}_{stem}_000000_...``; the city is the item's source, ``real`` or ``synthetic``.

    ``labelIds`` are the class indices, 255 ignored; ``instanceIds`` are 16 bits: an object's class times 1000 plus its
    number in the class, or the bare class index of the background; ``color`` is the mask painted. ``dataset.json`` has
    the classes.
    """

    replaced: ClassVar[dict[str, str]] = {"_": "-"}
    """Underscores divide the parts of a name."""
    sharded: ClassVar[bool] = False

    def __init__(self, classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> None:
        self._classes = classes
        self._painted = np.full((256, 3), 255, dtype=np.uint8)
        self._painted[: len(classes)] = classes.colours

    def add(self, prepared: Prepared) -> Iterator[ExportFile]:
        """The image and three forms of its mask."""
        city = prepared.item.source
        place = f"{prepared.split}/{city}/{city}_{prepared.stem}_000000"
        for what, path, data in (
            ("image", f"leftImg8bit/{place}_leftImg8bit.{prepared.suffix}", prepared.image),
            ("mask", f"gtFine/{place}_gtFine_labelIds.png", prepared.index_png),
            ("mask_colour", f"gtFine/{place}_gtFine_color.png", encode_image(self._painted[prepared.labels], {})),
            ("objects", f"gtFine/{place}_gtFine_instanceIds.png", encode_grey_16(self._instances(prepared))),
        ):
            prepared.note(what, path, data)
            yield ExportFile.of(path, data)

    def _instances(self, prepared: Prepared) -> np.ndarray:
        """``(H, W)`` uint16. At 254 classes an object's id still fits, up to 65535: those that do not keep the bare
        class."""
        regions = prepared.objects
        ids = prepared.labels.astype(np.int64)
        numbers = np.zeros(len(regions) + 1, dtype=np.int64)
        for value in np.unique(regions.values):
            of_class = np.flatnonzero(regions.values == value)
            wanted = value * INSTANCES_A_CLASS + np.arange(len(of_class))
            fits = (np.arange(len(of_class)) < INSTANCES_A_CLASS) & (wanted <= 0xFFFF) & (wanted >= INSTANCES_A_CLASS)
            numbers[of_class + 1] = np.where(fits, wanted, value)
            if not fits.all() and value:
                prepared.lost["objects_without_id"] = prepared.lost.get("objects_without_id", 0) + int((~fits).sum())
        return np.where(regions.map > 0, numbers[regions.map], ids).astype(np.uint16)

    def finish(self) -> Iterator[ExportFile]:
        """The classes."""
        yield ExportFile.of("dataset.json", json_page({"classes": self._classes.table(), "ignore": IGNORE}))

    def state(self) -> WriterState:
        """Nothing is gathered."""
        return WriterState()

    def restore(self, state: WriterState) -> None:
        """Nothing is taken up."""

    def front_matter(self) -> str:
        """None."""
        return ""

    def layout(self) -> list[str]:
        """Which file holds what."""
        return [
            "`leftImg8bit/{split}/{city}/`: the images; the city is `real` or `synthetic`",
            "`gtFine/{split}/{city}/`: `labelIds` (class indices, 255 none), `color` (painted), `instanceIds` (class x 1000 + number)",
            "`dataset.json`: the classes; their indices are the label ids, not those of the Cityscapes benchmark",
        ]

    def close(self) -> None:
        """Nothing is held."""
