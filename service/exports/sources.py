"""Datasets and twins in the object store as one: read from any place on, so that an export of them can be cut and gone
on with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from service.datasets.classes import ClassList
from service.datasets.filtering import ConfidenceFilter
from service.datasets.items import DatasetItem
from service.datasets.matching import Matching
from service.datasets.seen import Seen
from service.datasets.stored.dataset import Absent
from service.datasets.writing.skipped import SAME_IMAGE, LeftOut
from service.datasets.writing.state import WriterState
from service.errors import InvalidDataset
from service.kit.output_file import Spool


class StoredSource(Protocol):
    """A job's twins, those of an augmentation, or a dataset.

    ``label`` is how messages call it and what the names of its items begin with, ``format`` is ``"twins"`` or
    ``"dataset"``.
    """

    @property
    def label(self) -> str: ...

    @property
    def format(self) -> str: ...

    @property
    def classes(self) -> ClassList: ...

    def count(self) -> int:
        """How many items there are at most."""
        ...

    def items(self, start_after: int | None = None) -> Iterator[tuple[int, DatasetItem | Absent]]:
        """The items after position ``start_after``, or all, each with its position; one in memory at a time.

        Positions ascend, and are always the same for the same items. An item that cannot be read may be given as
        :class:`Absent`: it is left out and counted. Raises what the store raises.
        """
        ...


class StoredMix:
    """As :class:`service.datasets.mixing.Mix`, over sources in the store, and with a place to go on from.

    Classes are matched by name as there; an item's name begins with its source's label where real data is mixed with
    others; images that are the same byte for byte come once; twins that the filter does not let through are left out.
    """

    def __init__(
        self,
        parts: Sequence[StoredSource],
        *,
        keep: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        dropped: str | None = None,
        confidence: ConfidenceFilter = ConfidenceFilter(),
    ) -> None:
        """``keep`` names classes by their old or new names; the pixels of others become ``dropped``, or 255 without it.

        Raises InvalidDataset where there are no parts, or their classes do not agree, naming those that differ.
        """
        if not parts:
            raise InvalidDataset("there is nothing to mix; name at least one job, augmentation or dataset")
        self.parts = tuple(parts)
        self.keep, self.rename, self.dropped = None if keep is None else tuple(keep), dict(rename or {}), dropped
        self.confidence = confidence
        self.matching = Matching(self.parts, keep, rename, dropped)
        self.classes: ClassList = self.matching.classes

    def count(self) -> int:
        """How many items there are at most, before any is left out."""
        return sum(part.count() for part in self.parts)

    def __iter__(self) -> Iterator[DatasetItem]:
        """All items in turn, one in memory at a time."""
        with closing(Walk(self)) as walk:
            yield from (item for item in walk if item is not None)

    def describe(self) -> dict[str, Any]:
        """What decides on its items, but for the sources' own, as JSON: two mixes that agree in it may go on for one
        another."""
        return {
            "parts": [[part.format, part.label, part.classes.table()] for part in self.parts],
            "keep": self.keep,
            "rename": self.rename,
            "dropped": self.dropped,
            "confidence": self.confidence.model_dump(),
        }


class Walk:
    """One pass over a mix: an item for each step, or None for one that was left out, which ``left_out`` counts.

    Between two steps its :meth:`state` may be taken; a walk that is given it goes on behind the item before.
    """

    def __init__(self, mix: StoredMix, scratch: Path | None = None, state: WriterState | None = None) -> None:
        """``scratch`` is the folder for what is gathered on disk; the spools of ``state`` are this walk's from now
        on."""
        self._mix = mix
        self.left_out = LeftOut()
        self._part = 0
        self._position: int | None = None
        self._log = Spool(scratch) if state is None else state.spools["images"]
        self._seen = Seen.of_log(self._log)
        if state is not None:
            self._part, self._position = state.values["part"], state.values["position"]
            self.left_out.restore(state.values["left_out"])

    def __iter__(self) -> Iterator[DatasetItem | None]:
        parts = self._mix.parts
        while self._part < len(parts):
            for self._position, item in parts[self._part].items(self._position):
                yield self._taken(item)
            self._part, self._position = self._part + 1, None

    def state(self) -> WriterState:
        """Where the walk is, and what it has met."""
        self._seen.note()
        values = {"part": self._part, "position": self._position, "left_out": self.left_out.state()}
        return WriterState(values, {"images": self._log})

    def close(self) -> None:
        """Frees the disk."""
        self._log.close()

    def _taken(self, item: DatasetItem | Absent) -> DatasetItem | None:
        """The item as it is in the mix; None where it is left out."""
        matching = self._mix.matching
        name = matching.prefixes[self._part] + item.name
        if isinstance(item, Absent):
            self.left_out.add(item.reason, name, item.detail)
            return None
        if fault := self._mix.confidence.fault(item):
            self.left_out.add(fault[0], name, fault[1])
            return None
        mapping = matching.mappings[self._part]
        try:
            image = item.image_bytes
            # a mask that stays as it is need not be decoded, and its file can be copied
            mask = item.mask if mapping.table is None else mapping.apply(item.labels)
        except InvalidDataset as error:
            self.left_out.add(error.extra.get("reason", ""), name, error.detail)
            return None
        taken = DatasetItem(
            name, image, mask, item.instances, item.split, item.source, item.caption, item.source_mask, item.metadata
        )
        if isinstance(item.image, bytes):
            taken.image_sha256 = item.image_sha256
        if not self._seen.add_sha256(taken.image_sha256):
            self.left_out.add(SAME_IMAGE, name, "an item before has the same image")
            return None
        return taken
