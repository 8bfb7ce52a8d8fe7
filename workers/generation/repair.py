"""Repair of a job that has ended: what its records count is checked, and what is damaged or missing is made again.

Every object is read and compared with its sha256. A damaged or missing twin is made again under the conditions that its
record names. Where this machine gives the recorded bytes, they are put back under the recorded keys, and nothing else
changes. Where it does not, the twin gets keys of its own, and a new record of its chunk, which says on what it was made
and when, counts in the place of the old one; then a new manifest does, too.

A repair may be interrupted anywhere and started again, also by two workers at once: what was repaired is found intact.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.errors import StoreError, StoreUnavailable
from service.jobs.repairs import Repair, RepairFailure, RepairRequest
from service.jobs.repository import JobRepository
from service.jobs.sample_files import Kind, sample_files_of
from service.jobs.sample_item import MadeTwin
from service.jobs.shards import pack_shard, put_shard
from service.jobs.spec import ChunkRecord, JobSpec, MadeOn, Remade, SampleRecord, Summary
from service.kit.prefetch import prefetch
from service.store.base import ObjectInfo
from service.store.immutable import StoredObject
from workers.generation.pipeline import failed_item
from workers.generation.stored_check import CheckedChunk, Fault, StoredCheck
from workers.generation.twin_maker import RemadeTwin, TwinMaker

logger = logging.getLogger(__name__)
_MAX_FAILURES = 20
_MAX_RACES = 3
_SHARD_KEPT = "another twin of its shard could not be made again, so the shard stays as it is"


@dataclass
class JobRepair:
    """One repair of the job of ``spec``. ``worker`` is named in new records."""

    repository: JobRepository
    spec: JobSpec
    summary: Summary
    request: RepairRequest
    maker: TwinMaker
    worker: str
    checked: int = 0
    restored: int = 0
    replaced: int = 0
    lost_records: int = 0
    faults: list[Fault] = field(default_factory=list)
    failures: list[RepairFailure] = field(default_factory=list)
    _new_records: bool = False
    _conditions: MadeOn | None = None

    def __post_init__(self) -> None:
        self.number = len(self.repository.repairs.of_job(self.spec.job)) + 1
        self._checks = StoredCheck(self.repository, self.spec.job)

    def steps(self) -> Iterator[int]:
        """Checks and repairs one chunk after the other, and yields its number. Raises the store's errors."""
        with closing(prefetch(lambda found: self._checks.check(*found), self._chunks())) as checked:
            for _, found in checked:
                self._repair(found)
                yield found.chunk

    def conclude(self) -> Repair:
        """Writes the manifest and what the repair found and did. Call it once all steps are done."""
        repository, spec = self.repository, self.spec
        counted, manifest = repository.manifest_key(spec.job, self.summary), None
        try:
            manifest = repository.write_manifest(spec)
            if self._new_records:
                size = repository.chunks.tally(spec).bytes + manifest.bytes
                repository.usage.drop_bytes(spec.tenant, spec.job)
                repository.usage.record_stored(spec, size)
        except StoreUnavailable:
            raise
        except StoreError as error:  # a record that could not be made again
            logger.warning("job=%s has no whole manifest: %s", spec.job, error.detail)
        damaged = self.faults.count(Fault.DAMAGED)
        return repository.repairs.record(
            Repair(
                job=spec.job,
                number=self.number,
                requested_at=self.request.requested_at,
                finished_at=datetime.now(UTC),
                checked=self.checked,
                damaged=damaged,
                missing=len(self.faults) - damaged,
                lost_records=self.lost_records,
                restored=self.restored,
                replaced=self.replaced,
                failed=len(self.failures),
                failures=tuple(self.failures[:_MAX_FAILURES]),
                manifest=None if manifest is None or manifest.key == counted else manifest,
            )
        )

    def _chunks(self) -> Iterator[tuple[int, ObjectInfo | None]]:
        """The chunks to check, each with its record that counts, None for one that was lost."""
        recorded = dict(self.repository.chunks.recorded(self.spec.job))
        all_recorded = self.summary.done + self.summary.failed == self.summary.total
        for chunk in range(self.spec.chunks):
            if chunk in recorded or all_recorded:
                yield chunk, recorded.get(chunk)

    def _repair(self, found: CheckedChunk, races: int = 0) -> None:
        """Repairs a chunk; once more from its check if another worker's record came first."""
        record, before = found.record, self._counts()
        self.checked += 0 if record is None else sum(item.error is None for item in record.items)
        if record is not None:
            self._conditions = record
        if found.intact:
            return
        self.faults += found.faults.values()
        if record is None:
            won = self._make_lost(found)
        elif record.shard is not None:
            won = self._repair_shard(found, record, record.shard)
        else:
            won = self._repair_objects(found, record)
        if not won and races < _MAX_RACES:
            self._counts(before)
            recorded = dict(self.repository.chunks.recorded(self.spec.job, start_at=found.chunk))
            self._repair(self._checks.check(found.chunk, recorded.get(found.chunk)), races + 1)

    def _counts(self, back_to: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The counts so far; with ``back_to``, set back to what they were."""
        if back_to:
            self.checked, self.restored, self.replaced, self.lost_records, faults, failures = back_to
            del self.faults[faults:], self.failures[failures:]
        return (
            self.checked, self.restored, self.replaced, self.lost_records, len(self.faults), len(self.failures)
        )  # fmt: skip

    def _repair_objects(self, found: CheckedChunk, record: ChunkRecord) -> bool:
        """Repairs a chunk whose files are objects; False if another worker recorded it meanwhile."""
        store, items = self.repository.store, list(record.items)
        made = self.maker.make({item.index: record.made_on(item) for item in items if item.index in found.faults})
        for place, item in enumerate(items):
            remade = made.get(item.index)
            if remade is None:
                continue
            if remade.twin is None:
                self._fail(item.index, remade.reason)
            elif _same(remade.twin, item):
                for file in sample_files_of(item):
                    store.put(file.key, remade.twin.files[file.kind])
                self.restored += 1
            else:
                items[place] = self._marked(remade.twin.store(store, self.spec.job), item, remade.made_on)
                self.replaced += 1
        return tuple(items) == record.items or self._record(found, record.model_copy(update={"items": tuple(items)}))

    def _repair_shard(self, found: CheckedChunk, record: ChunkRecord, shard: StoredObject) -> bool:
        """Repairs a chunk's shard; False if another worker recorded the chunk meanwhile."""
        faulty = [item for item in record.items if item.index in found.faults]
        made = self.maker.make({item.index: record.made_on(item) for item in faulty})
        reasons = {index: remade.reason for index, remade in made.items() if remade.twin is None}
        samples = [self._sample(item, made) for item in record.items]
        twins = [sample for sample in samples if sample is not None]
        if reasons or len(twins) < len(samples):
            for item in faulty:
                self._fail(item.index, reasons.get(item.index, _SHARD_KEPT))
            return True
        packed = pack_shard(self.spec, record.chunk, twins)
        assert packed is not None
        if packed.sha256 == shard.sha256:
            self.repository.store.put(shard.key, packed.data)
            self.restored += len(faulty)
            return True
        put_shard(self.repository.store, packed)
        items = []
        for item, before in zip(packed.items, record.items, strict=True):
            changed = _hashes(item) != _hashes(before)
            if changed:
                items.append(self._marked(item, before, made[item.index].made_on))
            else:
                items.append(item.model_copy(update={"remade": before.remade}))
            self.replaced += changed
            self.restored += before.index in found.faults and not changed
        return self._record(found, record.model_copy(update={"items": tuple(items), "shard": packed.recorded}))

    def _sample(self, item: SampleRecord, made: Mapping[int, RemadeTwin]) -> SampleRecord | MadeTwin | None:
        """An item for a new shard: a failed one as it is, a twin made again or as stored; None if it is lost."""
        if item.error is not None:
            return item
        if item.index in made:
            return made[item.index].twin
        files = self._checks.files_of(item)
        if files is None:
            return None
        found = {file.kind: data for file, data in zip(sample_files_of(item), files, strict=True)}
        scores = (item.classes, item.confident_share, item.mean_confidence)
        return MadeTwin(item.index, item.seed, found["image"], found.get("mask"), *scores, found.get("instances"))

    def _make_lost(self, found: CheckedChunk) -> bool:
        """Makes a chunk whose record is lost; False if another worker recorded it meanwhile."""
        spec, store, chunk = self.spec, self.repository.store, found.chunk
        indices = spec.chunk_range(chunk)
        conditions = self._conditions or self._conditions_of_any()
        if conditions is None:
            for index in indices:
                self._fail(index, "no record of the job can be read, so that it is not known how its twins were made")
            return True
        began = datetime.now(UTC)
        made = self.maker.make(dict.fromkeys(indices, conditions))
        samples: list[SampleRecord | MadeTwin] = []
        for index, remade in made.items():
            if remade.twin is None:
                self._fail(index, remade.reason)
            samples.append(remade.twin or failed_item(spec, index, remade.reason))
        if not any(isinstance(sample, MadeTwin) for sample in samples):
            return True
        shard = pack_shard(spec, chunk, samples) if spec.layout == "shards" else None
        if shard is not None:
            put_shard(store, shard)
        items = (
            shard.items
            if shard is not None
            else [sample.store(store, spec.job) if isinstance(sample, MadeTwin) else sample for sample in samples]
        )
        self.lost_records += 1
        made_on = next(iter(made.values())).made_on
        return self._record(
            found,
            ChunkRecord(
                **{name: getattr(made_on, name) for name in MadeOn.model_fields},
                job=spec.job,
                chunk=chunk,
                items=tuple(items),
                shard=None if shard is None else shard.recorded,
                worker=self.worker,
                epoch=0,
                attempt=1,
                started_at=began,
                finished_at=datetime.now(UTC),
            ),
        )

    def _conditions_of_any(self) -> MadeOn | None:
        recorded = (self._checks.readable(info.key) for _, info in self.repository.chunks.recorded(self.spec.job))
        return next((record for record in recorded if record is not None), None)

    def _record(self, found: CheckedChunk, record: ChunkRecord) -> bool:
        """Writes a chunk's new record; False if another worker has replaced the one that was checked."""
        self._new_records = True
        return self.repository.chunks.replace(record, found.key)

    def _marked(self, item: SampleRecord, before: SampleRecord, made_on: MadeOn) -> SampleRecord:
        """The item with the mark that it was made again in other bytes."""
        mark = Remade(
            **{name: getattr(made_on, name) for name in MadeOn.model_fields},
            repair=self.number,
            worker=self.worker,
            at=datetime.now(UTC),
            former_image_sha256=before.image_sha256,
            former_mask_sha256=before.mask_sha256,
        )
        return item.model_copy(update={"remade": mark})

    def _fail(self, index: int, reason: str) -> None:
        self.failures.append(RepairFailure(index=index, reason=reason[:2000]))


def _same(twin: MadeTwin, item: SampleRecord) -> bool:
    return twin.sha256 == _hashes(item)


def _hashes(item: SampleRecord) -> Mapping[Kind, str]:
    return {file.kind: file.sha256 for file in sample_files_of(item)}
