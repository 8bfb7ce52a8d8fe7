"""The classes of a training set, as requests name them."""

from __future__ import annotations

from dataclasses import dataclass

from model_store.card import check_words
from service.datasets.classes import MAX_CLASSES, ClassList, DatasetClass
from workers.data.listings import DatasetInvalid

UNQUERYABLE_NAMES = frozenset({"unlabeled", "unlabelled", "background", "void", "ignore", "other"})


@dataclass(frozen=True)
class TrainingClass:
    """A class as requests name it."""

    index: int
    name: str
    queryable: bool = True
    aliases: tuple[str, ...] = ()


def training_classes(listed: ClassList, source: str) -> tuple[TrainingClass, ...]:
    """The classes of a dataset. Raises :class:`DatasetInvalid` for too few or too many, and for words of several."""
    if not 2 <= len(listed) <= MAX_CLASSES:
        raise DatasetInvalid(
            f"{source} lists {len(listed)} classes; training needs 2 to {MAX_CLASSES}, with the background"
        )
    classes = tuple(_training_class(entry) for entry in listed.classes)
    try:
        check_words(classes)
    except ValueError as error:
        raise DatasetInvalid(f"{error} in {source}; give each class words of its own") from None
    return classes


def _training_class(entry: DatasetClass) -> TrainingClass:
    plain = not entry.background and entry.name.casefold() not in UNQUERYABLE_NAMES
    return TrainingClass(entry.index, entry.name, plain if entry.queryable is None else entry.queryable, entry.aliases)
