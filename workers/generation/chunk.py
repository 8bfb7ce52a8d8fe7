"""One chunk from its delivery to its record: what a task does. It may be delivered any number of times, to any worker.

Everything is read again from the store first, and a chunk that needs no work is left with a logged reason. Then: lease,
samples, objects (or one shard of them), and at last the record, written only if the lease has not passed to another
worker and no record is there. Until the record, nothing has happened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from service.errors import CardError, StoreError, UnknownJob, UnknownModel, WeightsError
from service.jobs.quotas import count_stored
from service.jobs.sample_item import MadeTwin
from service.jobs.shards import Shard, drop_uncounted, pack_shard, put_shard
from service.jobs.spec import ChunkRecord, JobSpec, SampleRecord
from workers.engine import EngineStopped
from workers.generation.completion import after_record, end_if_cancelled
from workers.generation.inputs import InputDamaged
from workers.generation.metrics import CHUNKS, SAMPLES
from workers.generation.pipeline import Abandoned, InFlightSample, given_up
from workers.generation.worker import Worker
from workers.models.loaded_model import LoadedModel, build_versions
from workers.runtime.lease_renewal import RenewedLease
from workers.runtime.leases import Lease

logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.25
_STORE_POLL_INTERVAL_S = 5.0


class ChunkOutcome(StrEnum):
    """How a delivery ended."""

    RECORDED = "recorded"
    NOTHING_TO_DO = "nothing to do"
    TAKEN = "another worker has it"
    CANCELLED = "job cancelled"
    FENCED = "lease lost to another worker"
    REQUEUED = "handed back at shutdown"
    FAILED = "failed, to be tried again"
    GIVEN_UP = "given up"


def generate_chunk(worker: Worker, job: str, chunk: int) -> ChunkOutcome:
    """Makes the twins of a chunk and records them, unless that has been done or must not be done."""
    try:
        outcome, why = _deliver(worker, job, chunk)
    except StoreError as error:
        # no fault of the chunk; the sweeper sends it again, and does so for as long as the store needs
        outcome, why = ChunkOutcome.FAILED, f"the store failed: {error.detail}"
        worker.live_state.publish_stalled(job, error.detail)
    CHUNKS.labels(outcome.name.lower()).inc()
    logger.info("job=%s chunk=%d %s%s", job, chunk, outcome.value, f": {why}" if why else "")
    return outcome


def _deliver(worker: Worker, job: str, chunk: int) -> tuple[ChunkOutcome, str]:
    try:
        spec = worker.repository.read_spec(job)
    except UnknownJob as error:
        return ChunkOutcome.NOTHING_TO_DO, error.detail
    worker.dispatcher.claimed(job, chunk)
    if chunk not in range(spec.chunks):
        return ChunkOutcome.NOTHING_TO_DO, f"the job has {spec.chunks} chunks"
    if worker.repository.read_summary(job) is not None:
        return ChunkOutcome.NOTHING_TO_DO, "the job has ended"
    if worker.repository.read_chunk(job, chunk) is not None:
        after_record(worker, spec, chunk)
        return ChunkOutcome.NOTHING_TO_DO, "the chunk is recorded"
    worker.progress.publish_started(spec)
    lease = worker.leases.take(job, chunk)
    if lease is None:
        return ChunkOutcome.TAKEN, ""
    try:
        with worker.renewer.keep(lease) as kept:
            # first the mark, then the look: whoever cancels writes the cancel first, then looks for the mark
            worker.start_marks.mark(job)
            if worker.repository.is_cancelled(job):
                outcome, why = ChunkOutcome.CANCELLED, ""
            else:
                outcome, why = Attempt(
                    worker, spec, chunk, lease, kept, worker.dispatcher.begin_attempt(job, chunk)
                ).run()
    finally:
        worker.progress.publish_left(spec, chunk)
    if outcome is ChunkOutcome.CANCELLED:
        end_if_cancelled(worker, spec)
    return outcome, why


@dataclass
class Attempt:
    """One try at a chunk under a lease."""

    worker: Worker
    spec: JobSpec
    chunk: int
    lease: Lease
    kept: RenewedLease
    number: int
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    steps_done: dict[int, int] = field(default_factory=dict)
    _asked_store_at: float = field(default_factory=time.monotonic)

    def run(self) -> tuple[ChunkOutcome, str]:
        """Makes the chunk and records it; puts every other end in words. Raises StoreError only."""
        dispatcher, job, limit = self.worker.dispatcher, self.spec.job, self.worker.settings.max_chunk_attempts
        try:
            if self.number > limit:
                reason = dispatcher.last_error(job, self.chunk) or "it ended with its worker each time"
                return self._give_up(f"given up after {limit} attempts; the last one: {reason}")
            # another worker may have recorded it between our look and our lease
            if self.worker.repository.read_chunk(job, self.chunk) is not None:
                dispatcher.cancel_attempt(job, self.chunk)
                return ChunkOutcome.NOTHING_TO_DO, "the chunk is recorded"
            with self.worker.models.use(self.spec.model, self.spec.weights_sha256, self._look_around) as model:
                shape, samples = model.batch_shape, self._make(model)
                while model.batch_shape != shape:
                    # halved for lack of memory while the chunk was made: again, so that the recorded shape is true of
                    # all
                    shape, samples = model.batch_shape, self._make(model)
            items, shard = self._pack(samples)
            return self._record(items, model, shape, shard)
        except _Released as released:
            dispatcher.cancel_attempt(job, self.chunk)
            if released.outcome is ChunkOutcome.REQUEUED:
                self.worker.renewer.release(self.kept)
                dispatcher.send(job, self.chunk, self.spec.priority)
            return released.outcome, ""
        except StoreError:
            dispatcher.cancel_attempt(job, self.chunk)
            raise
        except (UnknownModel, CardError, WeightsError) as error:
            # trying again would give the same
            return self._give_up(error.detail)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            logger.exception("job=%s chunk=%d attempt %d failed", job, self.chunk, self.number)
            if self.number >= limit:
                return self._give_up(f"given up after {limit} attempts; the last one: {reason}")
            dispatcher.record_error(job, self.chunk, reason)
            return ChunkOutcome.FAILED, reason

    def _make(self, model: LoadedModel) -> list[SampleRecord | MadeTwin]:
        """The chunk's samples in order, stored or, in a job of shards, held. They start as the house has room, and are
        watched until all are done."""
        to_start = list(self.spec.chunk_range(self.chunk))
        started: list[InFlightSample] = []
        try:
            while to_start or not all(in_flight.item.done() for in_flight in started):
                while to_start and (in_flight := self._start(model, to_start[0])) is not None:
                    started.append(in_flight)
                    to_start.pop(0)
                unfinished = [in_flight.item for in_flight in started if not in_flight.item.done()]
                if unfinished:
                    wait(unfinished, timeout=_POLL_INTERVAL_S, return_when=FIRST_COMPLETED)
                else:
                    self.worker.closed.wait(_POLL_INTERVAL_S)
                self._look_around()
            return [in_flight.item.result() for in_flight in started]
        except (Abandoned, EngineStopped):
            raise _Released(ChunkOutcome.REQUEUED) from None
        finally:
            for in_flight in started:
                in_flight.abandon()

    def _start(self, model: LoadedModel, index: int) -> InFlightSample | None:
        def on_step(done: int) -> None:
            self.steps_done[index] = done

        try:
            request = self.worker.inputs.request(self.spec, index)
        except InputDamaged as error:
            if self.number < self.worker.settings.max_chunk_attempts:
                raise
            # read torn so often, it is damaged; the samples of other masks are none the worse for it
            return InFlightSample.refused(model, self.spec, index, str(error))
        return self.worker.pipeline.start(model, self.spec, index, request, on_step)

    def _look_around(self) -> None:
        """Says that work goes on, and keeps the progress fresh. Raises :class:`_Released` when it is no longer wanted
        here."""
        now = time.monotonic()
        if self.worker.shutdown.out_of_time:
            raise _Released(ChunkOutcome.REQUEUED)
        if not self.kept.heartbeat():
            raise _Released(ChunkOutcome.FENCED)
        cancelled = self.worker.live_state.is_cancel_flagged(self.spec.job)
        if not cancelled and now - self._asked_store_at >= _STORE_POLL_INTERVAL_S:
            self._asked_store_at = now
            cancelled = self.worker.repository.is_cancelled(self.spec.job)
        if cancelled:
            raise _Released(ChunkOutcome.CANCELLED)
        self.worker.progress.publish_steps(self.spec, self.chunk, sum(self.steps_done.values()) / self.spec.steps)

    def _give_up(self, reason: str) -> tuple[ChunkOutcome, str]:
        """Records the chunk as failed with its reason, so that the job can go on and end."""
        items = [given_up(self.spec, index, reason) for index in self.spec.chunk_range(self.chunk)]
        outcome, why = self._record(items, None)
        return (ChunkOutcome.GIVEN_UP, reason) if outcome is ChunkOutcome.RECORDED else (outcome, why)

    def _pack(self, samples: Sequence[SampleRecord | MadeTwin]) -> tuple[Sequence[SampleRecord], Shard | None]:
        """The chunk's items, and the shard in which those that were held now lie, if any were. It counts by the record
        alone."""
        shard = pack_shard(self.spec, self.chunk, samples)
        if shard is None:
            return [sample for sample in samples if isinstance(sample, SampleRecord)], None
        shard = put_shard(self.worker.repository.store, shard)
        return shard.items, shard

    def _record(
        self,
        items: Sequence[SampleRecord],
        model: LoadedModel | None,
        batch_shape: tuple[int, ...] = (),
        shard: Shard | None = None,
    ) -> tuple[ChunkOutcome, str]:
        worker, spec = self.worker, self.spec
        record = ChunkRecord(
            job=spec.job,
            chunk=self.chunk,
            items=tuple(items),
            shard=None if shard is None else shard.recorded,
            worker=worker.name,
            epoch=self.lease.epoch,
            batch_shape=batch_shape,
            shapes=model.engine_model.shapes if model else "fixed",
            dtype=model.dtype_name if model else "none",
            device=model.device_name if model else "none",
            build=model.build if model else build_versions(0),
            attempt=max(1, self.number),
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
        )
        if not worker.leases.hold(self.lease):
            return ChunkOutcome.FENCED, ""
        if worker.repository.read_summary(spec.job) is not None:
            return ChunkOutcome.NOTHING_TO_DO, "the job has ended"
        first = worker.repository.write_chunk(record)
        if shard is not None:
            drop_uncounted(worker.repository, shard)
        if not first:
            return ChunkOutcome.NOTHING_TO_DO, "the chunk was recorded by another worker"
        worker.renewer.release(self.kept)
        worker.live_state.clear_stalled(spec.job)
        worker.progress.publish_recorded(spec, self.chunk, len(items))
        count_stored(worker.live_state, spec, record)
        SAMPLES.labels("made").inc(len(items) - record.failed)
        SAMPLES.labels("given_up").inc(record.failed)
        if record.failed:
            worker.dispatcher.record_error(spec.job, self.chunk, next(item.error for item in items if item.error) or "")
        after_record(worker, spec, self.chunk)
        return ChunkOutcome.RECORDED, f"{len(items) - record.failed} of {len(items)} samples" if record.failed else ""


class _Released(Exception):
    """The work is to be put down, for a reason that is not its own."""

    def __init__(self, outcome: ChunkOutcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome
