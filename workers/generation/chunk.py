"""One chunk from its delivery to its record: what a task does. It may be delivered any number of times, to any worker.

Everything is read again from the store first, and a chunk that needs no work is left with a logged reason. Then: lease,
samples, objects (or one shard of them), and at last the record, written only if the lease has not passed to another worker
and no record is there. Until the record, nothing has happened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import StrEnum

from service.errors import CardError, StoreError, UnknownJob, UnknownModel, WeightsError
from service.jobs.quotas import count_stored
from service.jobs.sample_item import MadeTwin
from service.jobs.shards import Shard, drop_uncounted, pack_shard, put_shard
from service.jobs.spec import ChunkRecord, Item, JobSpec
from workers.engine import EngineStopped
from workers.generation.completion import after_record, end_if_cancelled
from workers.generation.inputs import InputDamaged
from workers.generation.metrics import CHUNKS, SAMPLES
from workers.generation.pipeline import Abandoned, Making, given_up
from workers.generation.worker import Worker
from workers.models.loaded_model import LoadedModel, build_versions
from workers.runtime.lease_renewal import Kept
from workers.runtime.leases import Lease

logger = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.25
_ASK_STORE_EVERY_S = 5.0


class Outcome(StrEnum):
    """How a delivery ended."""

    RECORDED = "recorded"
    NOTHING_TO_DO = "nothing to do"
    TAKEN = "another worker has it"
    CANCELLED = "job cancelled"
    FENCED = "lease lost to another worker"
    HANDED_BACK = "handed back at shutdown"
    FAILED = "failed, to be tried again"
    GIVEN_UP = "given up"


def generate_chunk(worker: Worker, job: str, chunk: int) -> Outcome:
    """Makes the twins of a chunk and records them, unless that has been done or must not be done."""
    try:
        outcome, why = _deliver(worker, job, chunk)
    except StoreError as error:
        # no fault of the chunk; the sweeper sends it again, and does so for as long as the store needs
        outcome, why = Outcome.FAILED, f"the store failed: {error.detail}"
        worker.hints.note_trouble(job, error.detail)
    CHUNKS.labels(outcome.name.lower()).inc()
    logger.info("job=%s chunk=%d %s%s", job, chunk, outcome.value, f": {why}" if why else "")
    return outcome


def _deliver(worker: Worker, job: str, chunk: int) -> tuple[Outcome, str]:
    try:
        spec = worker.ledger.read_spec(job)
    except UnknownJob as error:
        return Outcome.NOTHING_TO_DO, error.detail
    worker.window.taken_up(job, chunk)
    if chunk not in range(spec.chunks):
        return Outcome.NOTHING_TO_DO, f"the job has {spec.chunks} chunks"
    if worker.ledger.read_summary(job) is not None:
        return Outcome.NOTHING_TO_DO, "the job has ended"
    if worker.ledger.read_chunk(job, chunk) is not None:
        after_record(worker, spec, chunk)
        return Outcome.NOTHING_TO_DO, "the chunk is recorded"
    worker.pace.note_started(spec)
    lease = worker.leases.take(job, chunk)
    if lease is None:
        return Outcome.TAKEN, ""
    try:
        with worker.keeper.keep(lease) as kept:
            # first the mark, then the look: whoever cancels writes the cancel first, then looks for the mark
            worker.starts.mark(job)
            if worker.ledger.is_cancelled(job):
                outcome, why = Outcome.CANCELLED, ""
            else:
                outcome, why = Attempt(worker, spec, chunk, lease, kept, worker.window.begin_attempt(job, chunk)).run()
    finally:
        worker.pace.note_left(spec, chunk)
    if outcome is Outcome.CANCELLED:
        end_if_cancelled(worker, spec)
    return outcome, why


@dataclass
class Attempt:
    """One try at a chunk under a lease."""

    worker: Worker
    spec: JobSpec
    chunk: int
    lease: Lease
    kept: Kept
    number: int
    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    steps_done: dict[int, int] = field(default_factory=dict)
    _asked_store_at: float = field(default_factory=time.monotonic)

    def run(self) -> tuple[Outcome, str]:
        """Makes the chunk and records it; puts every other end in words. Raises StoreError only."""
        window, job, limit = self.worker.window, self.spec.job, self.worker.settings.max_chunk_attempts
        try:
            if self.number > limit:
                reason = window.last_error(job, self.chunk) or "it ended with its worker each time"
                return self._give_up(f"given up after {limit} attempts; the last one: {reason}")
            # another worker may have recorded it between our look and our lease
            if self.worker.ledger.read_chunk(job, self.chunk) is not None:
                window.call_off_attempt(job, self.chunk)
                return Outcome.NOTHING_TO_DO, "the chunk is recorded"
            with self.worker.models.use(self.spec.model, self.spec.weights_sha256, self._look_around) as model:
                shape, samples = model.batch_shape, self._make(model)
                while model.batch_shape != shape:
                    # halved for lack of memory while the chunk was made: again, so that the recorded shape is true of all
                    shape, samples = model.batch_shape, self._make(model)
            items, shard = self._pack(samples)
            return self._record(items, model, shape, shard)
        except _PutDown as put_down:
            window.call_off_attempt(job, self.chunk)
            if put_down.outcome is Outcome.HANDED_BACK:
                self.worker.keeper.release(self.kept)
                window.send(job, self.chunk, self.spec.priority)
            return put_down.outcome, ""
        except StoreError:
            window.call_off_attempt(job, self.chunk)
            raise
        except (UnknownModel, CardError, WeightsError) as error:
            # trying again would give the same
            return self._give_up(error.detail)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            logger.exception("job=%s chunk=%d attempt %d failed", job, self.chunk, self.number)
            if self.number >= limit:
                return self._give_up(f"given up after {limit} attempts; the last one: {reason}")
            window.note_error(job, self.chunk, reason)
            return Outcome.FAILED, reason

    def _make(self, model: LoadedModel) -> list[Item | MadeTwin]:
        """The chunk's samples in order, stored or, in a job of shards, held. They start as the house has room, and are
        watched until all are done."""
        to_start = list(self.spec.chunk_range(self.chunk))
        started: list[Making] = []
        try:
            while to_start or not all(making.item.done() for making in started):
                while to_start and (making := self._start(model, to_start[0])) is not None:
                    started.append(making)
                    to_start.pop(0)
                unfinished = [making.item for making in started if not making.item.done()]
                if unfinished:
                    wait(unfinished, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
                else:
                    self.worker.closed.wait(_LOOK_EVERY_S)
                self._look_around()
            return [making.item.result() for making in started]
        except (Abandoned, EngineStopped):
            raise _PutDown(Outcome.HANDED_BACK) from None
        finally:
            for making in started:
                making.abandon()

    def _start(self, model: LoadedModel, index: int) -> Making | None:
        def on_step(done: int) -> None:
            self.steps_done[index] = done

        try:
            request = self.worker.inputs.request(self.spec, index)
        except InputDamaged as error:
            if self.number < self.worker.settings.max_chunk_attempts:
                raise
            # read torn so often, it is damaged; the samples of other masks are none the worse for it
            return Making.refused(model, self.spec, index, str(error))
        return self.worker.pipeline.start(model, self.spec, index, request, on_step)

    def _look_around(self) -> None:
        """Says that work goes on, and keeps the progress fresh. Raises :class:`_PutDown` when it is no longer wanted here."""
        now = time.monotonic()
        if self.worker.stopping.out_of_time:
            raise _PutDown(Outcome.HANDED_BACK)
        if not self.kept.still_here():
            raise _PutDown(Outcome.FENCED)
        cancelled = self.worker.hints.is_cancel_flagged(self.spec.job)
        if not cancelled and now - self._asked_store_at >= _ASK_STORE_EVERY_S:
            self._asked_store_at = now
            cancelled = self.worker.ledger.is_cancelled(self.spec.job)
        if cancelled:
            raise _PutDown(Outcome.CANCELLED)
        self.worker.pace.note_steps(self.spec, self.chunk, sum(self.steps_done.values()) / self.spec.steps)

    def _give_up(self, reason: str) -> tuple[Outcome, str]:
        """Records the chunk as failed with its reason, so that the job can go on and end."""
        items = [given_up(self.spec, index, reason) for index in self.spec.chunk_range(self.chunk)]
        outcome, why = self._record(items, None)
        return (Outcome.GIVEN_UP, reason) if outcome is Outcome.RECORDED else (outcome, why)

    def _pack(self, samples: Sequence[Item | MadeTwin]) -> tuple[Sequence[Item], Shard | None]:
        """The chunk's items, and the shard in which those that were held now lie, if any were. It counts by the record alone."""
        shard = pack_shard(self.spec, self.chunk, samples)
        if shard is None:
            return [sample for sample in samples if isinstance(sample, Item)], None
        shard = put_shard(self.worker.ledger.store, shard)
        return shard.items, shard

    def _record(
        self,
        items: Sequence[Item],
        model: LoadedModel | None,
        batch_shape: tuple[int, ...] = (),
        shard: Shard | None = None,
    ) -> tuple[Outcome, str]:
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
            finished_at=datetime.now(timezone.utc),
        )
        if not worker.leases.hold(self.lease):
            return Outcome.FENCED, ""
        if worker.ledger.read_summary(spec.job) is not None:
            return Outcome.NOTHING_TO_DO, "the job has ended"
        first = worker.ledger.write_chunk(record)
        if shard is not None:
            drop_uncounted(worker.ledger, shard)
        if not first:
            return Outcome.NOTHING_TO_DO, "the chunk was recorded by another worker"
        worker.keeper.release(self.kept)
        worker.hints.clear_trouble(spec.job)
        worker.pace.note_recorded(spec, self.chunk, len(items))
        count_stored(worker.hints, spec, record)
        SAMPLES.labels("made").inc(len(items) - record.failed)
        SAMPLES.labels("given_up").inc(record.failed)
        if record.failed:
            worker.window.note_error(spec.job, self.chunk, next(item.error for item in items if item.error) or "")
        after_record(worker, spec, self.chunk)
        return Outcome.RECORDED, f"{len(items) - record.failed} of {len(items)} samples" if record.failed else ""


class _PutDown(Exception):
    """The work is to be put down, for a reason that is not its own."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome
