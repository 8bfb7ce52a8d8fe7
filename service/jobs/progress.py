"""A job's progress, computed from its objects in the store; Redis only adds what the store does not have yet."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from datetime import datetime

from service.broker.live_state import LiveState, Stalled
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.states import JobState, current_state, sequence_number
from service.webhooks.outbox import WAITING, DeliveryStatus

_MAX_RECORDS_PER_READ = 32
_MAX_RECENT_CHUNKS = 32
_MAX_REMEMBERED_JOBS = 1024


@dataclass(frozen=True)
class Progress:
    """A job's progress at one moment.

    ``done`` twins are made of ``total``; ``failed`` samples failed, None while their records are not all read;
    ``rate`` is in twins per second, ``seconds_left`` and ``seconds`` (from acceptance to the end) in seconds;
    ``callback`` is None if none was requested; ``retried_by`` is the job that makes this one's missing samples;
    ``sequence`` never falls (:func:`service.kit.states.sequence_number`); ``stalled`` says why twins
    cannot be stored for now.
    """

    state: JobState
    sequence: int
    done: int
    failed: int | None
    total: int
    rate: float | None = None
    seconds_left: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float | None = None
    reason: str | None = None
    callback: DeliveryStatus | None = None
    retried_by: str | None = None
    stalled: Stalled | None = None

    def with_live_state(self, rate: float | None, stalled: Stalled | None) -> Progress:
        """The progress of a running job, with its live state from Redis added."""
        rate = rate or self.rate
        left = self.total - self.done - (self.failed or 0)
        return replace(self, rate=rate, seconds_left=_seconds_left(self.state, left, rate), stalled=stalled)


def accepted(spec: JobSpec) -> Progress:
    """The progress of a job whose spec has just been written."""
    return Progress(
        state=JobState.QUEUED,
        sequence=sequence_number(ended=False, cancel_asked=False, started=False, recorded=0, chunks=spec.chunks),
        done=0,
        failed=0,
        total=spec.count,
        callback=None if spec.callback is None else WAITING,
    )


@dataclass
class _Counted:
    """Counts of a running job's records, so that a second look reads only new records."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    frontier: int = 0  # chunks below are all recorded and counted
    failed_below: int = 0
    failed_in: dict[int, int | None] = field(default_factory=dict)  # chunks from the frontier on; None: not read yet
    recent: deque[tuple[datetime, int]] = field(default_factory=lambda: deque(maxlen=_MAX_RECENT_CHUNKS))


class ProgressReader:
    """Reads the progress of jobs. It remembers counts of running jobs, which stay true because records never change."""

    def __init__(self, repository: JobRepository, live_state: LiveState) -> None:
        self._repository = repository
        self._live_state = live_state
        self._counted: OrderedDict[str, _Counted] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, spec: JobSpec) -> Progress:
        """The job's progress now."""
        progress = self.look(spec)
        return progress if progress.state.ended else progress.with_live_state(*self._live_state.read_job(spec.job))

    def look(self, spec: JobSpec) -> Progress:
        """The job's progress as the store alone has it."""
        summary = self._repository.read_summary(spec.job)
        if summary is not None:
            working_s = (summary.finished_at - (summary.started_at or spec.created_at)).total_seconds()
            return Progress(
                state=summary.state,
                sequence=sequence_number(ended=True, cancel_asked=False, started=True, recorded=0, chunks=spec.chunks),
                done=summary.done,
                failed=summary.failed,
                total=summary.total,
                rate=summary.done / working_s if summary.done and working_s > 0 else None,
                seconds_left=0.0,
                started_at=summary.started_at,
                finished_at=summary.finished_at,
                seconds=summary.seconds,
                reason=summary.reason,
                callback=None if spec.callback is None else self._repository.outbox.read(spec.job),
                retried_by=None if summary.state is JobState.SUCCEEDED else self._repository.read_retry(spec.job),
            )
        chunks, recorded, failed, rate = self._count(spec)
        started = chunks > 0 or self._repository.is_started(spec.job)
        cancelled = self._repository.is_cancelled(spec.job)
        state = current_state(ended=None, cancel_asked=cancelled, started=started)
        return Progress(
            state=state,
            sequence=sequence_number(
                ended=False, cancel_asked=cancelled, started=started, recorded=chunks, chunks=spec.chunks
            ),
            done=recorded - (failed or 0),
            failed=failed,
            total=spec.count,
            rate=rate,
            seconds_left=_seconds_left(state, spec.count - recorded, rate),
            callback=None if spec.callback is None else WAITING,
        )

    def _count(self, spec: JobSpec) -> tuple[int, int, int | None, float | None]:
        """Chunks and samples recorded, failed samples (None: not all records read yet), recent twins per second."""
        counted = self._remembered(spec.job)
        with counted.lock:
            listed = dict(self._repository.chunks.recorded(spec.job, start_at=counted.frontier))
            for chunk, info in listed.items():
                if chunk not in counted.failed_in and chunk < spec.chunks:
                    counted.failed_in[chunk] = None
                    counted.recent.append((info.modified, len(spec.chunk_range(chunk))))
            unread = [found for found in listed.items() if counted.failed_in.get(found[0], 0) is None]
            if unread:  # otherwise no threads for reading ahead are started
                # one that cannot be read stays unread: it is made again, or counts as failed at the end
                for record in self._repository.chunks.read_all(unread[:_MAX_RECORDS_PER_READ], {}):
                    counted.failed_in[record.chunk] = record.failed
            while counted.failed_in.get(counted.frontier) is not None:
                counted.failed_below += counted.failed_in.pop(counted.frontier) or 0
                counted.frontier += 1
            recorded = min(spec.count, counted.frontier * spec.chunk_size)
            recorded += sum(len(spec.chunk_range(chunk)) for chunk in counted.failed_in)
            failed: int | None = counted.failed_below
            for failed_here in counted.failed_in.values():
                failed = None if failed is None or failed_here is None else failed + failed_here
            return counted.frontier + len(counted.failed_in), recorded, failed, _rate(counted.recent)

    def _remembered(self, job: str) -> _Counted:
        with self._lock:
            counted = self._counted.pop(job, None) or _Counted()
            self._counted[job] = counted
            while len(self._counted) > _MAX_REMEMBERED_JOBS:
                self._counted.popitem(last=False)
            return counted


def _seconds_left(state: JobState, left: int, rate: float | None) -> float | None:
    # After a cancel no more twins come, so no time is left.
    return left / rate if rate and state is JobState.RUNNING else None


def _rate(recent: deque[tuple[datetime, int]]) -> float | None:
    """Twins per second between the oldest and the newest of ``(moment recorded, twins)``."""
    by_moment = sorted(recent)
    if len(by_moment) < 2:
        return None
    span_s = (by_moment[-1][0] - by_moment[0][0]).total_seconds()
    return sum(twins for _, twins in by_moment[1:]) / span_s if span_s > 0 else None
