"""The accepted twins of an augmentation set, in the order of their rounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pydantic import ValidationError

from model_store.card import ModelCard
from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.reading.twins import card_classes
from service.datasets.stored.dataset import UnavailableItem
from service.errors import ObjectNotFound, StoreError, UnknownJob
from service.exports.job_source import SourceTwin, as_items
from service.jobs.repository import JobRepository
from service.jobs.spec import ChunkRecord, JobSpec
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec
from service.store.round_keys import AcceptedLine, accepted_key, round_numbers, round_state

_CACHED_CHUNKS = 64


@dataclass(frozen=True)
class AugmentationSource:
    """The accepted twins of an augmentation set, numbered 0, 1, ..."""

    repository: JobRepository
    run: RunSpec
    card: ModelCard
    rounds: int
    format = "twins"

    @classmethod
    def open(cls, repository: JobRepository, run: RunSpec, card: ModelCard) -> AugmentationSource:
        """The source with all rounds whose twins have been judged."""
        for number in reversed(round_numbers(repository.store, run.run)):
            if accepted_key(repository.store, run.run, number) is not None:
                return cls(repository, run, card, number + 1)
        return cls(repository, run, card, 0)

    @property
    def label(self) -> str:
        return self.run.run

    @property
    def classes(self) -> ClassList:
        return card_classes(self.card)

    def count(self) -> int:
        summary = RunRepository(self.repository.store).read_summary(self.run.run)
        return summary.done if summary is not None else sum(1 for _ in self.lines())

    def lines(self, start_after: int | None = None) -> Iterator[tuple[int, AcceptedLine]]:
        """The accepted twins with their positions, one round in memory at a time."""
        position = 0
        for number in range(self.rounds):
            for line in read_accepted(self.repository, self.run.run, number):
                if start_after is None or position > start_after:
                    yield position, line
                position += 1

    def twins(self, start_after: int | None = None) -> Iterator[SourceTwin]:
        """The accepted twins with their records; twins of deleted jobs are omitted."""
        return (twin for _, _, twin in self._found(start_after) if twin is not None)

    def _found(self, start_after: int | None) -> Iterator[tuple[int, AcceptedLine, SourceTwin | None]]:
        """The accepted twins with their positions, each with its record, or None if its job was deleted."""

        @lru_cache(maxsize=_CACHED_CHUNKS)
        def spec_of(job: str) -> JobSpec | None:
            try:
                return self.repository.read_spec(job)
            except UnknownJob:
                return None

        @lru_cache(maxsize=_CACHED_CHUNKS)
        def chunk_of(job: str, chunk: int) -> ChunkRecord | None:
            return self.repository.chunks.read(job, chunk)

        for position, line in self.lines(start_after):
            spec = spec_of(line.job)
            record = None if spec is None else chunk_of(line.job, spec.chunk_after(line.index - 1))
            found = () if record is None else record.items
            sample = next((item for item in found if item.index == line.index and item.error is None), None)
            twin = None
            if spec is not None and record is not None and sample is not None:
                about = {"augmentation": self.run.run, "made_from": line.made_from}
                twin = SourceTwin(position, spec, record, sample, line.source_mask, about)
            yield position, line, twin

    def items(self, start_after: int | None = None) -> Iterator[tuple[int, DatasetItem | UnavailableItem]]:
        """The accepted twins after position ``start_after``; an UnavailableItem for each whose job was deleted."""
        gone: deque[tuple[int, UnavailableItem]] = deque()

        def available() -> Iterator[SourceTwin]:
            for position, line, twin in self._found(start_after):
                if twin is not None:
                    yield twin
                else:
                    detail = f"its job {line.job} was deleted"
                    gone.append((position, UnavailableItem(f"{line.job}/{line.index:08d}", "missing", detail)))

        for position, item in as_items(self.repository, self.card, available()):
            # twins are looked up ahead of the items that come out: what is gone before this item is known by now
            while gone and gone[0][0] < position:
                yield gone.popleft()
            yield position, item
        yield from gone


def read_accepted(repository: JobRepository, run: str, number: int) -> list[AcceptedLine]:
    """The accepted twins of a round. Raises StoreError if their list is gone or not valid."""
    key = accepted_key(repository.store, run, number)
    if key is None:
        raise StoreError(f"{round_state(run, number)} is gone from the object store; restore it")
    try:
        return [AcceptedLine.model_validate_json(line) for line in repository.store.get(key).splitlines()]
    except ObjectNotFound:
        raise StoreError(f"{key} is gone from the object store; restore it") from None
    except ValidationError as error:
        raise StoreError(
            f"{key} in the object store is not a list of accepted twins: {error.errors()[0]['msg']}"
        ) from None
