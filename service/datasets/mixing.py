"""Several datasets as one: the same classes, no two items of one name, no image twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.matching import Matching
from service.datasets.reading.checking import read_items
from service.datasets.reading.entry import SourceOfEntries
from service.datasets.reading.report import Findings, ReadReport
from service.datasets.seen import Seen


@dataclass(frozen=True)
class MixPart:
    """A dataset of the mix, and how it is called in messages and in the names of its items."""

    label: str
    source: SourceOfEntries

    @property
    def format(self) -> str:
        """The source's."""
        return self.source.format

    @property
    def classes(self) -> ClassList:
        """The source's."""
        return self.source.classes


class Mix:
    """The items of all parts under one list of classes, which :class:`Matching` makes."""

    def __init__(
        self,
        parts: Sequence[MixPart],
        *,
        keep: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        dropped: str | None = None,
    ) -> None:
        """``keep`` names classes by their old or new names; the pixels of others become ``dropped``, or 255 without it.

        Raises InvalidDataset where the parts' classes do not agree, naming those that differ.
        """
        self._parts = parts
        self._matching = Matching(parts, keep, rename, dropped)
        self._findings = [Findings() for _ in parts]
        self.copies = 0
        """Images left out because a part before had the same one, byte for byte."""
        self.classes: ClassList = self._matching.classes

    def __iter__(self) -> Iterator[DatasetItem]:
        """Items of the parts in turn, one in memory at a time; what cannot be read is left out, and counted in
        :meth:`reports`."""
        seen = Seen()
        self._findings = [Findings() for _ in self._parts]
        self.copies = 0
        matching = self._matching
        for part, prefix, mapping, findings in zip(
            self._parts, matching.prefixes, matching.mappings, self._findings, strict=True
        ):
            for item in read_items(part.source, findings):
                if not seen.add_sha256(item.image_sha256):
                    self.copies += 1
                    continue
                yield replace(item, name=prefix + item.name, mask=mapping.apply(item.labels))

    def reports(self) -> list[ReadReport]:
        """What was found in each part, once the items have been taken."""
        return [found.report(part.source.format) for part, found in zip(self._parts, self._findings, strict=True)]
