"""What a source of a format yields: entries, each with a way to its mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from service.datasets.classes import ClassList
from service.datasets.reading.provenance import Provenance
from service.datasets.reading.report import Findings


@dataclass(frozen=True)
class Annotation:
    """Class indices ``(H, W)`` uint8; instances ``(H, W)`` int32, 0 none, where the format has them; pixels of several
    objects."""

    labels: np.ndarray
    instances: np.ndarray | None = None
    overlap_px: int = 0


class FileBytes(Protocol):
    """A file, by itself or inside of another."""

    def read_bytes(self) -> bytes:
        """All of it. Raises OSError, or EntryFault, where it cannot be read."""
        ...


@dataclass(frozen=True)
class Entry:
    """An image of a dataset. ``annotate(width, height)`` reads its mask; it raises EntryFault for one that cannot be
    read.

    ``known`` is what the format itself tells of the image's origin. ``mask_file`` is the file that holds its mask and
    no other. An image that is no file by itself has a ``place``, by which reports name it; ``listed`` is the path by
    which the manifest of an export does, where that is another.
    """

    name: str
    image: FileBytes
    annotate: Callable[[int, int], Annotation]
    split: str | None = None
    caption: str | None = None
    known: Provenance | None = None
    mask_file: FileBytes | None = None
    place: str | None = None
    listed: str | None = None


class SourceOfEntries(Protocol):
    """A dataset in one format."""

    format: str
    root: Path
    classes: ClassList

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """Every image that has a mask, in a fixed order; notes in ``findings`` what has no partner."""
        ...
