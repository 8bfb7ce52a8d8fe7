"""Instance maps that lie beside masks: the number of each pixel's object, compared with the mask's classes.

A map that does not go with its mask is refused with its item: objects that are merged or dropped in silence spoil all
that is learnt from them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from service.datasets.classes import IGNORE, ClassList
from service.datasets.items import MAX_INSTANCES
from service.datasets.reading.entry import Annotation
from service.datasets.reading.instance_numbers import read_numbers
from service.datasets.reading.report import EntryFault

INSTANCE_FOLDER = "instances"
"""The folder beside that of the masks."""
_BLOCK_PIXELS = 1 << 20
_MAX_NAMED = 5


def with_instance_map(annotation: Annotation, file: Path | bytes, name: str, classes: ClassList) -> Annotation:
    """A mask's annotation with the map that goes with it; numbers on pixels of 255 become 0, with a notice.

    Raises EntryFault that names the map: for one that :func:`read_numbers` refuses, another size, a number on pixels of
    two classes or on those of the background, and too many numbers.
    """
    try:
        numbers = read_numbers(file)
        check_size(numbers, annotation.labels)
        _check_classes(numbers, annotation.labels, classes)
    except EntryFault as fault:
        raise EntryFault(fault.kind, f"its map of instances {name}: {fault.detail}") from None
    numbers, notices = without(numbers, annotation.labels, IGNORE, f"its map of instances {name}", "255 (ignore)")
    if (largest := int(numbers.max(initial=0))) > MAX_INSTANCES:
        notices += (
            f"its map of instances {name} has numbers up to {largest}; kept are numbers up to {MAX_INSTANCES}, so they "
            "are numbered anew from 1, in their order, where they are stored or written",
        )
    return replace(annotation, instances=numbers, assumed=(*annotation.assumed, *notices))


def check_size(numbers: np.ndarray, labels: np.ndarray) -> None:
    """Raises EntryFault for numbers of another size than the mask."""
    if numbers.shape != labels.shape:
        height, width = numbers.shape
        raise EntryFault(
            "size_differs",
            f"it is {width} x {height} px, its mask {labels.shape[1]} x {labels.shape[0]}; make both anew from one "
            "source, or remove it",
        )


def without(
    numbers: np.ndarray, labels: np.ndarray, label: int, what: str, called: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The numbers with 0 where the mask has ``label``, and a sentence on those that had another."""
    there = (numbers > 0) & (labels == label)
    if not there.any():
        return numbers, ()
    kept = np.where(there, 0, numbers)
    gone = np.setdiff1d(np.unique(numbers[there]), np.unique(kept))
    lost = f"; {_listed(gone)} {'is' if len(gone) == 1 else 'are'} nowhere else, and lost" if len(gone) else ""
    notice = f"{what} has numbers at {int(there.sum())} px that its mask has as {called}: they are read as 0{lost}"
    return kept, (notice,)


def number_pairs(numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The pairs of a number above 0 and a class index that occur together, as ``number << 8 | index``, ascending.

    Raises EntryFault for more numbers than an image may have.
    """
    step = max(1, _BLOCK_PIXELS // max(1, numbers.shape[1]))
    found = np.zeros(0, dtype=np.int64)
    for top in range(0, len(numbers), step):
        block = slice(top, top + step)
        keys = numbers[block].astype(np.int64) << 8 | labels[block]
        found = np.union1d(found, keys[keys > IGNORE])
        if len(found) > MAX_INSTANCES and (count := len(np.unique(found >> 8))) > MAX_INSTANCES:
            raise EntryFault(
                "bad_annotation",
                f"it has {count} numbers and more; the limit is {MAX_INSTANCES}, so cut image and mask into tiles",
            )
    return found


def _check_classes(numbers: np.ndarray, labels: np.ndarray, classes: ClassList) -> None:
    pairs = number_pairs(numbers, labels)
    pairs = pairs[pairs & IGNORE != IGNORE]
    twice = np.flatnonzero(np.diff(pairs >> 8) == 0)
    if twice.size:
        number, first, second = int(pairs[twice[0]]) >> 8, *(int(key) & 255 for key in pairs[twice[0] : twice[0] + 2])
        row, column = divmod(int(((numbers == number) & (labels == second)).argmax()), numbers.shape[1])
        raise EntryFault(
            "bad_annotation",
            f"it has number {number} on pixels of two classes, {_called(first, classes)} and, first at x {column}, "
            f"y {row}, {_called(second, classes)}; an object has one, so give 0 where the mask shows another class",
        )
    background = classes.background
    if background is not None and (empty := pairs[pairs & 255 == background.index] >> 8).size:
        raise EntryFault(
            "bad_annotation",
            f"it has {_listed(empty)} where its mask shows nothing but {background.name}, the background, which has no "
            "objects; give 0 there, or the object's class in the mask",
        )


def _called(label: int, classes: ClassList) -> str:
    return classes.names[label] if label < len(classes) else f"label {label}"


def _listed(numbers: np.ndarray) -> str:
    """``number 7``, ``numbers 7, 9``, the first few of them."""
    named = ", ".join(map(str, numbers[:_MAX_NAMED].tolist()))
    more = f" and {len(numbers) - _MAX_NAMED} more" if len(numbers) > _MAX_NAMED else ""
    return f"number{'' if len(numbers) == 1 else 's'} {named}{more}"
