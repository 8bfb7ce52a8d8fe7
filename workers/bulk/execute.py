"""One delivery of a run: lease, work, end. It may be delivered any number of times, to any worker."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from enum import StrEnum

from redis.exceptions import RedisError

from service.errors import StoreError, TwinsetError, UnknownRun
from service.kit.run_kinds import Kind, kind_of
from service.kit.states import State
from service.runs.progress import forget_progress
from service.runs.spec import RunSummary
from workers.bulk import metrics
from workers.bulk.cleanup import settle
from workers.bulk.context import (
    Again,
    Carrier,
    Ended,
    PutDown,
    Work,
)
from workers.bulk.worker import BulkWorker
from workers.runtime.lease_renewal import Kept

logger = logging.getLogger(__name__)
_KEPT_S = 7 * 86_400


class Outcome(StrEnum):
    """How a delivery ended."""

    ENDED = "ended"
    NOTHING_TO_DO = "nothing to do"
    TAKEN = "another worker has it"
    CANCELLED = "cancelled"
    PUT_DOWN = "put down"
    LATER = "goes on later"
    FAILED = "failed, to be tried again"


def carry_out(worker: BulkWorker, run: str, kinds: Mapping[Kind, Carrier]) -> Outcome:
    """Does what is to be done of a run. Never raises: what goes wrong is in the store, or is tried again by the sweeper."""
    try:
        outcome, why = _deliver(worker, run, kinds)
    except StoreError as error:
        outcome, why = Outcome.FAILED, f"the store failed: {error.detail}"
    except Exception:
        logger.exception("run=%s left to the sweeper", run)
        outcome, why = Outcome.FAILED, ""
    kind = kind_of(run)
    if kind is not None:
        metrics.DELIVERIES.labels(kind.value, outcome.name.lower()).inc()
    logger.info("run=%s %s%s", run, outcome.value, f": {why}" if why else "")
    return outcome


def _deliver(worker: BulkWorker, run: str, kinds: Mapping[Kind, Carrier]) -> tuple[Outcome, str]:
    try:
        spec = worker.runs.read_spec(run)
    except UnknownRun as error:
        return Outcome.NOTHING_TO_DO, error.detail
    if worker.runs.read_summary(run) is not None:
        return Outcome.NOTHING_TO_DO, "it has ended"
    lease = worker.leases.take(run, 0)
    if lease is None:
        return Outcome.TAKEN, ""
    with worker.keeper.keep(lease) as kept, metrics.UNDER_WAY.labels(spec.kind.value).track_inprogress():
        # first the mark, then the look: whoever cancels writes the cancel first, then looks for the mark
        worker.runs.mark_started(run)
        work = Work(worker, spec, kept)
        if work.is_called_off():
            return _cancel(work, kinds[spec.kind])
        try:
            return _attempt(work, kinds[spec.kind], kept)
        finally:
            if kept.lost:
                _settle_after_another(worker, run)


def _attempt(work: Work, carrier: Carrier, kept: Kept) -> tuple[Outcome, str]:
    worker, spec = work.worker, work.spec
    number, limit = _begin(worker, spec.run), worker.settings.max_chunk_attempts
    metrics.ATTEMPTS.labels(spec.kind.value).inc()
    if number > limit:
        return _end(work, Ended(State.FAILED, 0, reason=f"given up after {limit} attempts, the last of which ended with its worker"))
    try:
        ended = carrier.carry(work)
    except PutDown as put_down:
        _call_off(worker, spec.run)
        if put_down.cancelled:
            return _cancel(work, carrier)
        worker.keeper.release(kept)
        if worker.stopping.asked:
            worker.queue.send_run(spec.run)
        return Outcome.PUT_DOWN, ""
    except StoreError:
        _call_off(worker, spec.run)
        raise
    except TwinsetError as error:
        # trying again would give the same
        return _end(work, Ended(State.FAILED, 0, reason=error.detail))
    except Exception as error:
        logger.exception("run=%s attempt %d failed", spec.run, number)
        if number >= limit:
            reason = f"given up after {limit} attempts; the last one: {type(error).__name__}: {error}"
            return _end(work, Ended(State.FAILED, 0, reason=reason))
        return Outcome.FAILED, f"{type(error).__name__}: {error}"
    if isinstance(ended, Again):
        _call_off(worker, spec.run)
        later(worker, spec.run, ended.after_s)
        return Outcome.LATER, ""
    return _end(work, ended)


def _end(work: Work, ended: Ended) -> tuple[Outcome, str]:
    worker, spec = work.worker, work.spec
    if not worker.leases.hold(work.kept.lease):
        work.kept.lost = True
        return Outcome.TAKEN, "the lease was lost"
    now = datetime.now(timezone.utc)
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
        metrics.note_end(spec.kind, summary)
    _settle(worker, summary)
    _forget(worker, spec.run)
    return Outcome.ENDED, f"{summary.state.value}, {summary.done} items" + (f": {summary.reason}" if summary.reason else "")


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


def _cancel(work: Work, carrier: Carrier) -> tuple[Outcome, str]:
    worker, spec = work.worker, work.spec
    ended = carrier.called_off(work)
    if worker.runs.is_deleted(spec.run):
        # whoever removes its objects has nothing to wait for but our lease
        _forget(worker, spec.run)
        return Outcome.CANCELLED, "it is deleted"
    _end(work, ended)
    return Outcome.CANCELLED, ""


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
        worker.redis.expire(_attempts(run), _KEPT_S)
        return number
    except RedisError:
        return 1


def _call_off(worker: BulkWorker, run: str) -> None:
    """Takes an attempt back that ended through no fault of the run."""
    try:
        worker.redis.decr(_attempts(run))
    except RedisError as error:
        logger.debug("no hint: %s", error)


def _forget(worker: BulkWorker, run: str) -> None:
    forget_progress(worker.hints, run)
    worker.leases.forget(run)
    try:
        worker.redis.delete(_attempts(run), waiting_key(run))
    except RedisError as error:
        logger.debug("no hint: %s", error)


def named_run(run: object) -> str | None:
    """What a message names, where that is a run."""
    return run if isinstance(run, str) and kind_of(run) is not None else None
