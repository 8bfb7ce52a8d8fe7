"""One delivery of a run: lease, work, end. It may be delivered any number of times, to any worker."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

from redis.exceptions import RedisError

from service.errors import StoreError, TwinsetError, UnknownRun
from service.kit.run_kinds import RunKind, kind_of
from service.kit.states import JobState
from service.runs.progress import forget_progress
from service.runs.spec import RunSummary
from workers.bulk import metrics
from workers.bulk.cleanup import settle
from workers.bulk.context import (
    Finished,
    Released,
    RetryLater,
    RunContext,
    RunHandler,
)
from workers.bulk.worker import BulkWorker
from workers.runtime.lease_renewal import RenewedLease

logger = logging.getLogger(__name__)
_TTL_S = 7 * 86_400


class RunOutcome(StrEnum):
    """How a delivery ended."""

    ENDED = "ended"
    NOTHING_TO_DO = "nothing to do"
    TAKEN = "another worker has it"
    CANCELLED = "cancelled"
    RELEASED = "put down"
    LATER = "goes on later"
    FAILED = "failed, to be tried again"


def execute_run(worker: BulkWorker, run: str, kinds: Mapping[RunKind, RunHandler]) -> RunOutcome:
    """Does what is to be done of a run. Never raises: what goes wrong is in the store, or is tried again by the
    sweeper."""
    try:
        outcome, why = _deliver(worker, run, kinds)
    except StoreError as error:
        outcome, why = RunOutcome.FAILED, f"the store failed: {error.detail}"
    except Exception:
        logger.exception("run=%s left to the sweeper", run)
        outcome, why = RunOutcome.FAILED, ""
    kind = kind_of(run)
    if kind is not None:
        metrics.DELIVERIES.labels(kind.value, outcome.name.lower()).inc()
    logger.info("run=%s %s%s", run, outcome.value, f": {why}" if why else "")
    return outcome


def _deliver(worker: BulkWorker, run: str, kinds: Mapping[RunKind, RunHandler]) -> tuple[RunOutcome, str]:
    try:
        spec = worker.runs.read_spec(run)
    except UnknownRun as error:
        return RunOutcome.NOTHING_TO_DO, error.detail
    if worker.runs.read_summary(run) is not None:
        return RunOutcome.NOTHING_TO_DO, "it has ended"
    lease = worker.leases.take(run, 0)
    if lease is None:
        return RunOutcome.TAKEN, ""
    with worker.renewer.keep(lease) as kept, metrics.UNDER_WAY.labels(spec.kind.value).track_inprogress():
        # first the mark, then the look: whoever cancels writes the cancel first, then looks for the mark
        worker.runs.mark_started(run)
        work = RunContext(worker, spec, kept)
        if work.is_cancelled():
            return _cancel(work, kinds[spec.kind])
        try:
            return _attempt(work, kinds[spec.kind], kept)
        finally:
            if kept.lost:
                _settle_after_another(worker, run)


def _attempt(work: RunContext, handler: RunHandler, kept: RenewedLease) -> tuple[RunOutcome, str]:
    worker, spec = work.worker, work.spec
    number, limit = _begin(worker, spec.run), worker.settings.max_chunk_attempts
    metrics.ATTEMPTS.labels(spec.kind.value).inc()
    if number > limit:
        return _end(
            work,
            Finished(
                JobState.FAILED, 0, reason=f"given up after {limit} attempts, the last of which ended with its worker"
            ),
        )
    try:
        ended = handler.carry(work)
    except Released as released:
        _cancel(worker, spec.run)
        if released.cancelled:
            return _cancel(work, handler)
        worker.renewer.release(kept)
        if worker.shutdown.asked:
            worker.queue.send_run(spec.run)
        return RunOutcome.RELEASED, ""
    except StoreError:
        _cancel(worker, spec.run)
        raise
    except TwinsetError as error:
        # trying again would give the same
        return _end(work, Finished(JobState.FAILED, 0, reason=error.detail))
    except Exception as error:
        logger.exception("run=%s attempt %d failed", spec.run, number)
        if number >= limit:
            reason = f"given up after {limit} attempts; the last one: {type(error).__name__}: {error}"
            return _end(work, Finished(JobState.FAILED, 0, reason=reason))
        return RunOutcome.FAILED, f"{type(error).__name__}: {error}"
    if isinstance(ended, RetryLater):
        _cancel(worker, spec.run)
        later(worker, spec.run, ended.after_s)
        return RunOutcome.LATER, ""
    return _end(work, ended)


def _end(work: RunContext, ended: Finished) -> tuple[RunOutcome, str]:
    worker, spec = work.worker, work.spec
    if not worker.leases.hold(work.kept.lease):
        work.kept.lost = True
        return RunOutcome.TAKEN, "the lease was lost"
    now = datetime.now(UTC)
    summary = worker.runs.end(
        spec,
        ended.state,
        done=ended.done,
        total=ended.total,
        reason=ended.reason,
        size=ended.size,
        result=ended.result,
        now=now,
    )
    if summary.finished_at == now:
        metrics.count_end(spec.kind, summary)
    _settle(worker, summary)
    _forget(worker, spec.run)
    return RunOutcome.ENDED, f"{summary.state.value}, {summary.done} items" + (
        f": {summary.reason}" if summary.reason else ""
    )


def _settle(worker: BulkWorker, summary: RunSummary) -> None:
    try:
        settle(worker.runs, summary)
    except StoreError as error:
        logger.warning("run=%s is left to the sweeper to be settled: %s", summary.run, error.detail)


def _settle_after_another(worker: BulkWorker, run: str) -> None:
    """Removes what was written here after another worker, who had taken the run over, had ended it."""
    try:
        summary = worker.runs.read_summary(run)
        if summary is not None:
            settle(worker.runs, summary)
    except StoreError as error:
        logger.warning("run=%s may have files that nothing counts: %s", run, error.detail)


def _cancel(work: RunContext, handler: RunHandler) -> tuple[RunOutcome, str]:
    worker, spec = work.worker, work.spec
    ended = handler.when_cancelled(work)
    if worker.runs.is_deleted(spec.run):
        # whoever removes its objects has nothing to wait for but our lease
        _forget(worker, spec.run)
        return RunOutcome.CANCELLED, "it is deleted"
    _end(work, ended)
    return RunOutcome.CANCELLED, ""


def later(worker: BulkWorker, run: str, after_s: float) -> None:
    """Keeps the sweeper from sending the run before its time."""
    try:
        worker.redis.set(waiting_key(run), "1", px=max(1, int(after_s * 1000)))
    except RedisError as error:
        logger.debug("run=%s may be taken up early: %s", run, error)


def waiting_key(run: str) -> str:
    return f"twinset:run-waits:{run}"


def _attempts(run: str) -> str:
    return f"twinset:run-attempts:{run}"


def _begin(worker: BulkWorker, run: str) -> int:
    """Counts an attempt before it begins, so that a run which kills its worker is counted too."""
    try:
        number = int(worker.redis.incr(_attempts(run)))
        worker.redis.expire(_attempts(run), _TTL_S)
        return number
    except RedisError:
        return 1


def _cancel(worker: BulkWorker, run: str) -> None:
    """Takes an attempt back that ended through no fault of the run."""
    try:
        worker.redis.decr(_attempts(run))
    except RedisError as error:
        logger.debug("no hint: %s", error)


def _forget(worker: BulkWorker, run: str) -> None:
    forget_progress(worker.live_state, run)
    worker.leases.forget(run)
    try:
        worker.redis.delete(_attempts(run), waiting_key(run))
    except RedisError as error:
        logger.debug("no hint: %s", error)


def named_run(run: object) -> str | None:
    """What a message names, where that is a run."""
    return run if isinstance(run, str) and kind_of(run) is not None else None
