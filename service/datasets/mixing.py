"""Several datasets as one, with common classes, unique item names and no duplicate images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.matching import ClassMatching
from service.datasets.reading.checking import read_items
from service.datasets.reading.entry import DatasetSource
from service.datasets.reading.report import Findings, ReadReport
from service.datasets.seen_hashes import SeenHashes
from service.datasets.writing.skipped import SAME_IMAGE, SkippedItems


@dataclass(frozen=True)
class MixPart:
    """A dataset of the mix; ``label`` names it in messages and prefixes the names of its items."""

    label: str
    source: DatasetSource

    @property
    def format(self) -> str:
        """The source's format."""
        return self.source.format

    @property
    def classes(self) -> ClassList:
        """The source's classes."""
        return self.source.classes


class Mix:
    """The items of all parts under one list of classes, as :class:`ClassMatching` maps them."""

    def __init__(
        self,
        parts: Sequence[MixPart],
        *,
        keep: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        dropped: str | None = None,
    ) -> None:
        """``keep`` names classes by their old or new names; the pixels of others become ``dropped``, or 255 without it.

        Raises InvalidDataset if the parts' classes do not agree, naming those that differ.
        """
        self._parts = parts
        self._matching = ClassMatching(parts, keep, rename, dropped)
        self._findings = [Findings() for _ in parts]
        self.skipped = SkippedItems()
        """The items skipped because an earlier part has the same image, byte for byte."""
        self.classes: ClassList = self._matching.classes

    def __iter__(self) -> Iterator[DatasetItem]:
        """The items of one part after another, one in memory at a time.

        Entries that cannot be read are skipped, and counted in :meth:`reports`.
        """
        seen = SeenHashes()
        self._findings = [Findings() for _ in self._parts]
        self.skipped = SkippedItems()
        matching = self._matching
        for part, prefix, mapping, findings in zip(
            self._parts, matching.prefixes, matching.mappings, self._findings, strict=True
        ):
            for item in read_items(part.source, findings):
                if not seen.add_sha256(item.image_sha256):
                    detail = "an earlier source has the same image"
                    self.skipped.add(SAME_IMAGE, prefix + item.identity, detail, real=item.source == "real")
                    continue
                path = None if item.path is None else prefix + item.path
                yield replace(item, name=prefix + item.name, path=path, mask=mapping.apply(item.labels))

    def reports(self) -> list[ReadReport]:
        """The report of each part, complete once all items have been read."""
        return [found.report(part.source.format) for part, found in zip(self._parts, self._findings, strict=True)]
