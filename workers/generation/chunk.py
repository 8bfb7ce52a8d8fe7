"""One delivery of a chunk: claim, samples, record. A chunk may be delivered any number of times, to any worker.

Everything is read from the store first, and a chunk that needs no work is left with a logged reason. Then the chunk is
claimed, its samples are made and stored as objects or as one shard, and the record is committed last. Until the record
is written the chunk has not happened.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from model_store.text import TextEncoderMissing
from service.errors import CardError, StoreError, UnknownJob, UnknownModel, WeightsError
from service.jobs.sample_item import MadeTwin
from service.jobs.shards import Shard, pack_shard, put_shard
from service.jobs.spec import ChunkRecord, JobSpec, SampleRecord
from service.kit.log_context import log_context
from service.kit.tracing import span
from workers.engine import EngineStopped
from workers.generation.claims import (
    Claim,
    CommitResult,
    JobCancelled,
    LeasedElsewhere,
    LeaseLost,
    LeftToAnother,
    Released,
    ShuttingDown,
)
from workers.generation.inputs import InputDamaged
from workers.generation.metrics import CHUNKS, SAMPLES
from workers.generation.pipeline import Abandoned, InFlightSample, failed_item
from workers.generation.worker import Worker
from workers.models.loaded_model import LoadedModel, build_versions

logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.25
_PAUSE_BEFORE_ANOTHER_S = 1.0
_MODEL_UNUSABLE = (UnknownModel, CardError, WeightsError, TextEncoderMissing, ImportError)
"""Errors of this worker with the job's model. Another worker may have other files, another version, or more memory."""


class ChunkOutcome(StrEnum):
    """How a delivery ended."""

    RECORDED = "recorded"
    NOTHING_TO_DO = "nothing to do"
    LEASED = "leased by another worker"
    CANCELLED = "job cancelled"
    FENCED = "lease lost to another worker"
    REQUEUED = "requeued at shutdown"
    LEFT_TO_ANOTHER = "left to another worker"
    RETRY = "failed, to be retried"
    FAILED = "failed for good"


_NOT_COMMITTED = {
    CommitResult.LEASE_LOST: (ChunkOutcome.FENCED, ""),
    CommitResult.JOB_ENDED: (ChunkOutcome.NOTHING_TO_DO, "the job has ended"),
    CommitResult.RECORDED_BEFORE: (ChunkOutcome.NOTHING_TO_DO, "another worker recorded the chunk"),
}


def generate_chunk(worker: Worker, job: str, chunk: int) -> ChunkOutcome:
    """Makes the twins of a chunk and records them, unless that has been done or must not be done."""
    spec: JobSpec | None = None
    try:
        spec = worker.repository.read_spec(job)
    except (UnknownJob, StoreError) as error:
        outcome, why = _unread(worker, job, error)
    origin = {} if spec is None else {"request_id": spec.request_id, "traceparent": spec.traceparent}
    with (
        log_context(job=job, chunk=chunk, **origin),
        span("chunk", traceparent=origin.get("traceparent"), job=job, chunk=chunk, request_id=origin.get("request_id")),
    ):
        if spec is not None:
            try:
                outcome, why = _deliver(worker, spec, chunk)
            except StoreError as error:
                outcome, why = _unread(worker, job, error)
        CHUNKS.labels(outcome.name.lower()).inc()
        logger.info("job=%s chunk=%d %s%s", job, chunk, outcome.value, f": {why}" if why else "")
    return outcome


def _unread(worker: Worker, job: str, error: UnknownJob | StoreError) -> tuple[ChunkOutcome, str]:
    """The outcome where the store has no such job, or fails."""
    if isinstance(error, UnknownJob):
        return ChunkOutcome.NOTHING_TO_DO, error.detail
    # no fault of the chunk; the sweeper requeues it until the store works again
    worker.live_state.publish_stalled(job, error.detail)
    return ChunkOutcome.RETRY, f"the store failed: {error.detail}"


def _deliver(worker: Worker, spec: JobSpec, chunk: int) -> tuple[ChunkOutcome, str]:
    job = spec.job
    worker.dispatcher.record_received(job, chunk)
    if chunk not in range(spec.chunks):
        return ChunkOutcome.NOTHING_TO_DO, f"the job has {spec.chunks} chunks"
    if worker.repository.read_summary(job) is not None:
        return ChunkOutcome.NOTHING_TO_DO, "the job has ended"
    if worker.repository.chunks.is_recorded(job, chunk):
        worker.completion.after_record(spec, chunk)
        return ChunkOutcome.NOTHING_TO_DO, "the chunk is recorded"
    with worker.isolation.room(spec, chunk) as alone:
        if alone is None:
            worker.dispatcher.send(spec, chunk)
            return ChunkOutcome.REQUEUED, ""
        return _claim(worker, spec, chunk, alone=alone)


def _claim(worker: Worker, spec: JobSpec, chunk: int, *, alone: bool) -> tuple[ChunkOutcome, str]:
    try:
        with worker.claims.claim(spec, chunk) as claim, worker.isolation.begun(spec, chunk, alone=alone):
            return Attempt(worker, claim).run()
    except LeasedElsewhere:
        return ChunkOutcome.LEASED, ""
    except LeaseLost:
        return ChunkOutcome.FENCED, ""
    except ShuttingDown:
        return ChunkOutcome.REQUEUED, ""
    except LeftToAnother as why:
        return ChunkOutcome.LEFT_TO_ANOTHER, f"this one cannot make it: {why}"
    except JobCancelled:
        worker.completion.end_if_cancelled(spec)
        return ChunkOutcome.CANCELLED, ""


@dataclass
class Attempt:
    """One attempt at a claimed chunk."""

    worker: Worker
    claim: Claim
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _steps_done: dict[int, int] = field(default_factory=dict)

    @property
    def spec(self) -> JobSpec:
        return self.claim.spec

    @property
    def chunk(self) -> int:
        return self.claim.chunk

    def run(self) -> tuple[ChunkOutcome, str]:
        """Makes the chunk and records it, or records why it failed. Raises :class:`Released` or StoreError only."""
        claim, limit = self.claim, self.worker.settings.max_chunk_attempts
        try:
            if claim.attempt > limit:
                reason = claim.last_error or "its worker died each time"
                return self._record_failure(f"failed after {limit} attempts; the last error: {reason}")
            # another worker may have recorded it between our look and our lease
            if self.worker.repository.chunks.is_recorded(self.spec.job, self.chunk):
                claim.cancel_attempt()
                return ChunkOutcome.NOTHING_TO_DO, "the chunk is recorded"
            with self.worker.models.use(self.spec.model_key, self.spec.weights_sha256, self._heartbeat) as model:
                shape, samples = model.batch_shape, self._make(model)
                while model.batch_shape != shape:
                    # the shape was halved for lack of memory: all samples again, so that the recorded shape is true of
                    # each
                    shape, samples = model.batch_shape, self._make(model)
            items, shard = self._pack(samples)
            return self._record(items, model, shape, shard)
        except Released:
            raise
        except StoreError:
            claim.cancel_attempt()
            raise
        except _MODEL_UNUSABLE as error:
            # another attempt of this worker would fail the same way
            if self.worker.fleet.may_leave_to_another(self.spec.job, self.chunk):
                # the other one gets the time to take it
                self.worker.closed.wait(_PAUSE_BEFORE_ANOTHER_S)
                raise LeftToAnother(str(error)) from error
            return self._record_failure(str(error))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            logger.exception("job=%s chunk=%d attempt %d failed", self.spec.job, self.chunk, claim.attempt)
            if claim.attempt >= limit:
                return self._record_failure(f"failed after {limit} attempts; the last error: {reason}")
            claim.record_error(reason)
            return ChunkOutcome.RETRY, reason

    def _make(self, model: LoadedModel) -> list[SampleRecord | MadeTwin]:
        """The chunk's samples in order, stored or, in a job of shards, in memory.

        Samples start as the pipeline has slots, and the claim gets a heartbeat until all are done.
        """
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
                self._heartbeat()
            return [in_flight.item.result() for in_flight in started]
        except (Abandoned, EngineStopped):
            raise ShuttingDown from None
        finally:
            for in_flight in started:
                in_flight.abandon()

    def _start(self, model: LoadedModel, index: int) -> InFlightSample | None:
        def on_step(done: int) -> None:
            self._steps_done[index] = done

        try:
            request = self.worker.inputs.request(self.spec, index)
        except InputDamaged as error:
            if self.claim.attempt < self.worker.settings.max_chunk_attempts:
                raise
            # read torn at every attempt, the mask is damaged; the samples of other masks are not affected
            return InFlightSample.failed(model, self.spec, index, str(error))
        return self.worker.pipeline.start(model, self.spec, index, request, on_step)

    def _heartbeat(self) -> None:
        """Sends the claim's heartbeat and the progress. Raises :class:`Released` when the work must stop."""
        self.claim.heartbeat()
        self.claim.report_steps(sum(self._steps_done.values()) / self.spec.steps)

    def _pack(self, samples: Sequence[SampleRecord | MadeTwin]) -> tuple[Sequence[SampleRecord], Shard | None]:
        """The chunk's items, and the stored shard of those that were in memory, if any.

        The shard counts once the record is written.
        """
        shard = pack_shard(self.spec, self.chunk, samples)
        if shard is None:
            return [sample for sample in samples if isinstance(sample, SampleRecord)], None
        put_shard(self.worker.repository.store, shard)
        return shard.items, shard

    def _record_failure(self, reason: str) -> tuple[ChunkOutcome, str]:
        """Records all of the chunk's samples as failed, so that the job can go on and end."""
        items = [failed_item(self.spec, index, reason) for index in self.spec.chunk_range(self.chunk)]
        outcome, why = self._record(items, None)
        return (ChunkOutcome.FAILED, reason) if outcome is ChunkOutcome.RECORDED else (outcome, why)

    def _record(
        self,
        items: Sequence[SampleRecord],
        model: LoadedModel | None,
        batch_shape: tuple[int, ...] = (),
        shard: Shard | None = None,
    ) -> tuple[ChunkOutcome, str]:
        """Commits the record, then sends the job's next chunk or ends the job."""
        record = ChunkRecord(
            job=self.spec.job,
            chunk=self.chunk,
            items=tuple(items),
            shard=None if shard is None else shard.recorded,
            worker=self.worker.name,
            epoch=self.claim.epoch,
            batch_shape=batch_shape,
            shapes=model.engine_model.shapes if model else "fixed",
            dtype=model.dtype_name if model else "none",
            device=model.device_name if model else "none",
            build=model.build if model else build_versions(0),
            attempt=max(1, self.claim.attempt),
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
        )
        result = self.claim.commit(record)
        if result is not CommitResult.RECORDED:
            return _NOT_COMMITTED[result]
        made = len(items) - record.failed
        SAMPLES.labels("made").inc(made)
        SAMPLES.labels("failed").inc(record.failed)
        self.worker.completion.after_record(self.spec, self.chunk)
        return ChunkOutcome.RECORDED, f"{made} of {len(items)} samples" if record.failed else ""
