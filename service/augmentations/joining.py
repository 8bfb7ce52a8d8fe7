"""A set in one export with its dataset: what makes the classes of both one list, known before anything is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model_store.card import IGNORE_INDEX, ModelCard
from service.augmentations.matching import ClassMatch
from service.datasets.classes import ClassList
from service.datasets.matching import ClassMatching
from service.datasets.reading.twins import card_classes
from service.errors import InvalidDataset


@dataclass(frozen=True)
class ClassJoin:
    """What the export needs: new names of classes, and those to keep, or None for all."""

    rename: dict[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Part:
    label: str
    format: str
    classes: ClassList


def class_join(dataset: str, classes: ClassList, card: ModelCard, match: ClassMatch) -> ClassJoin | None:
    """What makes the classes of a dataset and of a set's twins one list, the least change first; None if nothing does.

    A class of the model that one class of the dataset was matched to gets that one's name (:func:`dataset_names`).
    """
    own, merged = dataset_names(classes, card, match), _merged_names(classes, card, match)
    joins = [ClassJoin(own), ClassJoin(own | merged)]
    for join in joins[::-1]:
        known = {join.rename.get(entry.name, entry.name).casefold() for entry in card.classes}
        common = [name for name in classes.names if join.rename.get(name, name).casefold() in known]
        background = classes.background
        if any(background is None or name != background.name for name in common):
            joins.append(ClassJoin(join.rename, tuple(common)))
    return next((join for join in joins if join_fault(dataset, classes, card, join) is None), None)


def join_fault(
    dataset: str, classes: ClassList, card: ModelCard, join: ClassJoin, dropped: str | None = None
) -> str | None:
    """Why an export of a dataset with a set's twins refuses these changes; None if it takes them."""
    parts = [_Part(dataset, "dataset", classes), _Part(card.id, "twins", card_classes(card))]
    return _fault(parts, join, dropped)


def twins_fault(card: ModelCard, join: ClassJoin, dropped: str | None = None) -> str | None:
    """Why an export of a set's twins alone refuses these changes; None if it takes them."""
    return _fault([_Part(card.id, "twins", card_classes(card))], join, dropped)


def dataset_names(classes: ClassList, card: ModelCard, match: ClassMatch) -> dict[str, str]:
    """The dataset's names for the model's classes that have other ones, where one class was matched to one."""
    taken = {name.casefold() for name in classes.names}
    return {
        theirs: ours[0]
        for theirs, ours in _matched(classes, card, match).items()
        if len(ours) == 1 and theirs.casefold() != ours[0].casefold() and theirs.casefold() not in taken
    }


def _merged_names(classes: ClassList, card: ModelCard, match: ClassMatch) -> dict[str, str]:
    """The model's names for the dataset's classes of which several were matched to one."""
    found = _matched(classes, card, match).items()
    return {name: theirs for theirs, ours in found if len(ours) > 1 for name in ours if name != theirs}


def _matched(classes: ClassList, card: ModelCard, match: ClassMatch) -> Mapping[str, Sequence[str]]:
    """The dataset's classes that were matched to each class of the model."""
    found: dict[str, list[str]] = {}
    for entry in classes.classes:
        if (index := int(match.table[entry.index])) != IGNORE_INDEX:
            found.setdefault(card.classes[index].name, []).append(entry.name)
    return found


def _fault(parts: Sequence[_Part], join: ClassJoin, dropped: str | None) -> str | None:
    try:
        ClassMatching(parts, join.keep, join.rename, dropped)
    except InvalidDataset as error:
        return error.detail
    return None


def join_note(dataset: str, classes: ClassList, card: ModelCard, match: ClassMatch) -> str | None:
    """A note on an export of the set with its dataset: what it has to ask for; None if that is nothing."""
    join = class_join(dataset, classes, card, match)
    if join == ClassJoin():
        return None
    lists = f"The dataset's classes are {', '.join(classes.names)}; those of {card.id} {', '.join(card_names(card))}."
    if join is None:
        return f"{lists} Both cannot be exported as one dataset; export the twins alone."
    needs = [f'"rename": {json.dumps(join.rename, ensure_ascii=False)}'] if join.rename else []
    needs += [f'"classes": {json.dumps(join.keep, ensure_ascii=False)}'] if join.keep is not None else []
    return f"{lists} To export both as one dataset, POST /exports needs {', '.join(needs)}."


def card_names(card: ModelCard) -> list[str]:
    """The names of a model's classes."""
    return [entry.name for entry in card.classes]
