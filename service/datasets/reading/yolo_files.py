"""The files of a YOLO dataset: ``data.yaml``, the images that it names, and their label files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from service.datasets.classes import Colour
from service.datasets.reading.class_lists import read_colour
from service.datasets.reading.locating import Locator
from service.datasets.reading.report import Findings
from service.datasets.reading.tree import (
    all_folders,
    files,
    images,
    inside,
    read_text,
    relative,
    split_folders,
    visible,
)
from service.datasets.splits import known_split
from service.errors import InvalidDataset
from service.kit.documents import DocumentRefused, parse_yaml

_MAX_YAML_BYTES = 1 << 20
_MAX_YAML_FILES = 20
"""Files that are parsed to see which one describes the dataset."""
_MAX_NAMED = 3
_NO_SPLITS = frozenset({"path", "names", "nc", "colours", "background", "download", "kpt_shape", "flip_idx"})
_TEXT = frozenset({".txt"})


@dataclass(frozen=True)
class YoloImages:
    """The images of a split, and the folder below which they lie."""

    split: str | None
    folder: Path
    images: list[Path]


@dataclass
class YoloDescription:
    """What ``data.yaml`` says: class names, and where the images are. Without one, both follow Label Studio's layout.

    ``notes`` are sentences about what it leaves open.
    """

    root: Path
    file: Path | None
    about: dict[Any, Any]
    names: list[str]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def colours(self) -> dict[str, Colour]:
        """The classes' colours in a Twinset export."""
        given = self.about.get("colours")
        if not isinstance(given, dict):
            return {}
        read = {name: read_colour(given.get(number)) for number, name in enumerate(self.names)}
        return {name: colour for name, colour in read.items() if colour is not None}

    def unnamed(self, groups: Sequence[YoloImages]) -> list[str]:
        """The folders of images of known splits that no entry names; trainers do not read them either."""
        named = {image.parent for group in groups for image in group.images} | {group.folder for group in groups}
        folders = [folder / "images" for folder, _ in split_folders(self.root)]
        folders += [folder for folder, _ in split_folders(self.root / "images")]
        return [relative(self.root, one) for one in folders if one not in named and next(images(one), None) is not None]

    def groups(self, findings: Findings) -> list[YoloImages]:
        """The images split by split, each once. Raises InvalidDataset if none of the named folders and lists exists."""
        named = [
            (key, value)
            for key in self.about
            if isinstance(key, str) and key not in _NO_SPLITS
            for value in (self.about[key] if isinstance(self.about[key], list) else [self.about[key]])
            if isinstance(value, str) and value.strip()
        ]
        if not any(known_split(key) for key, _ in named) and (found := text_labelled(self.root)):
            return [YoloImages(split, folder, list(images(folder))) for split, folder in found]
        groups = [group for key, value in named if (group := self._group(key, value, findings)) is not None]
        if not groups:
            asked = ", ".join(f"{key}: {value[:80]}" for key, value in named if known_split(key)) or "no train or val"
            raise InvalidDataset(
                f"{self._name} names {asked}, which is not in the dataset; {_image_folders(self.root)}, to be named "
                f"relative to {self._name}, as in 'train: images/train', or to its 'path', if it has one"
            )
        return groups

    @property
    def _name(self) -> str:
        return "data.yaml" if self.file is None else self.file.name

    @property
    def _places(self) -> list[Path]:
        """The folders that names are relative to, the most likely first."""
        beside = self.root if self.file is None else self.file.parent
        given = self.about.get("path")
        places = Locator(self.root, [beside, beside / "datasets"])
        base = places.find(given, folder=True) if isinstance(given, str) and given.strip() else None
        return [place for place in (base, beside, self.root) if place is not None]

    def _group(self, key: str, value: str, findings: Findings) -> YoloImages | None:
        locator = Locator(self.root, self._places)
        if (folder := locator.find(value, folder=True)) is not None:
            return YoloImages(key, folder, list(images(folder)))
        if value.lower().endswith(".txt") and (listing := locator.find(value)) is not None:
            return self._listed(key, listing, findings)
        looks_like_path = "/" in value and "://" not in value and not any(map(str.isspace, value))
        if (known_split(key) or looks_like_path) and self.file is not None:
            detail = f"its {key} is {value[:200]!r}, which is neither a folder nor a list of images in the dataset"
            findings.add("missing_partner", relative(self.root, self.file), detail)
        return None

    def _listed(self, key: str, listing: Path, findings: Findings) -> YoloImages | None:
        """The images that a text file lists, a path a line."""
        locator = Locator(self.root, [listing.parent, *self._places])
        found = []
        for line in filter(None, map(str.strip, read_text(listing).splitlines())):
            if (image := locator.find(line)) is not None:
                found.append(image)
            else:
                detail = f"{listing.name} lists it, but it is not in the dataset: {locator.missing(line)}"
                findings.add("missing_partner", line, detail)
        if not found:
            return None
        return YoloImages(key, Path(os.path.commonpath([image.parent for image in found])), found)


def describe(root: Path) -> YoloDescription:
    """The description of the dataset in ``root``. Raises InvalidDataset if there is none, or it is not of outlines."""
    path = yaml_file(root) or named_yaml(root)
    if path is None:
        if not (found := text_labelled(root)):
            raise InvalidDataset("there is no data.yaml with names, and images/train or the like")
        return YoloDescription(root, None, {}, _listed_names(root, found[0][1].parent / "labels"))
    about = _load(path)
    names = _names(about)
    if "kpt_shape" in about:
        raise InvalidDataset(
            f"{path.name} has kpt_shape {about['kpt_shape']!r:.40}: its labels are boxes with keypoints, not outlines; "
            "export the dataset for segmentation"
        )
    count = about.get("nc")
    if isinstance(count, int) and count != len(names):
        raise InvalidDataset(f"{path.name} has nc: {count}, but names of {len(names)} classes; correct the wrong one")
    return YoloDescription(root, path, about, names, _respelt(path, names))


def label_file(root: Path, image: Path) -> Path:
    """The label file of an image: ``labels`` replaces the last ``images`` in its path, as trainers expect."""
    parts = list(image.relative_to(root).parts)
    indices = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if indices:
        parts[indices[-1]] = "labels"
    expected = root.joinpath(*parts).with_suffix(".txt")
    spelt = (inside(root, relative(root, expected.with_suffix(suffix))) for suffix in (".txt", ".TXT", ".Txt"))
    return expected if expected.is_file() else next(filter(None, spelt), expected)


def loose_labels(root: Path, group: YoloImages) -> list[Path]:
    """The label files beside those of a split's images that fit no image there."""
    folders = {group.folder, *(image.parent for image in group.images)}
    known = {label_file(root, image) for folder in folders for image in images(folder)}
    labels = {path for folder in folders for path in files(label_file(root, folder / "x").parent, _TEXT)}
    return sorted(path for path in labels - known if _holds_labels(path))


def label_folders(root: Path) -> list[str]:
    """The folders with label files, for a message."""
    return sorted({relative(root, path.parent) for path in files(root, _TEXT) if _holds_labels(path)})[:_MAX_NAMED]


def text_labelled(root: Path) -> list[tuple[str | None, Path]]:
    """The folders ``images`` with label files in ``labels`` beside them, and their splits, as Label Studio writes."""
    return [
        (split, folder / "images")
        for folder, split in all_folders(root)
        if (folder / "images").is_dir()
        and next(images(folder / "labels"), None) is None
        and any(_holds_labels(path) for path in files(folder / "labels", _TEXT))
    ]


def named_yaml(root: Path) -> Path | None:
    """The file ``data.yaml`` or ``data.yml`` beside label files, whatever its contents; None without both."""
    found = visible(root, "data.yaml", "data.yml")
    folders = [root / "labels", *(folder / "labels" for folder, _ in split_folders(root))]
    return found[0] if found and any(next(files(folder, _TEXT), None) for folder in folders) else None


def yaml_file(root: Path) -> Path | None:
    """The file that describes a YOLO set: ``data.yaml``, or another YAML file at the root that lists names."""
    found = sorted(visible(root, "*.yaml", "*.yml"), key=lambda path: (path.stem != "data", path.name))
    for path in found[:_MAX_YAML_FILES]:
        if path.stat().st_size <= _MAX_YAML_BYTES:
            try:
                if _names(_load(path)):
                    return path
            except InvalidDataset:
                continue
    return None


def _load(path: Path) -> dict[Any, Any]:
    try:
        about = parse_yaml(read_text(path, _MAX_YAML_BYTES))
    except DocumentRefused as error:
        raise InvalidDataset(f"{path.name} cannot be read: {error}; save it anew") from None
    if not isinstance(about, dict):
        raise InvalidDataset(f"{path.name} must list what YOLO expects: names, and the folders of train and val")
    return about


def _names(about: dict[Any, Any]) -> list[str]:
    names = about.get("names")
    if isinstance(names, dict) and names and all(str(key).isdecimal() for key in names):
        by_number = {int(key): name for key, name in names.items()}
        if sorted(by_number) != list(range(len(names))):
            raise InvalidDataset("data.yaml has names that are not numbered 0, 1, 2, ... without gaps")
        names = [by_number[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int, float)) for name in names):
        raise InvalidDataset("data.yaml has no names; give a list, or a name for each of 0, 1, 2, ...")
    return [str(name) for name in names]


def _respelt(path: Path, names: list[str]) -> list[str]:
    """Sentences about names that YAML reads as a truth value or another number, as trainers do too."""
    written = parse_yaml(read_text(path, _MAX_YAML_BYTES), plain=True).get("names")
    written = [written[key] for key in sorted(written, key=int)] if isinstance(written, dict) else written
    return [
        f"the class that is written {raw} is read as {name}, as YAML has it; put quotes around it: {raw!r}"
        for raw, name in zip(written, names, strict=False)
        if raw != name
    ]


def _listed_names(root: Path, labels: Path) -> list[str]:
    found = [*visible(root, "classes.txt"), *visible(labels, "classes.txt")]
    names = [line.strip() for line in read_text(found[0]).splitlines() if line.strip()] if found else []
    if not names:
        raise InvalidDataset(
            f"{relative(root, labels)}/ holds YOLO label files, but the names of their classes are missing: write "
            "data.yaml with 'names: [...]', or classes.txt with one name per line"
        )
    return names


def _holds_labels(path: Path) -> bool:
    """Whether a text file is of label lines, numbers only, or empty; not a list of names or a note."""
    try:
        with path.open("rb") as file:
            first = file.readline(1 << 16).decode("utf-8-sig", "replace").split()
            return not first or (len(first) >= 5 and all(_is_number(part) for part in first[:5]))
    except OSError:
        return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _image_folders(root: Path) -> str:
    found = list(dict.fromkeys(relative(root, path.parent) for path in images(root)))
    return f"there are images in {', '.join(found[:_MAX_NAMED])}" if found else "there are no images at all"
