"""Several sources in the object store as one sequence of items, readable from any position so that exports resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from service.datasets.classes import ClassList
from service.datasets.filtering import ConfidenceFilter
from service.datasets.items import DatasetItem
from service.datasets.matching import ClassMatching
from service.datasets.seen_hashes import SeenHashes
from service.datasets.stored.dataset import UnavailableItem
from service.datasets.writing.skipped import SAME_IMAGE, SkippedItems
from service.datasets.writing.state import WriterState
from service.errors import InvalidDataset
from service.kit.output_file import Spool


class StoredSource(Protocol):
    """The twins of a job or of an augmentation set, or a stored dataset.

    ``label`` names it in messages and prefixes the names of its items; ``format`` is ``"twins"`` or ``"dataset"``.
    """

    @property
    def label(self) -> str: ...

    @property
    def format(self) -> str: ...

    @property
    def classes(self) -> ClassList: ...

    def count(self) -> int:
        """The maximum number of items."""
        ...

    def items(self, start_after: int | None = None) -> Iterator[tuple[int, DatasetItem | UnavailableItem]]:
        """The items after position ``start_after``, or all, each with its position; one in memory at a time.

        Positions ascend, and are always the same for the same items. A source may yield an :class:`UnavailableItem` for
        an item that cannot be read: it is skipped and counted. Raises what the store raises.
        """
        ...


class StoredMix:
    """A mix of sources in the store: :class:`service.datasets.mixing.Mix`, but resumable.

    Classes are matched by name as there. If real data is mixed with other sources, an item's name begins with its
    source's label. Images that are the same byte for byte come once. Twins that the confidence filter rejects are
    skipped.
    """

    def __init__(
        self,
        parts: Sequence[StoredSource],
        *,
        keep: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        dropped: str | None = None,
        confidence: ConfidenceFilter | None = None,
    ) -> None:
        """``keep`` names classes by their old or new names; the pixels of others become ``dropped``, or 255 without it.

        Raises InvalidDataset if there are no parts, or if their classes do not agree, naming those that differ.
        """
        if not parts:
            raise InvalidDataset("there is nothing to mix; name at least one job, augmentation or dataset")
        self.parts = tuple(parts)
        self.keep, self.rename, self.dropped = None if keep is None else tuple(keep), dict(rename or {}), dropped
        self.confidence = confidence or ConfidenceFilter()
        self.matching = ClassMatching(self.parts, keep, rename, dropped)
        self.classes: ClassList = self.matching.classes

    def count(self) -> int:
        """The maximum number of items, before any is skipped."""
        return sum(part.count() for part in self.parts)

    def __iter__(self) -> Iterator[DatasetItem]:
        """All items of all sources, one in memory at a time."""
        with closing(MixIterator(self)) as items:
            yield from (item for item in items if item is not None)

    def describe(self) -> dict[str, Any]:
        """The sources and settings of the mix as JSON; an export may resume one with an equal description."""
        return {
            "parts": [[part.format, part.label, part.classes.table()] for part in self.parts],
            "keep": self.keep,
            "rename": self.rename,
            "dropped": self.dropped,
            "confidence": self.confidence.model_dump(),
        }


class MixIterator:
    """A resumable iterator over a mix: an item at each step, or None for one that was skipped and counted.

    Between two steps its :meth:`state` may be taken; an iterator created with it continues after the last item.
    """

    def __init__(self, mix: StoredMix, scratch: Path | None = None, state: WriterState | None = None) -> None:
        """``scratch`` is the folder for temporary files. The iterator takes over the spools of ``state``."""
        self._mix = mix
        self.skipped = SkippedItems()
        self._part = 0
        self._position: int | None = None
        self._log = Spool(scratch) if state is None else state.spools["images"]
        self._seen = SeenHashes.of_log(self._log)
        if state is not None:
            self._part, self._position = state.values["part"], state.values["position"]
            self.skipped.restore(state.values["skipped"])

    def __iter__(self) -> Iterator[DatasetItem | None]:
        parts = self._mix.parts
        while self._part < len(parts):
            for position, item in parts[self._part].items(self._position):
                self._position = position
                yield self._mixed(item)
            self._part, self._position = self._part + 1, None

    def state(self) -> WriterState:
        """The position, the hashes of the images so far, and the skipped items."""
        self._seen.flush()
        values = {"part": self._part, "position": self._position, "skipped": self.skipped.state()}
        return WriterState(values, {"images": self._log})

    def close(self) -> None:
        """Frees the disk."""
        self._log.close()

    def _mixed(self, item: DatasetItem | UnavailableItem) -> DatasetItem | None:
        """The item with the mix's name and classes, or None if it is skipped."""
        matching = self._mix.matching
        prefix = matching.prefixes[self._part]
        if isinstance(item, UnavailableItem):
            # the twins of a dataset that was exported before count as real here: nothing else is known of them
            of_dataset = self._mix.parts[self._part].format != "twins"
            self.skipped.add(item.reason, prefix + item.name, item.detail, real=of_dataset)
            return None
        identity, real = prefix + item.identity, item.source == "real"
        if fault := self._mix.confidence.fault(item):
            self.skipped.add(fault[0], identity, fault[1])
            return None
        mapping = matching.mappings[self._part]
        try:
            image = item.image_bytes
            # a mask that stays as it is need not be decoded, and its file can be copied
            mask = item.mask if mapping.table is None else mapping.apply(item.labels)
        except InvalidDataset as error:
            self.skipped.add(error.extra.get("reason", ""), identity, error.detail, real=real)
            return None
        mixed = DatasetItem(
            prefix + item.name,
            image,
            mask,
            item.instances,
            item.split,
            item.source,
            item.caption,
            item.source_mask,
            item.metadata,
            None if item.path is None else prefix + item.path,
        )
        if isinstance(item.image, bytes):
            mixed.image_sha256 = item.image_sha256
        if not self._seen.add_sha256(mixed.image_sha256):
            self.skipped.add(SAME_IMAGE, identity, "an earlier item has the same image", real=real)
            return None
        return mixed
