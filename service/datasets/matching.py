"""The classes of several datasets as one list, and name prefixes that keep their items apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from service.datasets.classes import ClassList
from service.datasets.writing.mapping import ClassMapping, class_mapping
from service.datasets.writing.names import file_stem
from service.datasets.writing.options import ExportOptions
from service.errors import InvalidDataset
from service.kit.validation import closest_match


class DatasetWithClasses(Protocol):
    """What is known of a dataset before any item is read: its label, format and classes."""

    @property
    def label(self) -> str: ...

    @property
    def format(self) -> str: ...

    @property
    def classes(self) -> ClassList: ...


class ClassMatching:
    """The mapping of each part's classes to one common list.

    Classes are matched by name, ignoring case, after ``rename``; their order and colours are those of the first part,
    or the order of ``keep``. In a mix, the name of a real item begins with its part's label; twins are already named by
    their job.
    """

    def __init__(
        self,
        parts: Sequence[DatasetWithClasses],
        keep: Sequence[str] | None,
        rename: Mapping[str, str] | None,
        dropped: str | None,
    ) -> None:
        """``keep`` names classes by their old or new names; the pixels of others become ``dropped``, or 255 without it.

        Raises InvalidDataset if the parts' classes do not agree, naming those that differ.
        """
        self._parts = parts
        self._known = {name for part in parts for name in part.classes.names}
        self._rename: dict[str, str] = {}
        for old, new in (rename or {}).items():
            alike = [old] if old in self._known else [one for one in self._known if one.casefold() == old.casefold()]
            if not alike:
                near = closest_match(old, sorted(self._known))
                meant = f"did you mean {near!r}? " if near else ""
                raise InvalidDataset(
                    f"rename names {old!r}, which is not a class; {meant}There are {', '.join(sorted(self._known))}"
                )
            self._rename |= dict.fromkeys(alike, new)
        wanted = self._wanted(keep)
        self.mappings: list[ClassMapping] = [
            self._mapping(part, wanted, dropped, selecting=keep is not None) for part in parts
        ]
        """The mapping of each part."""
        self.classes: ClassList = self.mappings[0].classes
        self.prefixes: list[str] = [f"{label}/" if label else "" for label in _distinct(parts)]
        """The prefix of the names of each part's items."""

    def _wanted(self, keep: Sequence[str] | None) -> list[str]:
        """The new names of the classes, in their new order."""
        if keep is None:
            # names that differ only in case are the same class
            return _unique(self._renamed(name) for name in self._parts[0].classes.names)
        return _unique(self._renamed(name) for name in keep)

    def _mapping(
        self, part: DatasetWithClasses, wanted: list[str], dropped: str | None, *, selecting: bool
    ) -> ClassMapping:
        of_name: dict[str, list[str]] = {}
        for name in part.classes.names:
            of_name.setdefault(self._renamed(name).casefold(), []).append(name)
        missing = [name for name in wanted if name.casefold() not in of_name]
        unwanted = of_name.keys() - {name.casefold() for name in wanted}
        extra = [self._renamed(name) for folded, names in of_name.items() for name in names[:1] if folded in unwanted]
        if missing or (extra and not selecting):
            self._refuse(part, missing, extra)
        for names in (of_name[name.casefold()] for name in wanted):
            same = [name for name in names if name not in self._rename]
            if len(same) > 1:
                one, other = same[:2]
                raise InvalidDataset(
                    f"the classes {one!r} and {other!r} of {part.label!r} differ in case alone, and would become one; "
                    f"rename one of them (--rename {other}={other}-2), or both to one name, to merge them "
                    f"(--rename {other}={one})"
                )
        kept = [old for name in wanted for old in of_name[name.casefold()]]
        renames = {old: name for name in wanted for old in of_name[name.casefold()]}
        options = ExportOptions(format="folders", classes=tuple(kept), rename=renames, dropped=dropped)
        return class_mapping(part.classes, options)

    def _refuse(self, part: DatasetWithClasses, missing: list[str], extra: list[str]) -> None:
        names = ", ".join(part.classes.names)
        if len(self._parts) == 1:
            raise InvalidDataset(
                f"classes names {missing[0]!r}, which is not a class of {part.label!r}; there are {names}"
            )
        differences = [f"lacks {', '.join(map(repr, missing))}"] if missing else []
        differences += [f"also has {', '.join(map(repr, extra))}"] if extra else []
        raise InvalidDataset(
            f"the classes do not agree: {part.label!r} {' and '.join(differences)} (its classes are {names}). "
            "Rename classes that are the same (--rename A=B), or keep only common ones (--classes A,B)"
        )

    def _renamed(self, name: str) -> str:
        """The new name of a class, which may be given in any case."""
        if name in self._known or name in self._rename:
            return self._rename.get(name, name)
        return next((new for old, new in self._rename.items() if old.casefold() == name.casefold()), name)


def _unique(names: Iterable[str]) -> list[str]:
    return list({name.casefold(): name for name in reversed(list(names))}.values())[::-1]


def _distinct(parts: Sequence[DatasetWithClasses]) -> list[str]:
    """The label of each part, empty for twins; no label is a prefix of another, even after unsafe characters change."""
    if len(parts) == 1:
        return [""]
    labels: list[str] = []
    for part in parts:
        if part.format == "twins":
            labels.append("")
            continue
        stem = file_stem(part.label)
        label, number = stem, 1
        while any(other and _overlap(label, other) for other in labels):
            number += 1
            label = f"{stem}-{number}"
        labels.append(label)
    return labels


def _overlap(one: str, other: str) -> bool:
    first, second = f"{one}_".casefold(), f"{other}_".casefold()
    return first.startswith(second) or second.startswith(first)
