"""Matching of the dataset's classes to the model's: by name and alias, or by the request's class map."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model_store.card import IGNORE_INDEX, ClassEntry, ModelCard
from service.datasets.classes import BACKGROUND_NAMES, ClassList, DatasetClass
from service.kit.validation import Faults, closest_match, join_list, truncated_repr


@dataclass(frozen=True, eq=False)
class ClassMatch:
    """How a dataset's classes match a model's.

    ``table`` ``(256,)`` uint8: the model's class index for each index of the dataset, 255 for a class whose pixels go
    to the classes around them. ``background``: the model's indices of what objects stand on, which are the dataset's
    background and the classes that no request may name.
    """

    table: np.ndarray
    background: frozenset[int]
    classes: int

    def labels(self, mask: np.ndarray) -> np.ndarray:
        """The dataset's class indices ``(H, W)`` uint8 as class indices of the model."""
        return np.asarray(self.table[mask])

    def histograms(self, shares: np.ndarray) -> np.ndarray:
        """Shares ``(P, D)`` of the dataset's classes as shares ``(P, classes)`` of the model's."""
        out = np.zeros((len(shares), self.classes), dtype=shares.dtype)
        for index in range(shares.shape[1]):
            if self.table[index] != IGNORE_INDEX:
                out[:, self.table[index]] += shares[:, index]
        return out


def match_classes(
    classes: ClassList, card: ModelCard, class_map: Mapping[str, str | None], faults: Faults
) -> ClassMatch | None:
    """How the classes match; None where they do not, with the reasons added to ``faults``.

    A class matches what ``class_map`` says, else the model's class with its name or alias, ignoring case; the dataset's
    background also matches the model's only class with a name for a background. Several classes may become one.
    """
    said, valid = _mapped_classes(classes, card, class_map, faults)
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    unmatched: list[str] = []
    matched: set[int] = set()
    background = {entry.index for entry in card.classes if not entry.queryable}
    for entry in classes.classes:
        found = said[entry.index] if entry.index in said else _by_name(entry, card)
        if found is None:
            if entry.index not in said:
                unmatched.append(entry.name)
            continue
        table[entry.index] = found.index
        matched.add(found.index)
        if entry.background:
            background.add(found.index)
    if unmatched:
        has = [entry.name for entry in card.classes]
        theirs = card.classes[-1].name
        example = f"{{{truncated_repr(unmatched[0])}: {truncated_repr(theirs)}}}"
        option = shlex.join(["--class-map", f"{unmatched[0]:.60}={theirs:.60}"])
        faults.add_plain(
            "/class_map",
            f"the dataset has {join_list(unmatched)}, which {card.id} does not know; its classes are "
            f"{join_list(has)}. Name in class_map the class for each, as in {example} ({option}), or null to give its "
            "pixels to the classes around them",
        )
    elif valid and not matched:
        faults.add_plain(
            "/class_map", f"class_map leaves none of the dataset's classes; its classes are {join_list(classes.names)}"
        )
    if unmatched or not valid or not matched:
        return None
    return ClassMatch(table, frozenset(background), len(card.classes))


def pointer(*parts: object) -> str:
    """A JSON pointer (RFC 6901) of names that may hold anything."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _mapped_classes(
    classes: ClassList, card: ModelCard, class_map: Mapping[str, str | None], faults: Faults
) -> tuple[dict[int, ClassEntry | None], bool]:
    """The model's class that the map names for each class of the dataset, by index, and whether the map is valid."""
    by_name = {entry.name.casefold(): entry.index for entry in classes.classes}
    said: dict[int, ClassEntry | None] = {}
    valid = True
    for name, word in class_map.items():
        where = pointer("class_map", name)
        if name.strip().casefold() not in by_name:
            valid = False
            _add_unknown_class(faults, where, name, "the dataset", classes.names)
            continue
        entry = None if word is None else card.find_class(word)
        if word is not None and entry is None:
            valid = False
            _add_unknown_class(faults, where, word, card.id, [one.name for one in card.classes])
            continue
        said[by_name[name.strip().casefold()]] = entry
    return said, valid


def _add_unknown_class(faults: Faults, where: str, word: str, whose: str, known: tuple[str, ...] | list[str]) -> None:
    near = closest_match(word, known)
    meant = f"did you mean {truncated_repr(near)}? " if near else ""
    faults.add_plain(
        where,
        f"class_map names {truncated_repr(word)}, which is not a class of {whose}; {meant}It has {join_list(known)}",
    )


def _by_name(entry: DatasetClass, card: ModelCard) -> ClassEntry | None:
    found = card.find_class(entry.name)
    if found is None and entry.background:
        backgrounds = [one for one in card.classes if one.name.casefold() in BACKGROUND_NAMES]
        return backgrounds[0] if len(backgrounds) == 1 else None
    return found
