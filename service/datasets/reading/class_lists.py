"""Files that list a dataset's classes, under the names that annotation tools give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.datasets.classes import ClassList, Colour, DatasetClass, TooManyClasses, check_count
from service.datasets.reading.class_tables import parse_labelmap, parse_names, parse_table
from service.datasets.reading.tree import read_text
from service.errors import InvalidDataset
from service.kit.documents import DocumentRefused, parse_json

_HELP = (
    'give one: dataset.json with {"classes": [{"index": 0, "name": "background", "colour": [0, 0, 0]}, ...]}, '
    'labelmap.txt with "name:r,g,b::" lines, class_dict.csv with name,r,g,b, or classes.txt with one name per line'
)


def find_classes(root: Path) -> ClassList | None:
    """The classes that a file in ``root`` lists, or None without such a file. Raises InvalidDataset for a bad list."""
    path = class_file(root)
    return None if path is None else _read(path)


def other_lists(root: Path) -> dict[str, str]:
    """The files in ``root`` that list other classes than the one that is read, each with its names."""
    files, found = class_files(root), {}
    for path in files if len(files) > 1 else ():
        try:
            found[path.name] = _read(path).names
        except InvalidDataset:
            continue  # a file of this name that lists no classes
    first = [name.casefold() for name in found.get(files[0].name, ())] if files else []
    return {file: ", ".join(names) for file, names in found.items() if [name.casefold() for name in names] != first}


def _read(path: Path) -> ClassList:
    try:
        return _READERS[path.name.casefold()](read_text(path))
    except InvalidDataset:
        raise
    except TooManyClasses as error:
        raise InvalidDataset(f"{path.name}: {error}") from None
    except Exception as error:
        raise InvalidDataset(f"{path.name} is not a valid list of classes ({_short(error)}); {_HELP}") from None


def class_file(root: Path) -> Path | None:
    """The file in ``root`` that lists the classes, by its name in any case: the first of :data:`CLASS_FILES`."""
    return next(iter(class_files(root)), None)


def class_files(root: Path) -> list[Path]:
    """All files in ``root`` with the name of a class list, in the order of :data:`CLASS_FILES`."""
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.name.casefold() in _READERS and path.is_file():
            found.setdefault(path.name.casefold(), path)
    return [found[name] for name in CLASS_FILES if name in found]


def require_classes(root: Path, given: ClassList | None) -> ClassList:
    """The given classes, or those found in ``root``. Raises InvalidDataset that explains how to list them."""
    classes = given or find_classes(root)
    if classes is None:
        raise InvalidDataset(f"the dataset has no list of its classes; {_HELP}")
    return classes


def class_list(
    names: list[str],
    colours: dict[str, Colour],
    background: str | bool | None = True,
    *,
    added_background: bool = False,
) -> ClassList:
    """The classes listed in a format's own file; ``added_background``: all but one. Raises InvalidDataset."""
    try:
        check_count(len(names), added_background=added_background)
        return ClassList.of(names, colours, background=background)
    except TooManyClasses as error:
        raise InvalidDataset(f"the dataset has too many classes: {error}") from None
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
    about = parse_json(text)
    if not isinstance(about, dict):
        raise ValueError(f"it is a JSON {type(about).__name__}; it should be an object, {{...}}")
    entries = sorted(about["classes"], key=lambda entry: entry["index"])
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
        listed = ClassList.of(names, colours, background=background)
    else:
        listed = ClassList.of(names, colours)
    return ClassList(classes=tuple(_with_words(one, entry) for one, entry in zip(listed.classes, entries, strict=True)))


def _with_words(listed: DatasetClass, entry: dict[str, Any]) -> DatasetClass:
    """The class with its other words, and whether requests may name it, as ``dataset.json`` has them."""
    aliases, queryable = entry.get("aliases") or (), entry.get("queryable")
    if not isinstance(entry["name"], str) or not isinstance(aliases, list | tuple):
        raise ValueError(f"name is text and aliases a list of text, unlike in {entry}")
    if not all(isinstance(word, str) for word in aliases) or not isinstance(queryable, bool | None):
        raise ValueError(f"aliases is a list of text, and queryable true or false, unlike in {entry}")
    return listed.model_copy(update={"aliases": tuple(aliases), "queryable": queryable})


def _from_id2label(text: str) -> ClassList:
    named = {int(index): str(name) for index, name in parse_json(text).items()}
    if sorted(named) != list(range(len(named))):
        raise ValueError("its indices are not 0, 1, 2, ... without gaps")
    return ClassList.of([named[index] for index in range(len(named))])


_READERS: dict[str, Callable[[str], ClassList]] = {
    "dataset.json": _from_json,
    "labelmap.txt": parse_labelmap,
    "label_map.txt": parse_labelmap,
    "class_dict.csv": parse_table,
    "class_dict.txt": parse_table,
    "class_dict_seg.csv": parse_table,
    "label_colors.txt": parse_table,
    "label_colours.txt": parse_table,
    "colormap.txt": parse_table,
    "color_map.txt": parse_table,
    "_classes.csv": parse_table,
    "classes.csv": parse_table,
    "id2label.json": _from_id2label,
    "classes.txt": parse_names,
    "class_names.txt": parse_names,
    "obj.names": parse_names,
    "codes.txt": parse_names,
    "labels.txt": parse_names,
}
CLASS_FILES = tuple(_READERS)
"""The names of files that list classes; those with colours come before those without, because they say more."""


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(_fault_text(fault["msg"], fault["input"]) for fault in error.errors()[:3])
    ours = type(error) is ValueError or isinstance(error, DocumentRefused)
    return (str(error) if ours else f"{type(error).__name__}: {error}")[:300]


def _fault_text(message: str, value: Any) -> str:
    """A validation message; pydantic's own ones get the value, which this project's validators already name."""
    ours = message.removeprefix("Value error, ")
    return ours if ours != message else f"{message}, not {value!r:.60}"
