"""Text lists of classes, a class a line, in the forms that annotation tools write them.

A line has a name, and may have a colour (three numbers, or ``#rrggbb``, before or after the name) and an index. The
columns are parted by commas, semicolons, tabs, bars or blanks; there may be a header and comments.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.datasets.classes import ClassList, Colour, check_count
from service.datasets.reading.tree import IMAGE_SUFFIXES
from service.kit.cells import read_cell

_DELIMITERS = ("\t", ";", ",", "|", ":", " ")
_NUMBER = re.compile(r"\d{1,9}")
_TRIPLE = re.compile(r"[(\[]?\s*(\d{1,3})\s*[\s,;]\s*(\d{1,3})\s*[\s,;]\s*(\d{1,3})\s*[)\]]?")
_COUNT = re.compile(r"[0-9]+[\s:,;.]\s*")
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_COMMENT = re.compile(r"//|#(?![0-9a-fA-F]{6})|sep=.$")
_LABELMAP_COLOUR = re.compile(r":\d+,\d+,\d+:[^:]*:[^:]*$")
_MAX_LINES = 1000
"""More than a list of too many classes needs to be counted exactly."""
_LABELME_IGNORE = "__ignore__"
"""The first line of LabelMe's lists, which stands for -1 in its masks; the next line is class 0."""
_HEADERS = frozenset(
    ("name", "names", "class", "classes", "label", "labels", "class_name", "classname", "class_names", "category")
)


@dataclass(frozen=True)
class _Row:
    """A line of a list: the class's name, and the numbers before and after it, where a ``#rrggbb`` is three."""

    name: str
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """A class: its name, its colour if that is given, its index if that is given."""

    name: str
    colour: Colour | None = None
    index: int | None = None


def parse_table(text: str) -> ClassList:
    """The classes of a list with columns, such as ``class_dict.csv``. Raises ValueError naming a line."""
    lines = _lines(text)
    entries = _entries(lines)
    if entries is not None:
        return _class_list(_in_order(entries))
    names = lines[1:] if lines and lines[0].strip('"').casefold() in _HEADERS else lines
    if any(delimiter in name for name in names for delimiter in "\t;,|"):
        raise ValueError(f"its line {_odd_line(lines)!r:.100} is not a name with red, green and blue")
    return _class_list([_Entry(name.strip('"')) for name in names])


def parse_names(text: str) -> ClassList:
    """The classes of a list of names, such as ``classes.txt``; colours and indices in it are read too."""
    lines = _lines(text)
    if lines[:1] == [_LABELME_IGNORE]:
        del lines[0]
    entries = _entries(lines)
    if entries is not None and (entries[0].colour is not None or _counts_up(lines)):
        return _class_list(_in_order(entries))
    files = [line for line in lines if any(line.casefold().endswith(suffix) for suffix in IMAGE_SUFFIXES)]
    if files:
        raise ValueError(f"it lists files such as {files[0]!r:.100}, not classes")
    if _counts_up(lines, first=1):
        raise ValueError(
            f"its lines are numbered from 1, such as {lines[0]!r:.100}, and the indices in masks from 0; write the "
            "background first, numbered 0, or the names without numbers"
        )
    counted = _counts_up(lines)
    return _class_list([_Entry((_COUNT.sub("", line) if counted else line).strip('"')) for line in lines])


def parse_labelmap(text: str) -> ClassList:
    """The classes of CVAT's ``labelmap.txt``: lines ``name:r,g,b:parts:actions``, the colour may be missing."""
    # a line with # is a comment, unless it gives a colour: then # is part of the class's name
    lines = [line for line in text.splitlines() if line.strip() and (line[0] != "#" or _LABELMAP_COLOUR.search(line))]
    if any(line.count(":") < 3 for line in lines):
        return parse_table(text)
    entries = []
    for line in lines:
        # the name may hold colons; the other fields never do
        name, colour, *_ = line.rsplit(":", 3)
        found = _TRIPLE.fullmatch(colour.strip())
        if colour.strip() and found is None:
            raise ValueError(f"its line {line!r:.100} has the colour {colour!r:.40}, which is not red,green,blue")
        entries.append(_Entry(read_cell(name), _colour(found.groups()) if found else None))
    return _class_list(entries)


def _lines(text: str) -> list[str]:
    """The lines that are neither blank nor comments, without surrounding blanks; Excel's ``sep=;`` is a comment."""
    stripped = [line.strip() for line in text.splitlines()]
    lines = [line for line in stripped if line and not _COMMENT.match(line)]
    if len(lines) > _MAX_LINES:
        check_count(len(lines))  # before a delimiter is sought for each
    return lines


def _entries(lines: Sequence[str]) -> list[_Entry] | None:
    """The lines as classes with a colour or an index, by the first delimiter that makes all of them so, or None."""
    for delimiter in _DELIMITERS:
        fields = [_fields(line, delimiter) for line in lines]
        if fields and _is_header(fields[0]):
            del fields[0]
        rows = [row for line in fields if (row := _row(line, delimiter)) is not None]
        if rows and len(rows) == len(fields) and (entries := _interpreted(rows)) is not None:
            return entries
    return None


def _fields(line: str, delimiter: str) -> list[str]:
    """The columns of a line, without empty ones; a colour in one column becomes three."""
    parts = line.split() if delimiter == " " else next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    fields: list[str] = []
    for part in (part.strip() for part in parts):
        if _HEX.fullmatch(part):
            fields.extend(map(str, bytes.fromhex(part[1:])))
        elif found := _TRIPLE.fullmatch(part):
            fields.extend(found.groups())
        elif part:
            fields.append(part)
    return fields


def _is_header(fields: Sequence[str]) -> bool:
    return len(fields) > 1 and not any(_NUMBER.fullmatch(field) for field in fields)


def _row(fields: Sequence[str], delimiter: str) -> _Row | None:
    """Columns as a row; None unless there is one name, with numbers before or after it."""
    texts = [place for place, field in enumerate(fields) if not _NUMBER.fullmatch(field)]
    if not texts or (delimiter != " " and len(texts) > 1) or texts != list(range(texts[0], texts[-1] + 1)):
        return None
    before, after = fields[: texts[0]], fields[texts[-1] + 1 :]
    return _Row(" ".join(fields[texts[0] : texts[-1] + 1]), tuple(map(int, before)), tuple(map(int, after)))


def _interpreted(rows: Sequence[_Row]) -> list[_Entry] | None:
    """Rows as classes by the places of their numbers, the same in all rows; None for places without a meaning."""
    if len({(len(row.before), len(row.after)) for row in rows}) > 1:
        return None
    columns = [[*row.before, *row.after] for row in rows]
    counting = list(range(len(rows)))
    shape = (len(rows[0].before), len(rows[0].after))
    colour, index = {
        (1, 0): (None, 0),
        (0, 1): (None, 0),
        (3, 0): (0, None),
        (0, 3): (0, None),
        (1, 3): (1, 0),
        (3, 1): (0, 3),
    }.get(shape, (None, None))
    if shape in ((4, 0), (0, 4)):
        # index and colour, colour and index, or colour and alpha: the values tell
        if [row[0] for row in columns] == counting:
            colour, index = 1, 0
        elif [row[3] for row in columns] == counting:
            colour, index = 0, 3
        elif all(row[3] == 255 for row in columns):
            colour = 0
    if colour is None and index is None:
        return None
    if colour is not None and any(max(row[colour : colour + 3]) > 255 for row in columns):
        return None
    return [
        _Entry(
            row.name,
            None if colour is None else (numbers[colour], numbers[colour + 1], numbers[colour + 2]),
            None if index is None else numbers[index],
        )
        for row, numbers in zip(rows, columns, strict=True)
    ]


def _in_order(entries: list[_Entry]) -> list[_Entry]:
    """The classes in the order of their indices, where they have indices. Raises ValueError for gaps in these."""
    indices = [entry.index for entry in entries if entry.index is not None]
    if indices and sorted(indices) != list(range(len(entries))):
        raise ValueError(
            f"its indices are {', '.join(map(str, indices[:6]))}{', ...' if len(indices) > 6 else ''}; masks need "
            "0, 1, 2, ... without gaps"
        )
    return sorted(entries, key=lambda entry: entry.index or 0)


def _counts_up(lines: Sequence[str], first: int = 0) -> bool:
    """Whether every line begins with its own number, 0, 1, 2, ...: then that is the index, and no part of the name.

    ``first`` is the number of the first line.
    """
    return len(lines) > 1 and all(
        re.match(rf"{number}(?!\d)[\s:,;.]", line) is not None for number, line in enumerate(lines, start=first)
    )


def _class_list(entries: Sequence[_Entry]) -> ClassList:
    if not entries:
        raise ValueError("it lists no classes")
    colours = {entry.name: entry.colour for entry in entries if entry.colour is not None}
    return ClassList.of([entry.name for entry in entries], colours)


def _colour(channels: Sequence[str]) -> Colour:
    red, green, blue = (int(channel) for channel in channels)
    return red, green, blue


def _odd_line(lines: Sequence[str]) -> str:
    """The first line, after a possible header, that no delimiter makes a class."""
    for line in lines[1:]:
        rows = [_row(_fields(line, delimiter), delimiter) for delimiter in _DELIMITERS]
        if all(row is None or _interpreted([row]) is None for row in rows):
            return line
    return lines[0]
