"""The entries that a source yields, and the interface of a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from service.datasets.classes import ClassList
from service.datasets.reading.provenance import Provenance
from service.datasets.reading.report import Findings


@dataclass(frozen=True)
class Annotation:
    """A decoded mask: class indices ``(H, W)`` uint8, and instances ``(H, W)`` int32 (0 none) if the format has them.

    ``overlap_px`` counts the pixels that belong to several objects; ``assumed`` are sentences on what was assumed.
    """

    labels: np.ndarray
    instances: np.ndarray | None = None
    overlap_px: int = 0
    assumed: tuple[str, ...] = ()


class FileBytes(Protocol):
    """A file on disk, or inside another file."""

    def read_bytes(self) -> bytes:
        """All its bytes. Raises OSError or EntryFault if it cannot be read."""
        ...


@dataclass(frozen=True)
class Entry:
    """An image of a dataset with a function that reads its mask.

    ``annotate(width, height)`` raises EntryFault for a mask that cannot be read. ``provenance`` is what the format
    itself records of the image's origin. ``captions`` are the lines of an image with several texts, or with more than a
    text: each has ``text``, and any further members. ``mask_file`` is the file with this image's mask alone.
    ``report_path`` is the path in the dataset of an image inside another file.
    """

    name: str
    image: FileBytes
    annotate: Callable[[int, int], Annotation]
    split: str | None = None
    caption: str | None = None
    captions: tuple[Mapping[str, Any], ...] = ()
    provenance: Provenance | None = None
    mask_file: FileBytes | None = None
    report_path: str | None = None


class DatasetSource(Protocol):
    """A dataset in one format."""

    format: str
    root: Path
    classes: ClassList

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """Every image that has a mask, in a fixed order; images or masks without a partner go to ``findings``."""
        ...
