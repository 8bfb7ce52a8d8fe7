"""The writer for YOLO-seg: a text file per image, a line per object with its class and one relative polygon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.components import connected
from service.datasets.filling import fill_with_border
from service.datasets.outlines import polygons
from service.datasets.patches import UNBOUNDED, FillBudget
from service.datasets.writing.notes import yolo_stand_ins
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import PreparedItem
from service.datasets.writing.state import WriterState
from service.kit.output_file import ExportFile

INSET_PX = 0.25
"""How far inside the object's edge its outline runs: rounded down to pixels, as trainers do, it lies on the object's
border pixels."""
_DECIMALS = 6


class YoloWriter:
    """Writer of ``images/{split}/``, ``labels/{split}/`` and ``data.yaml``.

    One line holds one closed outline, so an object with holes is cut open to them, and an object in several parts has a
    line for each. The background is not a class here. YOLO cannot represent pixels to ignore; they are counted as lost.
    """

    replaced: ClassVar[dict[str, str]] = {}
    per_split: ClassVar[bool] = True
    sharded: ClassVar[bool] = False

    def __init__(self, classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> None:
        self._classes = classes
        self._ids = {entry.index: number for number, entry in enumerate(classes.objects)}
        self._splits: set[str] = set()

    def add(self, prepared: PreparedItem) -> Iterator[ExportFile]:
        """The image and its label file."""
        image = f"images/{prepared.split}/{prepared.stem}.{prepared.suffix}"
        label = f"labels/{prepared.split}/{prepared.stem}.txt"
        lines = self._lines(prepared)
        self._splits.add(prepared.split)
        for what, path, data in (("image", image, prepared.image), ("annotation", label, lines)):
            prepared.record_file(what, path, data)
            yield ExportFile.of(path, data)

    def _lines(self, prepared: PreparedItem) -> bytes:
        height, width = prepared.labels.shape
        objects = prepared.objects
        # an instance in several parts is split into its connected parts
        parts = connected(objects.map, {0})
        scale = np.array([width, height])
        lines, scores, areas = [], [], parts.areas().tolist()
        for number, outlines in enumerate(polygons(parts.map, len(parts), inset_px=INSET_PX), start=1):
            label = int(objects.values[parts.values[number - 1] - 1])
            points = np.round(outlines[0] / scale, _DECIMALS)
            filled = fill_with_border(points * scale, height, width, FillBudget(UNBOUNDED))
            scores.append(filled.iou(parts.map, number, areas[number - 1]))
            lines.append(
                f"{self._ids[label]} "
                + " ".join(f"{value:.{_DECIMALS}f}" for value in points.reshape(-1).tolist())
                + "\n"
            )
        prepared.lost["objects"] = len(scores)
        prepared.lost["iou_mean"] = float(1 - np.mean(scores)) if scores else 0.0
        prepared.lost["iou_max"] = float(1 - min(scores)) if scores else 0.0
        prepared.lost["ignore_pixels"] = int(np.count_nonzero(prepared.labels == IGNORE))
        return "".join(lines).encode()

    def finish(self) -> Iterator[ExportFile]:
        """``data.yaml``."""
        yield ExportFile.of("data.yaml", self._yaml().encode())

    def _yaml(self) -> str:
        named = {split: split for split in sorted(self._splits)} | yolo_stand_ins(self._splits)
        lines = [
            "path: .",
            *(f"{key}: images/{split}" for key, split in named.items()),
            "names:",
            *(f"  {number}: {_quoted(entry.name)}" for number, entry in enumerate(self._classes.objects)),
        ]
        lines += [
            "colours:",
            *(f"  {number}: {list(entry.colour)}" for number, entry in enumerate(self._classes.objects)),
        ]
        background = self._classes.background
        entry = (
            "null"
            if background is None
            else f"{{index: {background.index}, name: {_quoted(background.name)}, colour: {list(background.colour)}}}"
        )
        return "\n".join([*lines, f"background: {entry}"]) + "\n"

    def state(self) -> WriterState:
        """The splits."""
        return WriterState({"splits": sorted(self._splits)})

    def restore(self, state: WriterState) -> None:
        """Restores the splits."""
        self._splits = set(state.values["splits"])

    def front_matter(self) -> str:
        """Empty."""
        return ""

    def layout(self) -> list[str]:
        """Lines for README.md that describe the files."""
        return [
            "`images/{split}/`: the images",
            "`labels/{split}/`: a line for each object: class and the outline's corners as shares of width and height. "
            "Objects are cut open at holes; outlines run a quarter of a pixel inside the object, so that tools which "
            "round corners down to pixels and tools which test pixel centres both get the object exactly",
            "`data.yaml`: the splits and the classes. Trainers need `train` and `val`; another split stands in for one "
            "that no item is in",
            "YOLO cannot represent pixels of no class (255): to a trainer they are background. `lost.ignore_pixels` in "
            "the manifest counts them",
        ]

    def close(self) -> None:
        """Nothing to free."""


def _quoted(text: str) -> str:
    """A text in YAML's double quotes (YAML 1.2, 5.7), with unprintable characters as their code points."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
