"""Every Redis key and channel of Twinset: its type, what it holds and how long it lives.

Redis holds live state only. Losing any of it, or all, loses no job and no run: the object store is the truth.

Jobs and their chunks (the first three also serve a run, as chunk 0):

    key                            type     holds                                                    life
    twinset:lease:{job}:{chunk}    string   token of the lease, with the name of its worker          lease_s, renewed
    twinset:leases:{job}           zset     chunk -> when its lease expires (ms)                     7 days, or the end
    twinset:epochs:{job}           hash     chunk -> how often its lease was taken                   7 days, or the end
    twinset:next:{job}             string   lowest chunk number that was never sent                  7 days, or the end
    twinset:sent:{job}             zset     chunk -> when it was sent (s), until a worker has it     7 days, or the end
    twinset:attempts:{job}         hash     chunk -> attempts begun and not taken back;              7 days, or the end
                                            "{chunk}:error" -> why the last one failed;
                                            "{chunk}:begun" -> "alone" or "beside others", until it
                                            has ended
    twinset:unable:{job}           hash     "worker:{name}": when it said that it cannot use the     7 days, or the end
                                            job's model; "chunk:{chunk}": since when it waits for
                                            another worker
    twinset:throughput:{job}       hash     "recorded": samples in records; "c{chunk}": samples'     1 day, or the end
                                            worth of steps done in a chunk under way; "base",
                                            "mid": "{unix time} {samples' worth}", for the rate
    twinset:progress:{job}         hash     "rate", in twins per second, for the API                 1 day
    twinset:stalled:{job}          hash     "since", "reason": why nothing can be stored now         10 min, or a record
    twinset:cancel:{job}           string   "1": the cancel object exists in the store               1 day
    twinset:events:{job or run}    channel  a JSON object for each change                            not stored

Runs:

    twinset:run-progress:{run}     hash     "done", "total", "note", "said" (unix time); "began",    1 day, or the end
                                            "began_with": time and items, for the rate
    twinset:run-attempts:{run}     string   attempts that failed, or during which its process died   7 days, or the end
                                            with nothing else in hand
    twinset:run-error:{run}        string   sha256 of what the last attempt raised                   7 days, or the end
    twinset:run-begun:{run}        string   "1": an attempt began and has not ended                  7 days, or its end
    twinset:run-retry-later:{run}  string   "1": the sweeper does not send the run yet               the delay

Tenants:

    twinset:stored:{tenant}        hash     job -> bytes of its chunks, until it ends                7 days
    twinset:rate-limit:{tenant}    hash     "tokens", "at" (unix time): bucket of its requests       until full again

Work that waits (:mod:`service.broker.fair_queue`):

    twinset:waiting:{queue}:{tenant} zset   chunk ("{job}:{chunk}") or run -> its place in the list  7 days
    twinset:fair-queue:{group}     zset     tenant with work that waits -> when it was served last (us) 7 days

Processes:

    twinset:workers                zset     worker -> until when it surely runs (s)                  no end
    twinset:leader:{task}          string   token of the one worker that runs a periodic task        its TTL, renewed
    twinset:interactive:{host}     string   "1": a worker of this machine makes interactive twins    2 s, renewed

Queues are lists with the names in :mod:`service.broker.queues` (``generate``, ``generate-interactive``) and
:mod:`service.broker.run_queue` (``bulk``, ``train``). Celery's transport adds ``unacked``, ``unacked_index``,
``unacked_mutex`` and ``_kombu.binding.*``.
"""

from __future__ import annotations

from typing import Literal

LeaderTask = Literal["chunk-sweeper", "run-sweeper", "garbage-collector", "webhook-sender", "repairer"]
"""The periodic tasks that one worker at a time runs."""

QueueGroupName = Literal["chunks", "runs", "trainings"]
"""The kinds of work that are queued fairly between tenants."""

EVENTS_PREFIX = "twinset:events:"
"""What the names of all event channels begin with."""
WAITING_PREFIX = "twinset:waiting:"
"""What the keys of all lists of waiting work begin with."""


def lease(job: str, chunk: int) -> str:
    """The lease of a chunk, or of a run (chunk 0)."""
    return f"twinset:lease:{job}:{chunk}"


def leases(job: str) -> str:
    """When the live leases of a job or run expire."""
    return f"twinset:leases:{job}"


def epochs(job: str) -> str:
    """The epochs of a job's or run's leases."""
    return f"twinset:epochs:{job}"


def next_chunk(job: str) -> str:
    """The lowest chunk number of a job that was never sent."""
    return f"twinset:next:{job}"


def sent(job: str) -> str:
    """The chunks of a job that were sent and that no worker has received."""
    return f"twinset:sent:{job}"


def attempts(job: str) -> str:
    """The attempts at a job's chunks, and why they failed."""
    return f"twinset:attempts:{job}"


def unable(job: str) -> str:
    """The workers that cannot use a job's model."""
    return f"twinset:unable:{job}"


def throughput(job: str) -> str:
    """What the workers count of a job to publish its progress and rate."""
    return f"twinset:throughput:{job}"


def progress(job: str) -> str:
    """The rate of a job, for the API."""
    return f"twinset:progress:{job}"


def stalled(job: str) -> str:
    """Why nothing of a job can be stored now."""
    return f"twinset:stalled:{job}"


def cancel(job: str) -> str:
    """The flag that a job is cancelled."""
    return f"twinset:cancel:{job}"


def events(job_or_run: str) -> str:
    """The channel of a job's or run's changes."""
    return EVENTS_PREFIX + job_or_run


def run_progress(run: str) -> str:
    """The progress of a run."""
    return f"twinset:run-progress:{run}"


def run_attempts(run: str) -> str:
    """The attempts at a run."""
    return f"twinset:run-attempts:{run}"


def run_begun(run: str) -> str:
    """The mark of a run whose attempt has not ended."""
    return f"twinset:run-begun:{run}"


def run_error(run: str) -> str:
    """The sha256 of what the last attempt of a run raised."""
    return f"twinset:run-error:{run}"


def run_retry_later(run: str) -> str:
    """The mark of a run that is not to be sent yet."""
    return f"twinset:run-retry-later:{run}"


def stored(tenant: str) -> str:
    """The bytes that a tenant's jobs have stored so far."""
    return f"twinset:stored:{tenant}"


def rate_limit(tenant: str) -> str:
    """The token bucket of a tenant's requests."""
    return f"twinset:rate-limit:{tenant}"


def waiting(queue: str, tenant: str) -> str:
    """What waits of a tenant in a queue."""
    return f"{WAITING_PREFIX}{queue}:{tenant}"


def fair_queue(group: QueueGroupName) -> str:
    """The tenants that have work waiting, by when they were served last."""
    return f"twinset:fair-queue:{group}"


def workers() -> str:
    """The workers that run."""
    return "twinset:workers"


def leader(task: LeaderTask) -> str:
    """The leader lock of a periodic task."""
    return f"twinset:leader:{task}"


def interactive(host: str) -> str:
    """The mark that a worker of a machine makes interactive twins."""
    return f"twinset:interactive:{host}"
