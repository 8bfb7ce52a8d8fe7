"""The JSON files of a dataset in Datumaro's own format: which they are, and their labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.datasets.classes import Colour
from service.datasets.reading.class_lists import read_colour
from service.datasets.reading.coco_files import (
    IGNORE_NAME,
    MAX_JSON_BYTES,
    CocoCategories,
    coco_id,
    grouping_ids,
    shared_categories,
)
from service.datasets.reading.tree import read_bytes, visible
from service.errors import InvalidDataset
from service.kit.documents import DocumentRefused, parse_json

_MEMBERS = (re.compile(rb'"categories"\s{0,40}:\s{0,40}\{'), re.compile(rb'"items"\s{0,40}:\s{0,40}\['))
"""COCO's categories are a list, and it has no items."""
_VERSIONS = (None, "legacy", "1.0")
_PIECE_BYTES, _OVERLAP_BYTES = 1 << 20, 128


def datumaro_files(root: Path) -> list[Path]:
    """The files of Datumaro's format: in ``annotations/``, or at the root."""
    return [path for path in visible(root, "annotations/*.json", "*.json") if _looks_like_datumaro(path)]


def load_datumaro(path: Path) -> dict[str, Any]:
    """The members of a file. Raises InvalidDataset for another file, and for a version that is not read."""
    try:
        data = parse_json(read_bytes(path, MAX_JSON_BYTES))
    except DocumentRefused as error:
        raise InvalidDataset(f"{path.name} cannot be read: {error}; save it anew") from None
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("items"), list)
        or not isinstance(data.get("categories"), dict)
    ):
        raise InvalidDataset(f"{path.name} is not Datumaro's: it needs the list 'items' and the object 'categories'")
    if (version := data.get("dm_format_version")) not in _VERSIONS:
        raise InvalidDataset(
            f"{path.name} has the dm_format_version {str(version)[:40]!r}; 1.0 is read. Export the dataset as COCO"
        )
    return data


def read_labels(paths: Sequence[Path]) -> CocoCategories:
    """The labels that all files share, by index. Raises InvalidDataset, naming two files whose labels differ."""
    listed = {}
    used: set[Any] = set()
    for path in paths:
        data = load_datumaro(path)
        listed[path] = _labels(data["categories"], path.name)
        used |= {coco_id(one.get("label_id")) for item in data["items"] for one in annotations_of(item) or ()}
    tables = {}
    for path, (labels, colours) in listed.items():
        left_out = grouping_ids(labels) - used
        entries = [(one["id"], one["name"], colours.get(one["id"])) for one in labels if one["id"] not in left_out]
        void = {one["id"] for one in labels if one["name"] == IGNORE_NAME}
        tables[path] = CocoCategories(entries, void, "not stated")
    return shared_categories(tables)


def annotations_of(item: Any) -> list[dict[str, Any]] | None:
    """The annotations of an item; None if it has no list of them, or the list holds something else."""
    found = item.get("annotations") if isinstance(item, dict) else None
    return found if isinstance(found, list) and all(isinstance(one, dict) for one in found) else None


def _labels(categories: Mapping[str, Any], name: str) -> tuple[list[dict[str, Any]], dict[Any, Colour]]:
    """The labels with their index, name and parent, and the colours that some have."""
    entries = _list_in(categories, "label", "labels")
    if not entries:
        raise InvalidDataset(f"{name} lists no labels (categories.label.labels); give the dataset labels")
    labels = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InvalidDataset(f"{name}: label {index} needs a name, unlike {str(entry)[:80]}")
        labels.append({"id": index, "name": entry["name"], "supercategory": entry.get("parent")})
    return labels, dict(_colours(_list_in(categories, "mask", "colormap")))


def _list_in(categories: Mapping[str, Any], kind: str, member: str) -> list[Any]:
    group = categories.get(kind)
    found = group.get(member) if isinstance(group, dict) else None
    return found if isinstance(found, list) else []


def _colours(colormap: Iterable[Any]) -> Iterable[tuple[Any, Colour]]:
    for entry in colormap:
        if isinstance(entry, dict) and (colour := read_colour([entry.get(channel) for channel in "rgb"])) is not None:
            yield coco_id(entry.get("label_id")), colour


def _looks_like_datumaro(path: Path) -> bool:
    """Whether the file contains the beginnings of Datumaro's members; the JSON is parsed only when it is read."""
    missing = set(_MEMBERS)
    tail = b""
    with path.open("rb") as file:
        while missing and (piece := file.read(_PIECE_BYTES)):
            # in UTF-16, which JSON may be written in, every other byte of ASCII is zero
            text = tail + piece.replace(b"\0", b"")
            missing = {member for member in missing if not member.search(text)}
            tail = text[-_OVERLAP_BYTES:]
    return not missing
