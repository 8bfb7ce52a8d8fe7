"""One delivery of a run: take the lease, call the handler, write the end.

A run may be delivered any number of times, to any worker.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum

from redis.exceptions import RedisError

from service.broker import redis_keys
from service.errors import StoreError, TwinsetError, UnknownRun
from service.kit.log_context import log_context
from service.kit.run_kinds import RunKind, kind_of
from service.kit.states import JobState
from service.kit.tracing import span
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
_TTL_S = 7 * 86_400
_ALONE_LATER_S = 2.0


class RunOutcome(StrEnum):
    """The outcome of a delivery."""

    ENDED = "ended"
    NOTHING_TO_DO = "nothing to do"
    TAKEN = "another worker has it"
    CANCELLED = "cancelled"
    RELEASED = "released for another worker"
    LATER = "continues later"
    FAILED = "failed, will be retried"


Alone = Callable[[BulkWorker, str], RunOutcome | None]
"""Executes a delivery in a process of its own; None if it cannot be now."""


def execute_run(
    worker: BulkWorker, run: str, kinds: Mapping[RunKind, RunHandler], *, alone: Alone | None = None
) -> RunOutcome:
    """Executes one delivery of a run. Never raises: an error ends the run, or the sweeper requeues it.

    ``alone`` executes a run that was in hand when its worker died; None in a process where a run is alone.
    """
    try:
        outcome, why = _deliver(worker, run, kinds, alone)
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


def _deliver(
    worker: BulkWorker, run: str, kinds: Mapping[RunKind, RunHandler], alone: Alone | None
) -> tuple[RunOutcome, str]:
    try:
        spec = worker.runs.read_spec(run)
    except UnknownRun as error:
        return RunOutcome.NOTHING_TO_DO, error.detail
    if worker.runs.read_summary(run) is not None:
        return RunOutcome.NOTHING_TO_DO, "it has ended"
    if alone is not None and not kinds[spec.kind].isolated and _died_with_its_worker(worker, run):
        ended = alone(worker, run)
        if ended is None:
            retry_later(worker, run, _ALONE_LATER_S)
        return ended or RunOutcome.LATER, "it was in hand when its worker died, and is executed alone"
    taken = worker.leases.take(run, 0)
    if taken is None:
        return RunOutcome.TAKEN, ""
    with (
        span(spec.kind.value, traceparent=spec.traceparent, run=run, request_id=spec.request_id) as own,
        log_context(run=run, request_id=spec.request_id, traceparent=own),
        worker.renewer.renewing(taken) as lease,
        metrics.UNDER_WAY.labels(spec.kind.value).track_inprogress(),
    ):
        # mark first, then look for a cancel: cancelling writes the cancel first, then looks for the mark
        worker.runs.mark_started(run)
        context = RunContext(worker, spec, lease)
        if context.is_cancelled():
            return _cancel(context, kinds[spec.kind])
        try:
            handler = kinds[spec.kind]
            return _attempt(context, handler, lease, alone=alone is None and not handler.isolated)
        finally:
            if lease.lost:
                _clean_up_after_takeover(worker, run)


def _attempt(context: RunContext, handler: RunHandler, lease: RenewedLease, *, alone: bool) -> tuple[RunOutcome, str]:
    """One attempt. It counts if the handler raises, or if it is ``alone`` and its process dies."""
    worker, spec = context.worker, context.spec
    limit = worker.settings.max_chunk_attempts
    metrics.ATTEMPTS.labels(spec.kind.value).inc()
    if _attempts(worker, spec.run) >= limit:
        return _end(
            context,
            Finished(
                JobState.FAILED, 0, reason=f"failed after {limit} attempts; the last one ended when its worker died"
            ),
        )
    try:
        with _begun(worker, spec.run, alone=alone):
            ended = handler.handle(context)
    except RunReleased as released:
        if released.cancelled:
            return _cancel(context, handler)
        worker.renewer.release(lease)
        if worker.shutdown.requested:
            worker.queue.send_run(spec.run, spec.tenant)
        return RunOutcome.RELEASED, ""
    except StoreError:
        raise
    except TwinsetError as error:
        # a retry would give the same
        return _end(context, Finished(JobState.FAILED, 0, reason=error.detail))
    except Exception as error:
        number = _count_attempt(worker, spec.run)
        logger.exception("run=%s attempt %d failed", spec.run, number)
        if number >= limit or _raised_before(worker, spec.run, error):
            reason = f"failed after {number} attempts; the last one: {type(error).__name__}: {error}"
            return _end(context, Finished(JobState.FAILED, 0, reason=reason))
        return RunOutcome.FAILED, f"{type(error).__name__}: {error}"
    if isinstance(ended, RetryLater):
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


@contextmanager
def _begun(worker: BulkWorker, run: str, *, alone: bool) -> Iterator[None]:
    """Marks the run as begun until the block ends, whichever way but by the death of this process.

    If it is ``alone`` here, the attempt counts before the block begins, and is taken back at its end.
    """
    try:
        worker.redis.set(redis_keys.run_begun(run), "1", ex=_TTL_S)
    except RedisError as error:
        logger.debug("run=%s not marked as begun: %s", run, error)
    if alone:
        _count_attempt(worker, run)
    try:
        yield
    finally:
        if alone:
            _uncount_attempt(worker, run)
        try:
            worker.redis.delete(redis_keys.run_begun(run))
        except RedisError as error:
            logger.debug("run=%s stays marked as begun: %s", run, error)


def _died_with_its_worker(worker: BulkWorker, run: str) -> bool:
    """Whether an attempt began that has not ended, and that no worker is at."""
    try:
        return bool(worker.redis.exists(redis_keys.run_begun(run))) and not worker.leases.live(run)
    except RedisError:
        return False


def _attempts(worker: BulkWorker, run: str) -> int:
    """The attempts that count."""
    try:
        return int(worker.redis.get(redis_keys.run_attempts(run)) or 0)
    except RedisError:
        return 0


def _raised_before(worker: BulkWorker, run: str, error: Exception) -> bool:
    """Whether the attempt before raised the same, so that another would too.

    Errors of the machine do not count: disks are emptied, and connections come back.
    """
    if isinstance(error, (OSError, MemoryError, RedisError)):
        return False
    raised = hashlib.sha256(f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")).hexdigest()
    try:
        return worker.redis.set(redis_keys.run_error(run), raised, ex=_TTL_S, get=True) == raised
    except RedisError:
        return False


def _count_attempt(worker: BulkWorker, run: str) -> int:
    """Counts an attempt, and returns how many count."""
    try:
        number = int(worker.redis.incr(redis_keys.run_attempts(run)))
        worker.redis.expire(redis_keys.run_attempts(run), _TTL_S)
        return number
    except RedisError:
        return 1


def _uncount_attempt(worker: BulkWorker, run: str) -> None:
    """Takes back an attempt that has ended."""
    try:
        worker.redis.decr(redis_keys.run_attempts(run))
    except RedisError as error:
        logger.debug("run=%s attempt not uncounted: %s", run, error)


def _forget_live_state(worker: BulkWorker, run: str) -> None:
    forget_progress(worker.live_state, run)
    worker.leases.forget(run)
    try:
        names = (redis_keys.run_attempts, redis_keys.run_begun, redis_keys.run_error, redis_keys.run_retry_later)
        worker.redis.delete(*(name(run) for name in names))
    except RedisError as error:
        logger.debug("run=%s live state not deleted: %s", run, error)


def parse_run_id(run: object) -> str | None:
    """A message's argument as a run id, or None if it is not one."""
    return run if isinstance(run, str) and kind_of(run) is not None else None
