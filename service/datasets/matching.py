"""The classes of several datasets as one list, and names under which their items do not meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from service.datasets.classes import ClassList
from service.datasets.writing.mapping import ClassMapping, class_mapping
from service.datasets.writing.names import file_stem
from service.datasets.writing.options import ExportOptions
from service.errors import InvalidDataset


class Described(Protocol):
    """What has to be known of a dataset before any item is read: how it is called, its format, its classes."""

    @property
    def label(self) -> str: ...

    @property
    def format(self) -> str: ...

    @property
    def classes(self) -> ClassList: ...


class Matching:
    """How the classes of each part become one list.

    Classes are matched by name, whatever their case, after ``rename``; their order and colours are those of the first
    part, or the order of ``keep``. Where real data and twins are mixed, an item's name begins with its part's label;
    twins are named by their job, which is no other's.
    """

    def __init__(
        self,
        parts: Sequence[Described],
        keep: Sequence[str] | None,
        rename: Mapping[str, str] | None,
        dropped: str | None,
    ) -> None:
        """``keep`` names classes by their old or new names; the pixels of others become ``dropped``, or 255 without it.

        Raises InvalidDataset where the parts' classes do not agree, naming those that differ.
        """
        self._rename = dict(rename or {})
        self._parts = parts
        known = {name for part in parts for name in part.classes.names}
        if strange := [name for name in self._rename if name not in known]:
            raise InvalidDataset(
                f"rename names {strange[0]!r}, which is no class; there are {', '.join(sorted(known))}"
            )
        wanted = self._wanted(keep)
        self.mappings: list[ClassMapping] = [
            self._mapping(part, wanted, dropped, selecting=keep is not None) for part in parts
        ]
        """For each part."""
        self.classes: ClassList = self.mappings[0].classes
        self.prefixes: list[str] = [f"{label}/" if label else "" for label in _distinct(parts)]
        """For each part, what the names of its items begin with."""

    def _wanted(self, keep: Sequence[str] | None) -> list[str]:
        """The new names of the classes, in their new order."""
        if keep is None:
            # a name that the first part writes in another case is the same class
            return _unique(self._renamed(name) for name in self._parts[0].classes.names)
        return _unique(self._renamed(name) for name in keep)

    def _mapping(self, part: Described, wanted: list[str], dropped: str | None, *, selecting: bool) -> ClassMapping:
        of_name: dict[str, list[str]] = {}
        for name in part.classes.names:
            of_name.setdefault(self._renamed(name).casefold(), []).append(name)
        lacking = [name for name in wanted if name.casefold() not in of_name]
        extra = of_name.keys() - {name.casefold() for name in wanted}
        more = [self._renamed(name) for folded, names in of_name.items() for name in names[:1] if folded in extra]
        if lacking or (more and not selecting):
            self._refuse(part, lacking, more)
        kept = [old for name in wanted for old in of_name[name.casefold()]]
        renames = {old: name for name in wanted for old in of_name[name.casefold()]}
        options = ExportOptions(format="folders", classes=tuple(kept), rename=renames, dropped=dropped)
        return class_mapping(part.classes, options)

    def _refuse(self, part: Described, lacking: list[str], more: list[str]) -> None:
        has = ", ".join(part.classes.names)
        if len(self._parts) == 1:
            raise InvalidDataset(f"classes names {lacking[0]!r}, which is no class of {part.label!r}; there are {has}")
        said = [f"lacks {', '.join(map(repr, lacking))}"] if lacking else []
        said += [f"has {', '.join(map(repr, more))} besides"] if more else []
        raise InvalidDataset(
            f"the classes do not agree: {part.label!r} {' and '.join(said)} (its classes are {has}). "
            "Rename those that are the same (--rename A=B), or keep those that all have (--classes A,B)"
        )

    def _renamed(self, name: str) -> str:
        return self._rename.get(name, name)


def _unique(names: Iterable[str]) -> list[str]:
    return list({name.casefold(): name for name in reversed(list(names))}.values())[::-1]


def _distinct(parts: Sequence[Described]) -> list[str]:
    """The label of each part, empty for twins: no label is the beginning of another, whatever characters become of
    it."""
    if len(parts) == 1:
        return [""]
    labels: list[str] = []
    for part in parts:
        if part.format == "twins":
            labels.append("")
            continue
        stem = file_stem(part.label)
        label, number = stem, 1
        while any(taken and _overlap(label, taken) for taken in labels):
            number += 1
            label = f"{stem}-{number}"
        labels.append(label)
    return labels


def _overlap(one: str, other: str) -> bool:
    first, second = f"{one}_".casefold(), f"{other}_".casefold()
    return first.startswith(second) or second.startswith(first)
