"""One delivery of a run: take the lease, call the handler, write the end.

A run may be delivered any number of times, to any worker.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

from redis.exceptions import RedisError

from service.broker import redis_keys
from service.errors import StoreError, TwinsetError, UnknownRun
from service.kit.run_kinds import RunKind, kind_of
from service.kit.states import JobState
from service.runs.progress import forget_progress
from service.runs.spec import RunSummary
from workers.bulk import metrics
from workers.bulk.cleanup import clean_up_run
from workers.bulk.context import (
    Finished,
    RetryLater,
    RunContext,
    RunHandler,
    RunReleased,
)
from workers.bulk.worker import BulkWorker
from workers.runtime.lease_renewal import RenewedLease

logger = logging.getLogger(__name__)
_ATTEMPTS_TTL_S = 7 * 86_400


class RunOutcome(StrEnum):
    """The outcome of a delivery."""

    ENDED = "ended"
    NOTHING_TO_DO = "nothing to do"
    TAKEN = "another worker has it"
    CANCELLED = "cancelled"
    RELEASED = "released for another worker"
    LATER = "continues later"
    FAILED = "failed, will be retried"


def execute_run(worker: BulkWorker, run: str, kinds: Mapping[RunKind, RunHandler]) -> RunOutcome:
    """Executes one delivery of a run. Never raises: an error ends the run, or the sweeper requeues it."""
    try:
        outcome, why = _deliver(worker, run, kinds)
    except StoreError as error:
        outcome, why = RunOutcome.FAILED, f"the store failed: {error.detail}"
    except Exception:
        logger.exception("run=%s failed; the sweeper will requeue it", run)
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
    taken = worker.leases.take(run, 0)
    if taken is None:
        return RunOutcome.TAKEN, ""
    with worker.renewer.renewing(taken) as lease, metrics.UNDER_WAY.labels(spec.kind.value).track_inprogress():
        # mark first, then look for a cancel: cancelling writes the cancel first, then looks for the mark
        worker.runs.mark_started(run)
        context = RunContext(worker, spec, lease)
        if context.is_cancelled():
            return _cancel(context, kinds[spec.kind])
        try:
            return _attempt(context, kinds[spec.kind], lease)
        finally:
            if lease.lost:
                _clean_up_after_takeover(worker, run)


def _attempt(context: RunContext, handler: RunHandler, lease: RenewedLease) -> tuple[RunOutcome, str]:
    worker, spec = context.worker, context.spec
    number, limit = _count_attempt(worker, spec.run), worker.settings.max_chunk_attempts
    metrics.ATTEMPTS.labels(spec.kind.value).inc()
    if number > limit:
        return _end(
            context,
            Finished(
                JobState.FAILED, 0, reason=f"failed after {limit} attempts; the last one ended when its worker died"
            ),
        )
    try:
        ended = handler.handle(context)
    except RunReleased as released:
        _uncount_attempt(worker, spec.run)
        if released.cancelled:
            return _cancel(context, handler)
        worker.renewer.release(lease)
        if worker.shutdown.requested:
            worker.queue.send_run(spec.run)
        return RunOutcome.RELEASED, ""
    except StoreError:
        _uncount_attempt(worker, spec.run)
        raise
    except TwinsetError as error:
        # a retry would give the same
        return _end(context, Finished(JobState.FAILED, 0, reason=error.detail))
    except Exception as error:
        logger.exception("run=%s attempt %d failed", spec.run, number)
        if number >= limit:
            reason = f"failed after {limit} attempts; the last one: {type(error).__name__}: {error}"
            return _end(context, Finished(JobState.FAILED, 0, reason=reason))
        return RunOutcome.FAILED, f"{type(error).__name__}: {error}"
    if isinstance(ended, RetryLater):
        _uncount_attempt(worker, spec.run)
        retry_later(worker, spec.run, ended.after_s)
        return RunOutcome.LATER, ""
    return _end(context, ended)


def _end(context: RunContext, ended: Finished) -> tuple[RunOutcome, str]:
    worker, spec = context.worker, context.spec
    if not worker.leases.renew(context.lease.lease):
        context.lease.lost = True
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
    _clean_up(worker, summary)
    _forget_live_state(worker, spec.run)
    return RunOutcome.ENDED, f"{summary.state.value}, {summary.done} items" + (
        f": {summary.reason}" if summary.reason else ""
    )


def _clean_up(worker: BulkWorker, summary: RunSummary) -> None:
    try:
        clean_up_run(worker.runs, summary)
    except StoreError as error:
        logger.warning("run=%s not cleaned up, the sweeper will do it: %s", summary.run, error.detail)


def _clean_up_after_takeover(worker: BulkWorker, run: str) -> None:
    """Removes what this worker wrote after another worker had taken the run over and ended it."""
    try:
        summary = worker.runs.read_summary(run)
        if summary is not None:
            clean_up_run(worker.runs, summary)
    except StoreError as error:
        logger.warning("run=%s may have left objects that no summary counts: %s", run, error.detail)


def _cancel(context: RunContext, handler: RunHandler) -> tuple[RunOutcome, str]:
    worker, spec = context.worker, context.spec
    ended = handler.on_cancel(context)
    if worker.runs.is_deleted(spec.run):
        # the sweeper removes its objects, once this lease is released
        _forget_live_state(worker, spec.run)
        return RunOutcome.CANCELLED, "it is deleted"
    _end(context, ended)
    return RunOutcome.CANCELLED, ""


def retry_later(worker: BulkWorker, run: str, after_s: float) -> None:
    """Keeps the sweeper from requeueing the run for ``after_s`` seconds."""
    try:
        worker.redis.set(redis_keys.run_retry_later(run), "1", px=max(1, int(after_s * 1000)))
    except RedisError as error:
        logger.debug("run=%s may be requeued early: %s", run, error)


def _count_attempt(worker: BulkWorker, run: str) -> int:
    """Counts an attempt before it begins, so that one which kills its worker is counted too. Returns its number."""
    try:
        number = int(worker.redis.incr(redis_keys.run_attempts(run)))
        worker.redis.expire(redis_keys.run_attempts(run), _ATTEMPTS_TTL_S)
        return number
    except RedisError:
        return 1


def _uncount_attempt(worker: BulkWorker, run: str) -> None:
    """Uncounts an attempt that ended through no fault of the run."""
    try:
        worker.redis.decr(redis_keys.run_attempts(run))
    except RedisError as error:
        logger.debug("run=%s attempt not uncounted: %s", run, error)


def _forget_live_state(worker: BulkWorker, run: str) -> None:
    forget_progress(worker.live_state, run)
    worker.leases.forget(run)
    try:
        worker.redis.delete(redis_keys.run_attempts(run), redis_keys.run_retry_later(run))
    except RedisError as error:
        logger.debug("run=%s live state not deleted: %s", run, error)


def parse_run_id(run: object) -> str | None:
    """A message's argument as a run id, or None if it is not one."""
    return run if isinstance(run, str) and kind_of(run) is not None else None
