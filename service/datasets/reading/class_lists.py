"""Files that list a dataset's classes: dataset.json, labelmap.txt, class_dict.csv, classes.txt."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.datasets.classes import ClassList, Colour
from service.datasets.reading.tree import read_text
from service.errors import InvalidDataset

_HELP = (
    'give one: dataset.json with {"classes": [{"index": 0, "name": "background", "colour": [0, 0, 0]}, ...]}, '
    'labelmap.txt with "name:r,g,b::" lines, class_dict.csv with name,r,g,b, or classes.txt with one name per line'
)
_COLOURED = re.compile(r":\d+,\d+,\d+:[^:]*:[^:]*$")


def find_classes(root: Path) -> ClassList | None:
    """The classes that a file in ``root`` lists, or None without such a file. Raises InvalidDataset for a bad list."""
    readers: dict[str, Callable[[str], ClassList]] = {
        "dataset.json": _from_json,
        "labelmap.txt": _from_labelmap,
        "class_dict.csv": _from_csv,
        "classes.txt": _from_lines,
    }
    for name, read in readers.items():
        if (root / name).is_file():
            try:
                return read(read_text(root / name))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise InvalidDataset(f"{name} is not a valid list of classes ({_short(error)}); {_HELP}") from None
    return None


def require_classes(root: Path, given: ClassList | None) -> ClassList:
    """The given classes, or those found in ``root``. Raises InvalidDataset that explains how to list them."""
    classes = given or find_classes(root)
    if classes is None:
        raise InvalidDataset(f"the dataset has no list of its classes; {_HELP}")
    return classes


def class_list(names: list[str], colours: dict[str, Colour], background: str | bool | None = True) -> ClassList:
    """The classes listed in a format's own file. Raises InvalidDataset."""
    try:
        return ClassList.of(names, colours, background=background)
    except ValueError as error:
        raise InvalidDataset(f"the dataset's classes are not valid: {_short(error)}") from None


def read_colour(value: Any) -> Colour | None:
    """A colour given as ``[r, g, b]`` or ``"#rrggbb"``; None for anything else."""
    if isinstance(value, str) and value.startswith("#") and len(value) == 7:
        try:
            value = list(bytes.fromhex(value[1:]))
        except ValueError:
            return None
    if isinstance(value, list) and len(value) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in value):
        return (value[0], value[1], value[2])
    return None


def _from_json(text: str) -> ClassList:
    entries = sorted(json.loads(text)["classes"], key=lambda entry: entry["index"])
    names = [str(entry["name"]) for entry in entries]
    if [entry["index"] for entry in entries] != list(range(len(entries))):
        raise ValueError("its indices are not 0, 1, 2, ... without gaps")
    found = {
        name: read_colour(entry.get("colour") or entry.get("original_colour"))
        for name, entry in zip(names, entries, strict=True)
    }
    colours = {name: colour for name, colour in found.items() if colour is not None}
    if len(set(colours.values())) < len(colours):
        colours = {}
    if any("background" in entry for entry in entries):
        background = next(
            (name for name, entry in zip(names, entries, strict=True) if entry.get("background") is True), None
        )
        return ClassList.of(names, colours, background=background)
    return ClassList.of(names, colours)


def _from_labelmap(text: str) -> ClassList:
    names, colours = [], {}
    for line in text.splitlines():
        # a line with # is a comment, unless it gives a colour: then # is part of the class's name
        if line.strip() and (not line.startswith("#") or _COLOURED.search(line)):
            # the name may hold colons; the other fields never do
            name, colour, *_ = line.rstrip("\n").rsplit(":", 3)
            names.append(name)
            if colour:
                colours[name] = _rgb(colour.split(","))
    return ClassList.of(names, colours)


def _from_csv(text: str) -> ClassList:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows and not rows[0][1].strip().isdigit():
        rows = rows[1:]
    names = [row[0].strip() for row in rows]
    return ClassList.of(names, {name: _rgb(row[1:4]) for name, row in zip(names, rows, strict=True)})


def _from_lines(text: str) -> ClassList:
    return ClassList.of([line.strip() for line in text.splitlines() if line.strip()])


def _rgb(parts: list[str]) -> Colour:
    red, green, blue = (int(part) for part in parts)
    return (red, green, blue)


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(_fault_text(fault["msg"], fault["input"]) for fault in error.errors()[:3])
    return f"{type(error).__name__}: {error}"[:200]


def _fault_text(message: str, value: Any) -> str:
    """A validation message; pydantic's own ones get the value, which this project's validators already name."""
    ours = message.removeprefix("Value error, ")
    return ours if ours != message else f"{message}, not {value!r:.60}"
