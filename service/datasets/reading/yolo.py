"""The source for YOLO-seg: ``data.yaml``, images, and a text file of polygons for each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from service.datasets.classes import IGNORE, ClassList, Colour
from service.datasets.filling import fill_with_border
from service.datasets.reading.class_lists import class_list, read_colour
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.painting import PaintedObject, paint
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import SPLIT_NAMES, files, images, read_text, relative
from service.errors import InvalidDataset

_MAX_YAML_BYTES = 1 << 20
_MAX_LABEL_BYTES = 64 << 20
_MAX_CORNERS = 1_000_000


class YoloSource:
    """Source of the images in the folders that ``data.yaml`` names, with their text files in ``labels/``.

    An image without a text file has no objects. Polygons are filled as trainers fill them: corners rounded down to
    pixels, borders included. Pixels of no object are the background: the class that a Twinset export names, or else an
    added class 0.
    """

    format = "yolo"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        self.root = root
        path = yaml_file(root) or named_yaml(root)
        if path is None:
            raise InvalidDataset("there is no data.yaml with names, and images/train or the like")
        about = _load(path)
        names, colours = _names(about), _colours(about)
        entry = about.get("background", "not stated")
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
        found = class_list(listed, colours if len(set(colours.values())) == len(colours) else {}, background=background)
        if classes is not None and classes.names != found.names:
            raise InvalidDataset(f"the file's classes are {', '.join(found.names)}, not {', '.join(classes.names)}")
        self.classes = classes or found
        self._labels = [found.names.index(name) for name in names]
        self._background = IGNORE if background is None else listed.index(background)
        self._path = path
        self._folders, self._missing = _split_folders(root, path.parent, about)
        if not self._folders:
            raise InvalidDataset(f"{path.name} names no folder of images in the dataset; write train: images/train")

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries, split by split in the order of the images' paths."""
        for split, named in self._missing:
            detail = f"its {split} is {named[:200]!r}, which is not a folder in the dataset"
            findings.add("missing_partner", relative(self.root, self._path), detail)
        for split, folder in self._folders:
            for image in images(folder):
                label = _label_file(self.root, image)
                yield Entry(
                    name=image.relative_to(folder).with_suffix("").as_posix(),
                    image=image,
                    annotate=partial(self._annotate, label),
                    split=split,
                )

    def _annotate(self, label: Path, width: int, height: int) -> Annotation:
        if not label.is_file():
            return Annotation(np.full((height, width), self._background, dtype=np.uint8))
        try:
            text = read_text(label, _MAX_LABEL_BYTES)
        except InvalidDataset as error:
            raise EntryFault("bad_annotation", error.detail) from None
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        painted = (self._object(number, line, height, width) for number, line in lines)
        return paint(painted, height, width, self._background)

    def _object(self, number: int, line: str, height: int, width: int) -> PaintedObject:
        parts = line.split()
        if len(parts) == 5:
            raise EntryFault("bad_annotation", f"line {number} of its labels is a box; segmentation needs polygons")
        if len(parts) < 7 or len(parts) % 2 == 0 or len(parts) > _MAX_CORNERS:
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
        return PaintedObject(fill_with_border(polygon, height, width), self._labels[index])


def _index(text: str) -> int:
    """A class index, which some tools write as 0.0. Raises ValueError."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number)


def named_yaml(root: Path) -> Path | None:
    """The file ``data.yaml`` or ``data.yml`` beside label files, whatever its contents; None without both."""
    found = next(
        (path for path in (root / "data.yaml", root / "data.yml") if path.is_file() and not path.is_symlink()), None
    )
    folders = [root / "labels", *(root / split / "labels" for split in SPLIT_NAMES)]
    if found is not None and any(next(files(folder, frozenset({".txt"})), None) for folder in folders):
        return found
    return None


def yaml_file(root: Path) -> Path | None:
    """The file that describes a YOLO set: ``data.yaml``, or another YAML file at the root that lists names."""
    paths = sorted([*root.glob("*.yaml"), *root.glob("*.yml")], key=lambda path: (path.stem != "data", path.name))
    for path in paths:
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_YAML_BYTES:
            try:
                if _names(_load(path)):
                    return path
            except InvalidDataset:
                continue
    return None


def _load(path: Path) -> dict[Any, Any]:
    try:
        about = yaml.safe_load(read_text(path, _MAX_YAML_BYTES))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidDataset(f"{path.name} is not valid YAML ({str(error).splitlines()[0]}); save it anew") from None
    if not isinstance(about, dict):
        raise InvalidDataset(f"{path.name} must list what YOLO expects: names, and the folders of train and val")
    return about


def _names(about: dict[Any, Any]) -> list[str]:
    names = about.get("names")
    if isinstance(names, dict) and sorted(names, key=str) and all(isinstance(key, int) for key in names):
        if sorted(names) != list(range(len(names))):
            raise InvalidDataset("data.yaml has names that are not numbered 0, 1, 2, ... without gaps")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int, float)) for name in names):
        raise InvalidDataset("data.yaml has no names; give a list, or a name for each of 0, 1, 2, ...")
    return [str(name) for name in names]


def _colours(about: dict[Any, Any]) -> dict[str, Colour]:
    given, names = about.get("colours"), _names(about)
    if not isinstance(given, dict):
        return {}
    read = {names[number]: read_colour(given.get(number)) for number in range(len(names))}
    return {name: colour for name, colour in read.items() if colour is not None}


def _split_folders(
    root: Path, beside: Path, about: dict[Any, Any]
) -> tuple[list[tuple[str, Path]], list[tuple[str, str]]]:
    """The folders of images by split, each once; and the folders named for a split that do not exist."""
    found: dict[Path, str] = {}
    missing = []
    known = {"path", "names", "nc", "colours", "background", "download"}
    for key in [key for key in about if isinstance(key, str) and key not in known]:
        value = about[key]
        for name in value if isinstance(value, list) else [value]:
            folder = _folder(root, beside, name) if isinstance(name, str) else None
            if folder is not None:
                found.setdefault(folder, SPLIT_NAMES.get(key, key))
            elif key in SPLIT_NAMES and isinstance(name, str) and name.strip():
                missing.append((key, name))
    return [(split, folder) for folder, split in found.items()], missing


def _folder(root: Path, beside: Path, name: str) -> Path | None:
    """A folder named in ``data.yaml``, if it is in the dataset; some tools write ``../train/images`` for it."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    for start in range(len(parts)):
        folder = beside.joinpath(*parts[start:])
        if folder.is_dir() and folder.resolve().is_relative_to(root.resolve()):
            return folder
    return None


def _label_file(root: Path, image: Path) -> Path:
    """The label file of an image: ``labels`` replaces the last ``images`` in its path, as trainers expect."""
    parts = list(image.relative_to(root).parts)
    indices = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if indices:
        parts[indices[-1]] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")
