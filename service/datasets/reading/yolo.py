"""The source for YOLO-seg: ``data.yaml``, images, and a text file of polygons for each."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.filling import fill_with_border
from service.datasets.patches import FillBudget
from service.datasets.reading.class_lists import class_list, read_colour
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.painting import PaintedObject, paint
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import read_text, relative, stem_in
from service.datasets.reading.yolo_files import YoloImages, describe, label_file, label_folders, loose_labels
from service.datasets.splits import known_split
from service.errors import InvalidDataset

_MAX_LABEL_BYTES = 16 << 20
_MAX_LINE_CHARS = 4_000_000


class YoloSource:
    """Source of the images in the folders that ``data.yaml`` names, with their text files in ``labels/``.

    Without ``data.yaml``, images and labels lie as Label Studio writes them, with ``classes.txt``. Polygons are filled
    as trainers fill them: corners rounded down to pixels, borders included. Pixels of no object are the background: the
    class that a Twinset export names, or else an added class 0.
    """

    format = "yolo"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        self._described = describe(root)
        names, colours = self._described.names, self._described.colours
        entry = self._described.about.get("background", "not stated")
        background: str | None = None
        index = 0
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            background = entry["name"]
            index = entry["index"] if isinstance(entry.get("index"), int) and 0 <= entry["index"] <= len(names) else 0
            if (colour := read_colour(entry.get("colour"))) is not None:
                colours[background] = colour
        elif entry is not None:
            background = next(name for name in ("background", "_background_", "no object") if name not in names)
        listed = list(names) if background is None else [*names[:index], background, *names[index:]]
        colours = colours if len(set(colours.values())) == len(colours) else {}
        found = class_list(listed, colours, background=background, added_background=len(listed) > len(names))
        self.classes = found.replaced_by(classes)
        self._labels = [found.names.index(name) for name in names]
        self._background = IGNORE if background is None else listed.index(background)
        self._described.groups(Findings())  # raises now if there are no images

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries, split by split in the order of the images' paths."""
        described = self._described
        for note in described.notes:
            findings.add("assumed", relative(self.root, described.file or self.root), note)
        read: dict[Path, str | None] = {}
        folders: set[Path] = set()
        groups = described.groups(findings)
        for folder in described.unnamed(groups):
            findings.add("assumed", folder, "data.yaml does not name this folder, so it is not read")
        for group in groups:
            again = [image for image in group.images if image in read]
            for image in again[:1]:
                detail = f"{len(again)} of {group.split} are of {read[image]} too, and are read once, as {read[image]}"
                findings.add("assumed", relative(self.root, image), detail)
            fresh = [image for image in dict.fromkeys(group.images) if image not in read]
            read |= dict.fromkeys(fresh, group.split)
            if fresh or group.folder not in folders:
                yield from self._entries(group, fresh, findings)
            folders.add(group.folder)

    def _entries(self, group: YoloImages, fresh: list[Path], findings: Findings) -> Iterator[Entry]:
        """The entries of a split's ``fresh`` images. An image without a label file has no objects, as trainers have it,
        unless no image of the split has one, or some label files fit no image: then its own is elsewhere."""
        labels = {image: label_file(self.root, image) for image in fresh}
        loose = loose_labels(self.root, group)
        for label in loose:
            detail = f"there is no image {label.stem} in {relative(self.root, group.folder)}/; give both the same name"
            findings.add("missing_partner", relative(self.root, label), detail)
        first_of: dict[Path, Path] = {}
        for image, label in labels.items():
            if (first := first_of.setdefault(label, image)) != image and label.is_file():
                detail = f"its labels are also those of {first.name}, for trainers find them by the stem alone"
                findings.add("assumed", relative(self.root, image), detail)
        elsewhere = None
        if loose:
            elsewhere = (
                f"label files there fit no image ({len(loose)}, such as {loose[0].name}); give both the same name"
            )
        elif not any(label.is_file() for label in labels.values()):
            there = ", ".join(label_folders(self.root)) or "no folder"
            elsewhere = f"no image of this split has one; label files are in {there}: put this image's at its place"
        for image, label in labels.items():
            if elsewhere and not label.is_file():
                detail = f"there is no {relative(self.root, label)}, and {elsewhere}, or an empty file for no object"
                findings.add("missing_partner", relative(self.root, image), detail)
                continue
            yield Entry(
                name=stem_in(group.folder, image),
                image=image,
                annotate=partial(self._annotate, label),
                split=group.split or known_split(image.relative_to(group.folder).parts[0]),
            )

    def _annotate(self, label: Path, width: int, height: int) -> Annotation:
        if not label.is_file():
            return paint((), height, width, self._background)
        try:
            text = read_text(label, _MAX_LABEL_BYTES)
        except InvalidDataset as error:
            raise EntryFault("bad_annotation", error.detail) from None
        budget = FillBudget()
        lines = ((number, line) for number, line in enumerate(io.StringIO(text), start=1) if line.strip())
        painted = (self._object(number, line, height, width, budget) for number, line in lines)
        return paint(painted, height, width, self._background)

    def _object(self, number: int, line: str, height: int, width: int, budget: FillBudget) -> PaintedObject:
        if len(line) > _MAX_LINE_CHARS:
            raise EntryFault(
                "bad_annotation",
                f"line {number} of its labels has {len(line)} characters; the limit is {_MAX_LINE_CHARS}. Draw the "
                "outline with fewer corners",
            )
        parts = line.split()
        if len(parts) == 5:
            raise EntryFault("bad_annotation", f"line {number} of its labels is a box; segmentation needs polygons")
        if len(parts) < 7 or len(parts) % 2 == 0:
            raise EntryFault(
                "bad_annotation",
                f"line {number} of its labels is not a class and at least 3 corners: class x1 y1 x2 y2 x3 y3 ...",
            )
        try:
            index, corners = _index(parts[0]), [float(part) for part in parts[1:]]
        except ValueError:
            raise EntryFault(
                "bad_annotation", f"line {number} of its labels holds a value that is not a number"
            ) from None
        if not all(math.isfinite(value) and -0.01 <= value <= 1.01 for value in corners):
            raise EntryFault(
                "bad_annotation",
                f"line {number} of its labels has corners outside 0 to 1; they are shares of width and height",
            )
        if not 0 <= index < len(self._labels):
            raise EntryFault(
                "unknown_labels",
                f"line {number} of its labels has class {index}; there are 0 to {len(self._labels) - 1}",
            )
        polygon = np.array(corners).reshape(-1, 2) * [width, height]
        try:
            return PaintedObject(fill_with_border(polygon, height, width, budget), self._labels[index])
        except ValueError as error:
            raise EntryFault("bad_annotation", f"line {number} of its labels: {error}") from None


def _index(text: str) -> int:
    """A class index, which some tools write as 0.0. Raises ValueError."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number)
