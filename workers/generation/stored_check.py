"""Check of what a job's records count: every object is read and compared with its recorded sha256."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.errors import ObjectDamaged, ObjectNotFound, StoreError, StoreUnavailable
from service.jobs.repository import JobRepository
from service.jobs.sample_files import read_sample_file, sample_files_of
from service.jobs.spec import ChunkRecord, SampleRecord
from service.store.base import ObjectInfo
from service.store.checked import READS
from service.store.immutable import StoredObject, is_intact

logger = logging.getLogger(__name__)


class Fault(StrEnum):
    """What is wrong with a stored twin."""

    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True)
class CheckedChunk:
    """The findings about a chunk. ``record``, at ``key``: None if it is lost; ``faults``: of twins, by index."""

    chunk: int
    key: str | None
    record: ChunkRecord | None
    faults: Mapping[int, Fault]
    shard_broken: bool = False

    @property
    def intact(self) -> bool:
        return self.record is not None and not self.faults and not self.shard_broken


@dataclass(frozen=True)
class StoredCheck:
    """Checks chunks of ``job``. All methods raise StoreUnavailable; they may be called from many threads."""

    repository: JobRepository
    job: str

    def check(self, chunk: int, info: ObjectInfo | None) -> CheckedChunk:
        key = None if info is None else info.key
        record = None if key is None else self.readable(key)
        if record is None:
            return CheckedChunk(chunk, key, None, {})
        if record.shard is not None:
            return self._check_shard(key, record, record.shard)
        faults = {}
        for item in record.items:
            files = [StoredObject(key=file.key, sha256=file.sha256, bytes=file.bytes) for file in sample_files_of(item)]
            found = {fault for file in files if (fault := self._fault(file)) is not None}
            if found:
                faults[item.index] = Fault.MISSING if Fault.MISSING in found else Fault.DAMAGED
        return CheckedChunk(chunk, key, record, faults)

    def _check_shard(self, key: str | None, record: ChunkRecord, shard: StoredObject) -> CheckedChunk:
        fault = self._fault(shard)
        twins = [item for item in record.items if item.error is None]
        if fault is None:
            return CheckedChunk(record.chunk, key, record, {})
        if fault is Fault.MISSING:
            return CheckedChunk(record.chunk, key, record, {item.index: fault for item in twins}, True)
        faults = {item.index: Fault.DAMAGED for item in twins if self.files_of(item) is None}
        return CheckedChunk(record.chunk, key, record, faults, True)

    def _fault(self, stored: StoredObject) -> Fault | None:
        """What is wrong with an object, which is read again if it is wrong: it may have been read torn."""
        store = self.repository.store
        for _ in range(READS):
            if store.head(stored.key) is None:
                return Fault.MISSING
            if is_intact(store, stored):
                return None
        return Fault.DAMAGED

    def files_of(self, item: SampleRecord) -> list[bytes] | None:
        """The files of a twin; None if one is damaged or missing."""
        try:
            return [read_sample_file(self.repository.store, file) for file in sample_files_of(item)]
        except (ObjectDamaged, ObjectNotFound):
            return None

    def readable(self, key: str) -> ChunkRecord | None:
        try:
            return self.repository.chunks.read_record(key)
        except StoreUnavailable:
            raise
        except StoreError as error:
            logger.warning("job=%s: %s", self.job, error.detail)
            return None
