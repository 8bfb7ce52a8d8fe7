"""Twins in the store as dataset items: those of a job, or the accepted ones of an augmentation set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from model_store.card import ModelCard
from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem, instances_of_file
from service.datasets.reading.twins import card_classes, twin_caption, twin_metadata, twin_source_mask
from service.datasets.stored.dataset import UnavailableItem
from service.errors import ObjectDamaged, ObjectNotFound
from service.jobs.manifest import manifest_entry
from service.jobs.repository import JobRepository
from service.jobs.sample_files import group_adjacent, read_sample_files, sample_files_of
from service.jobs.spec import ChunkRecord, JobSpec
from service.jobs.spec import SampleRecord as Sample
from service.kit.prefetch import prefetch


@dataclass(frozen=True)
class SourceTwin:
    """A sample with its position in its source; ``about`` is further metadata on how it was made."""

    position: int
    spec: JobSpec
    record: ChunkRecord
    sample: Sample
    source_mask: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.spec.job}/{self.sample.index:08d}"


@dataclass(frozen=True)
class JobSource:
    """The twins of a job; a twin's position is its index."""

    repository: JobRepository
    spec: JobSpec
    card: ModelCard
    format = "twins"

    @property
    def label(self) -> str:
        return self.spec.job

    @property
    def classes(self) -> ClassList:
        return card_classes(self.card)

    def count(self) -> int:
        summary = self.repository.read_summary(self.spec.job)
        return self.spec.count if summary is None else summary.done

    def items(self, start_after: int | None = None) -> Iterator[tuple[int, DatasetItem | UnavailableItem]]:
        """The twins with an index above ``start_after``."""
        found = self.repository.chunks.items(self.spec, after=start_after)
        with closing(found):
            twins = (SourceTwin(sample.index, self.spec, record, sample) for record, sample in found)
            yield from as_items(self.repository, self.card, twins)


def as_items(
    repository: JobRepository, card: ModelCard, twins: Iterable[SourceTwin]
) -> Iterator[tuple[int, DatasetItem | UnavailableItem]]:
    """The twins as items with their positions; files are read ahead, those adjacent in a shard by one request."""

    def read(group: list[tuple[SourceTwin, Sample]]) -> list[DatasetItem | UnavailableItem]:
        try:
            data = iter(
                read_sample_files(
                    repository.store, [picture for _, sample in group for picture in sample_files_of(sample)]
                )
            )
            return [_item(card, twin, [next(data) for _ in sample_files_of(sample)]) for twin, sample in group]
        except (ObjectDamaged, ObjectNotFound) as error:
            if len(group) > 1:
                return [found for pair in group for found in read([pair])]
            reason = "damaged" if isinstance(error, ObjectDamaged) else "missing"
            return [UnavailableItem(group[0][0].name, reason, error.detail)]

    with closing(prefetch(read, group_adjacent((twin, twin.sample) for twin in twins))) as groups:
        for group, items in groups:
            for (twin, _), item in zip(group, items, strict=True):
                yield twin.position, item


def _item(card: ModelCard, twin: SourceTwin, files: list[bytes]) -> DatasetItem | UnavailableItem:
    if len(files) < 2:
        return UnavailableItem(twin.name, "no_mask", "it was made from text alone and has no mask")
    line = manifest_entry(twin.spec, twin.record, twin.sample)
    item = DatasetItem(
        name=twin.name,
        image=files[0],
        mask=files[1],
        instances=instances_of_file(files[2]) if len(files) > 2 else None,
        source="synthetic",
        caption=twin_caption(line, card),
        source_mask=twin.source_mask or twin_source_mask(line),
        metadata={**twin_metadata(line), **twin.about},
    )
    # the bytes were compared with it when they were read
    item.image_sha256 = str(twin.sample.image_sha256)
    return item
