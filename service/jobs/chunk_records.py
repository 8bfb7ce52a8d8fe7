"""The records of a job's chunks: a chunk has happened once its record is in the store.

    jobs/{job}/chunks/{chunk:06d}.json                written once, by the worker that made the chunk
    jobs/{job}/chunks/{chunk:06d}.r{number:04d}.json  written in the place of one that is damaged or lost

Records are only ever added, and the last one in the order of keys counts. One that cannot be read is not written over:
while the job runs its chunk is made again, and the new record counts in its place.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from service.errors import ObjectDamaged, ObjectNotFound, RecordUnreadable
from service.jobs.spec import ChunkRecord, JobSpec, SampleRecord, Summary
from service.kit.frozen import parse_stored
from service.kit.prefetch import prefetch
from service.store import keys
from service.store.base import ObjectInfo, ObjectStore
from service.store.checked import READS
from service.store.immutable import put_once

Unreadable = dict[int, RecordUnreadable]
"""Chunks whose record that counts cannot be read, each with the reason."""

_KEY = re.compile(r"jobs/([^/]+)/chunks/(\d+)(?:\.r(\d+))?\.json", re.ASCII)


@dataclass(frozen=True)
class JobTally:
    """Totals of a job's chunk records; ``bytes`` are those of its images and masks, or of its shards."""

    done: int
    failed: int
    bytes: int
    started_at: datetime | None


@dataclass(frozen=True)
class ChunkRecords:
    """The chunk records of the jobs in ``store``.

    Methods that read several raise :class:`RecordUnreadable` at one that cannot be read. With an empty ``unreadable``
    they leave such ones out and note them there.
    """

    store: ObjectStore

    def write(self, record: ChunkRecord) -> bool:
        """Commits a chunk; False if it was committed before, perhaps with other bytes: then that record counts.

        One that cannot be read does not count: this one is written in its place.
        """
        if self._put_once(keys.job_chunk(record.job, record.chunk), record):
            return True
        key = self._last(record.job, record.chunk)
        return key is not None and not self._is_readable(key) and self.replace(record, key)

    def replace(self, record: ChunkRecord, replaces: str | None) -> bool:
        """Writes the record in the place of the one at key ``replaces``, or of a lost one (None).

        False if another worker has replaced that one meanwhile: then its record counts.
        """
        if replaces is None:
            return self._put_once(keys.job_chunk(record.job, record.chunk), record)
        number = (replacement_number(replaces) or 0) + 1
        repaired = record.model_copy(update={"format": 2})
        return self._put_once(keys.job_repaired_chunk(record.job, record.chunk, number), repaired)

    def is_recorded(self, job: str, chunk: int) -> bool:
        """Whether the chunk has been committed, with a record that can be read."""
        if self.store.head(keys.job_chunk(job, chunk)) is None:
            return False
        key = self._last(job, chunk)
        return key is not None and self._is_readable(key)

    def read(self, job: str, chunk: int) -> ChunkRecord | None:
        """The chunk's record that counts, or None if the chunk has not been committed."""
        key = self._last(job, chunk)
        return None if key is None else self.read_record(key)

    def read_record(self, key: str) -> ChunkRecord | None:
        """The chunk record at ``key``, or None if there is none. It is read again if it cannot be read: it may have
        been read torn."""
        named = _KEY.fullmatch(key)
        if named is None:
            return None
        identity = {"job": named[1], "chunk": int(named[2])}
        remedy = f"once the job has ended, POST /jobs/{named[1]}/repair makes the chunk's twins again"
        for reads in range(1, READS + 1):
            try:
                return parse_stored(ChunkRecord, self.store.get(key), key, remedy=remedy, **identity)
            except ObjectNotFound:
                return None
            except (RecordUnreadable, ObjectDamaged) as error:
                if reads == READS:
                    if isinstance(error, RecordUnreadable):
                        raise
                    raise RecordUnreadable(f"{key} in the object store is damaged; {remedy}", key=key) from error
        raise AssertionError

    def recorded(self, job: str, *, start_at: int = 0) -> Iterator[tuple[int, ObjectInfo]]:
        """The chunks with a record, from ``start_at`` on, in order, each with the record that counts; by listing alone.

        That is the one written last in the place of others, which is listed last.
        """
        prefix = keys.job_chunks_prefix(job)
        last: tuple[int, ObjectInfo] | None = None
        for info in self.store.list(prefix, start_after=f"{prefix}{start_at:06d}"):
            named = _KEY.fullmatch(info.key)
            if named is None:
                continue  # no record of ours
            chunk = int(named[2])
            if last is not None and last[0] != chunk:
                yield last
            last = chunk, info
        if last is not None:
            yield last

    def missing(self, spec: JobSpec) -> Iterator[int]:
        """The chunks without a record, in order."""
        expected = 0
        for chunk, _ in self.recorded(spec.job):
            yield from range(expected, chunk)
            expected = chunk + 1
        yield from range(expected, spec.chunks)

    def missing_samples(self, spec: JobSpec, summary: Summary) -> Iterator[int]:
        """The indices, in order, of which an ended job has no twin: not made, failed, or in an unreadable record.

        If no sample failed, a listing is enough; otherwise every record is read.
        """
        recorded = list(self.recorded(spec.job))
        if summary.failed == 0 and sum(len(spec.chunk_range(chunk)) for chunk, _ in recorded) == summary.done:
            for chunk in self.missing(spec):
                yield from spec.chunk_range(chunk)
            return
        expected = 0
        for record in self.read_all(recorded, {}):
            for chunk in range(expected, record.chunk):
                yield from spec.chunk_range(chunk)
            yield from (item.index for item in record.items if item.error is not None)
            expected = record.chunk + 1
        for chunk in range(expected, spec.chunks):
            yield from spec.chunk_range(chunk)

    def iterate(self, job: str, unreadable: Unreadable | None = None, *, start_at: int = 0) -> Iterator[ChunkRecord]:
        """The job's records from chunk ``start_at`` on, in order, read ahead."""
        return self.read_all(self.recorded(job, start_at=start_at), unreadable)

    def read_all(
        self, recorded: Iterable[tuple[int, ObjectInfo]], unreadable: Unreadable | None = None
    ) -> Iterator[ChunkRecord]:
        """The records of ``recorded`` chunks, in that order, read ahead; one that has gone is left out."""

        def read(found: tuple[int, ObjectInfo]) -> ChunkRecord | RecordUnreadable | None:
            try:
                return self.read_record(found[1].key)
            except RecordUnreadable as error:
                return error

        for (chunk, _), record in prefetch(read, recorded):
            if isinstance(record, RecordUnreadable):
                if unreadable is None:
                    raise record
                unreadable[chunk] = record
            elif record is not None:
                yield record

    def items(
        self, spec: JobSpec, unreadable: Unreadable | None = None, *, after: int | None = None
    ) -> Generator[tuple[ChunkRecord, SampleRecord], None, None]:
        """The job's samples with index above ``after``, in order, each with its chunk's record."""
        beyond = -1 if after is None else after
        for record in self.iterate(spec.job, unreadable, start_at=spec.chunk_after(beyond)):
            for item in record.items:
                if item.index > beyond:
                    yield record, item

    def tally(self, spec: JobSpec, unreadable: Unreadable | None = None) -> JobTally:
        """Counts the job's samples by reading every record. Those of ``unreadable`` chunks count as failed."""
        done = failed = size = 0
        started_at: datetime | None = None
        for record in self.iterate(spec.job, unreadable):
            failed += record.failed
            size += record.bytes
            done += len(record.items) - record.failed
            started_at = record.started_at if started_at is None else min(started_at, record.started_at)
        failed += sum(len(spec.chunk_range(chunk)) for chunk in unreadable or ())
        return JobTally(done, failed, size, started_at)

    def _last(self, job: str, chunk: int) -> str | None:
        """The key of the chunk's record that counts."""
        found = [info.key for info in self.store.list(f"{keys.job_chunks_prefix(job)}{chunk:06d}.")]
        return found[-1] if found else None

    def _is_readable(self, key: str) -> bool:
        try:
            return self.read_record(key) is not None
        except RecordUnreadable:
            return False

    def _put_once(self, key: str, record: ChunkRecord) -> bool:
        return put_once(self.store, key, record.model_dump_json().encode())


def replacement_number(key: str) -> int | None:
    """Which replacement (1, 2, ...) of its chunk's first record is at ``key``; None for the first record itself."""
    named = _KEY.fullmatch(key)
    return None if named is None or named[3] is None else int(named[3])
