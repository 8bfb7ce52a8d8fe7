"""The source for COCO: polygons and run-length encodings of objects in JSON files."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from service.datasets.classes import IGNORE, ClassList, Colour
from service.datasets.filling import fill_coco
from service.datasets.reading.class_lists import class_list, read_colour
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.painting import PaintedObject, paint
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import SPLIT_NAMES, inside, read_text, relative
from service.datasets.rle import RleInvalid, as_runs, decode
from service.errors import InvalidDataset

IGNORE_NAME = "ignore"
MAX_JSON_BYTES = 1 << 30
_MEMBERS = ("images", "annotations", "categories")
_MAX_DISTANCE = 3.0
"""The maximum distance of a polygon's corner, in image sides; farther corners are mistakes, and costly to fill."""


class CocoSource:
    """Source of one or several COCO files and the images that they name.

    A file's annotations are in memory while it is read, its images are not. Pixels of no object are the background: the
    class that a Twinset export names, a category "background", or an added class 0. Where objects overlap, the smaller
    one wins. A crowd region has its class but no instance; a category "ignore" is not a class: its pixels are 255.
    """

    format = "coco"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        self._files = coco_files(root)
        if not self._files:
            raise InvalidDataset(
                "there is no COCO file: JSON with images, annotations and categories, in annotations/ or beside the "
                "images"
            )
        tables = [_categories(_load(path), path.name) for path in self._files]
        if any(table != tables[0] for table in tables[1:]):
            raise InvalidDataset("the dataset's COCO files list different categories; give all of them the same list")
        self.classes, self._labels, self._background = tables[0].classes()
        if classes is not None and classes.names != self.classes.names:
            raise InvalidDataset(
                f"the file's classes are {', '.join(self.classes.names)}, not {', '.join(classes.names)}"
            )
        self.classes = classes or self.classes

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries, file by file in the order of their images."""
        for path in self._files:
            data = _load(path)
            split = _split_of(path)
            folders = self._image_folders(path)
            annotations: dict[Any, list[Any]] = {}
            for annotation in data["annotations"]:
                if isinstance(annotation, dict):
                    annotations.setdefault(_key(annotation.get("image_id")), []).append(annotation)
            ids = Counter(_key(image.get("id")) for image in data["images"] if isinstance(image, dict))
            for image in data["images"]:
                name = image.get("file_name") if isinstance(image, dict) else None
                if not isinstance(name, str):
                    findings.add("bad_annotation", relative(self.root, path), "an image has no file_name")
                    continue
                found = next((file for folder in folders if (file := inside(self.root, f"{folder}{name}"))), None)
                if found is None:
                    findings.add("missing_partner", name, f"{path.name} names it, but it is not in the dataset")
                    continue
                key = _key(image.get("id"))
                if ids[key] > 1:
                    detail = (
                        f"{path.name} lists {ids[key]} images with the id {key!r:.40}, so their annotations are "
                        "ambiguous; give each image its own id"
                    )
                    findings.add("bad_annotation", name, detail)
                    continue
                caption = image.get("caption")
                yield Entry(
                    name=Path(name.replace("\\", "/")).with_suffix("").as_posix(),
                    image=found,
                    annotate=partial(
                        self._annotate, annotations.pop(key, []), (image.get("width"), image.get("height"))
                    ),
                    split=split,
                    caption=caption if isinstance(caption, str) else None,
                )
            listed = {_key(image.get("id")) for image in data["images"] if isinstance(image, dict)}
            count = sum(len(some) for key, some in annotations.items() if key not in listed)
            if count:
                subject = "1 annotation is of an image" if count == 1 else f"{count} annotations are of images"
                findings.add("missing_partner", relative(self.root, path), f"{subject} that it does not list")

    def _annotate(
        self, annotations: Sequence[dict[str, Any]], listed: tuple[Any, Any], width: int, height: int
    ) -> Annotation:
        if annotations and all(type(side) is int for side in listed) and listed != (width, height):
            raise EntryFault(
                "size_differs",
                f"the file is {width} x {height} px, but listed with {listed[0]} x {listed[1]}: its annotations are of "
                "another size",
            )
        return paint(
            (self._object(annotation, height, width) for annotation in annotations), height, width, self._background
        )

    def _object(self, annotation: dict[str, Any], height: int, width: int) -> PaintedObject:
        number = annotation.get("id")
        label = self._labels.get(_key(annotation.get("category_id")))
        if label is None:
            raise EntryFault(
                "unknown_labels",
                f"annotation {number} has the category {annotation.get('category_id')!r:.40}, which is not listed",
            )
        try:
            mask = _mask(annotation.get("segmentation"), height, width)
        except (RleInvalid, ValueError) as error:
            raise EntryFault("bad_annotation", f"annotation {number}: {error}") from None
        return PaintedObject(mask, label, single=not annotation.get("iscrowd") and label != IGNORE)

    def _image_folders(self, path: Path) -> list[str]:
        """The folders that may hold the images, relative to the root: beside the file, or named after it."""
        beside = relative(self.root, path.parent)
        named = path.stem.removeprefix("instances_")
        folders = [f"images/{named}", named, "images", f"data/{named}", "data", beside, f"{beside}/images", "."]
        return [f"{folder}/" for folder in folders]


class _Categories:
    """The categories of a file by id, the ids of its "ignore" category, and its entry for the background."""

    def __init__(self, entries: list[tuple[Any, str, Colour | None]], void: set[Any], background: Any) -> None:
        self.real = [entry for entry in entries if entry[0] not in void]
        self.void = void
        self.background = background

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Categories):
            return NotImplemented
        return self.real == other.real

    __hash__ = None  # type: ignore[assignment]

    def classes(self) -> tuple[ClassList, dict[Any, int], int]:
        """The class list, the class index of each category id, and the label of pixels without annotation."""
        real = self.real
        names = [name for _, name, _ in real]
        colours = {name: colour for _, name, colour in real if colour is not None}
        background: str | None = None
        if isinstance(self.background, dict) and isinstance(self.background.get("name"), str):
            background = self.background["name"]
            index = self.background.get("index")
            names.insert(index if isinstance(index, int) and 0 <= index <= len(names) else 0, background)
            if (colour := read_colour(self.background.get("color"))) is not None:
                colours[background] = colour
        elif self.background != "none":
            background = next((name for name in names if name.casefold() == "background"), None)
            if background is None:
                background = "background"
                names.insert(0, background)
        if len(set(colours.values())) < len(colours):
            colours = {}
        listed = class_list(names, colours, background=background)
        labels = {key: listed.names.index(name) for key, name, _ in real}
        labels |= dict.fromkeys(self.void, IGNORE)
        return listed, labels, IGNORE if listed.background is None else listed.background.index


def coco_files(root: Path) -> list[Path]:
    """The COCO files of a dataset: in ``annotations/``, at its root, or one folder down beside the images."""
    places = [
        *sorted((root / "annotations").glob("*.json")),
        *sorted(root.glob("*.json")),
        *sorted(root.glob("*/*.json")),
    ]
    return [path for path in dict.fromkeys(places) if not path.is_symlink() and _looks_like_coco(path)]


def _looks_like_coco(path: Path) -> bool:
    """Whether the file contains the names of COCO's members; the JSON is parsed only when the source opens it."""
    missing = {f'"{member}"'.encode() for member in _MEMBERS}
    tail = b""
    with path.open("rb") as file:
        while missing and (piece := file.read(1 << 20)):
            missing = {member for member in missing if member not in tail + piece}
            tail = piece[-16:]
    return not missing


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise InvalidDataset(f"{path.name} is not valid JSON ({error}); save it anew") from None
    if not isinstance(data, dict) or not all(isinstance(data.get(member), list) for member in _MEMBERS):
        raise InvalidDataset(f"{path.name} is not COCO: it needs the lists {', '.join(_MEMBERS)}")
    return data


def _categories(data: dict[str, Any], name: str) -> _Categories:
    info = data.get("info")
    background = info.get("background", "not stated") if isinstance(info, dict) else "not stated"
    entries, void = [], set()
    seen: dict[int, str] = {}
    for entry in data["categories"]:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("name"), str)
            or not isinstance(entry.get("id"), int)
        ):
            raise InvalidDataset(f"{name}: a category needs a whole number as id, and a name, unlike {str(entry)[:80]}")
        if entry["id"] in seen:
            both = f"{seen[entry['id']]!r:.60} and {entry['name']!r:.60}"
            raise InvalidDataset(f"{name}: the categories {both} have the id {entry['id']}; give each its own")
        seen[entry["id"]] = entry["name"]
        # a Twinset export may have a class of that name besides the category of pixels without a class
        if entry["name"] == IGNORE_NAME and (background == "not stated" or entry.get("supercategory") != IGNORE_NAME):
            void.add(entry["id"])
        entries.append((entry["id"], entry["name"], read_colour(entry.get("color"))))
    return _Categories(sorted(entries, key=lambda entry: entry[0]), void, "none" if background is None else background)


def _mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            raise RleInvalid(f"its size is {str(segmentation.get('size'))[:40]}, its image's [{height}, {width}]")
        return decode(as_runs(segmentation.get("counts")), height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it has no segmentation; a box alone is not a mask")
    return fill_coco([_polygon(part, height, width) for part in segmentation], height, width)


def _polygon(part: Any, height: int, width: int) -> np.ndarray:
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
        raise ValueError("a polygon must be a list of at least 3 corners: x1, y1, x2, y2, ...")
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in part):
        raise ValueError("a polygon's corners must be finite numbers")
    points = np.array(part, dtype=np.float64).reshape(-1, 2)
    if (np.abs(points) > _MAX_DISTANCE * np.array([width, height]) + 16).any():
        raise ValueError(f"a corner lies far outside of the {width} x {height} px of its image")
    return points


def _split_of(path: Path) -> str | None:
    """The split named by the file, or else by its folder; a Twinset export may name any split."""
    name = path.stem.removeprefix("instances_")
    if name != path.stem and name.rstrip("0123456789") not in SPLIT_NAMES:
        return name
    return SPLIT_NAMES.get(name.rstrip("0123456789")) or SPLIT_NAMES.get(path.parent.name)


def _key(value: Any) -> Any:
    """An id as a key: a number or text, or None for anything else."""
    return value if isinstance(value, (int, str)) else None
