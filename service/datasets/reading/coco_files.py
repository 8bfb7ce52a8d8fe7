"""The JSON files of a COCO dataset: which hold outlines, their categories, and their ids."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from service.datasets.classes import IGNORE, ClassList, Colour
from service.datasets.reading.class_lists import class_list, read_colour
from service.datasets.reading.tree import read_bytes, visible
from service.errors import InvalidDataset
from service.kit.documents import DocumentRefused, parse_json

IGNORE_NAME = "ignore"
MAX_JSON_BYTES = 1 << 30
_MEMBERS = ("images", "annotations", "categories")
_OTHER_TASKS = ("person_keypoints", "captions", "stuff", "panoptic", "image_info", "labels")
"""What the names of COCO's files of other tasks begin with; they list the images of ``instances_*.json`` again."""


class CocoCategories:
    """The categories of a file by id, the ids of its "ignore" category, and its entry for the background."""

    def __init__(self, entries: list[tuple[Any, str, Colour | None]], void: set[Any], background: Any) -> None:
        self.real = [entry for entry in entries if entry[0] not in void]
        self.void = void
        self.background = background

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CocoCategories):
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
        listed = class_list(names, colours, background=background, added_background=len(names) > len(real))
        labels = {key: listed.names.index(name) for key, name, _ in real}
        labels |= dict.fromkeys(self.void, IGNORE)
        return listed, labels, IGNORE if listed.background is None else listed.background.index


def coco_files(root: Path) -> list[Path]:
    """The COCO files of a dataset: in ``annotations/``, at its root, or one folder down beside the images."""
    return [path for path in visible(root, "annotations/*.json", "*.json", "*/*.json") if not _missing_members(path)]


def cut_off_files(root: Path) -> list[Path]:
    """The files beside COCO's in ``annotations/`` that have its images and annotations, but no categories.

    The categories are mostly at a file's end.
    """
    found = visible(root, "annotations/*.json")
    return [path for path in found if _missing_members(path) == {"categories"} and not _of_another_task(path)]


def misplaced_files(root: Path) -> list[Path]:
    """The COCO files in folders of ``annotations/``, where they are not looked for: old ones mostly."""
    found = visible(root, "annotations/*/*.json")
    return [path for path in found if not _missing_members(path)]


def with_outlines(files: list[Path]) -> list[Path]:
    """The files without those of COCO's other tasks, if ``instances_*.json`` are among them."""
    if not any(path.stem.startswith("instances") for path in files):
        return files
    return [path for path in files if not _of_another_task(path)]


def load_coco(path: Path) -> dict[str, Any]:
    """The members of a COCO file. Raises InvalidDataset for another file."""
    try:
        data = parse_json(read_bytes(path, MAX_JSON_BYTES))
    except DocumentRefused as error:
        raise InvalidDataset(f"{path.name} cannot be read: {error}; save it anew") from None
    if not isinstance(data, dict) or not all(isinstance(data.get(member), list) for member in _MEMBERS):
        raise InvalidDataset(f"{path.name} is not COCO: it needs the lists {', '.join(_MEMBERS)}")
    return data


def read_categories(files: list[Path]) -> CocoCategories:
    """The categories that all files share. Raises InvalidDataset, naming two files whose categories differ."""
    tables: dict[Path, CocoCategories] = {}
    groups: dict[Path, set[Any]] = {}
    used: set[Any] = set()
    for path in files:
        data = load_coco(path)
        tables[path], groups[path] = _categories(data, path.name), grouping_ids(data["categories"])
        used |= {coco_id(entry.get("category_id")) for entry in data["annotations"] if isinstance(entry, dict)}
    for path, table in tables.items():
        table.real = [entry for entry in table.real if entry[0] not in groups[path] - used]
    return shared_categories(tables)


def shared_categories(tables: Mapping[Path, CocoCategories]) -> CocoCategories:
    """The categories of all files. Raises InvalidDataset, naming two files whose categories differ."""
    first, *rest = tables
    if other := next((path for path in rest if tables[path] != tables[first]), None):
        named = [f"{path.parent.name}/{path.name} lists {_listed(tables[path])}" for path in (first, other)]
        raise InvalidDataset(
            f"{' and '.join(named)}; give both the same categories, or put one of them into a dataset of its own"
        )
    return tables[first]


def coco_id(value: Any) -> Any:
    """An id as a key, equal as for the COCO API: 1.0 is 1, and "1" is not; None for what is no id."""
    return value if isinstance(value, (int, str)) or (isinstance(value, float) and math.isfinite(value)) else None


def _missing_members(path: Path) -> set[str]:
    """Which of COCO's members are not named in a file; the JSON is parsed only when the source opens it."""
    missing = {f'"{member}"'.encode(): member for member in _MEMBERS}
    tail = b""
    with path.open("rb") as file:
        while missing and (piece := file.read(1 << 20)):
            # in UTF-16, which JSON may be written in, every other byte of ASCII is zero
            text = tail + piece.replace(b"\0", b"")
            missing = {quoted: member for quoted, member in missing.items() if quoted not in text}
            tail = text[-16:]
    return set(missing.values())


def _of_another_task(path: Path) -> bool:
    return path.stem.startswith(_OTHER_TASKS)


def _categories(data: dict[str, Any], name: str) -> CocoCategories:
    info = data.get("info")
    background = info.get("background", "not stated") if isinstance(info, dict) else "not stated"
    entries, void = [], set()
    seen: dict[int, str] = {}
    for entry in data["categories"]:
        number = _whole(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not isinstance(entry.get("name"), str):
            raise InvalidDataset(f"{name}: a category needs a whole number as id, and a name, unlike {str(entry)[:80]}")
        if number in seen:
            both = f"{seen[number]!r:.60} and {entry['name']!r:.60}"
            raise InvalidDataset(f"{name}: the categories {both} have the id {number}; give each its own")
        seen[number] = entry["name"]
        # a Twinset export may have a class of that name besides the category of pixels without a class
        if entry["name"] == IGNORE_NAME and (background == "not stated" or entry.get("supercategory") != IGNORE_NAME):
            void.add(number)
        entries.append((number, entry["name"], read_colour(entry.get("color"))))
    return CocoCategories(
        sorted(entries, key=lambda entry: entry[0]), void, "none" if background is None else background
    )


def _whole(value: Any) -> int | None:
    """A whole number, which some tools write as 1.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def grouping_ids(categories: Iterable[Mapping[str, Any]]) -> set[Any]:
    """The ids of the categories that only group others, such as the first one of every Roboflow export."""
    entries = list(categories)
    parents = {parent for entry in entries if isinstance(parent := entry.get("supercategory"), str)}
    return {
        entry["id"]
        for entry in entries
        if entry.get("supercategory") in (None, "", "none") and entry["name"] in parents
    }


def _listed(table: CocoCategories) -> str:
    names = [name for _, name, _ in table.real]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
