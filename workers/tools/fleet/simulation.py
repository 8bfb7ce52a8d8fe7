"""Discrete events of a fleet: jobs arrive, workers start, take chunks, drain and are killed, and the scaler looks.

Chunks are taken by the rule of :mod:`service.broker.fair_queue` and made in that of :mod:`workers.engine.policy`. A
device makes the chunks that its worker holds one after the other, at its full rate: a real one makes them together, in
the same time for all. Time is in seconds.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from service.broker.fair_queue import Flow
from service.broker.queues import CHUNK_QUEUES
from workers.engine.policy import FairQueue
from workers.tools.fleet.autoscaler import SYNC_S, Autoscaler
from workers.tools.fleet.queue_model import TenantQueuesModel
from workers.tools.fleet.workload import SimChunk, SimJob

Metric = Callable[["FleetSimulation"], float]
"""The replicas that a scaling rule asks for."""


@dataclass(frozen=True)
class FleetOptions:
    """``slots``: chunks that a worker holds. ``cold_start_s``: mean from a pod's creation to its first chunk.

    ``kills_per_hour``: of one spot worker. ``recovery_s``: from a kill until its chunks are sent again.
    """

    slots: int = 8
    chunks_in_flight: int = 4
    cold_start_s: float = 180.0
    kills_per_hour: float = 0.05
    grace_s: float = 20.0
    recovery_s: float = 20.0
    metric_age_s: float = 10.0


@dataclass(eq=False)
class SimWorker:
    """A worker's pod, from its creation on."""

    born: float
    ready: bool = False
    draining: bool = False
    gone: bool = False
    in_work: dict[SimChunk, None] = field(default_factory=dict)
    queue: FairQueue[SimChunk] = field(default_factory=FairQueue)
    running: SimChunk | None = None
    running_since: float = 0.0

    def holds(self) -> Counter[Flow]:
        return Counter(chunk.job.flow for chunk in self.in_work)


class FleetSimulation:
    """One run. Without a ``scaler`` there are ``replicas`` workers all the time, ready from the start."""

    def __init__(
        self,
        jobs: Iterable[SimJob],
        options: FleetOptions,
        *,
        scaler: Autoscaler | None = None,
        metric: Metric | None = None,
        replicas: int = 1,
        seed: int = 0,
    ) -> None:
        self.options = options
        self.jobs: list[SimJob] = []
        self.now = 0.0
        self.backlog_s = 0.0
        self.waiting: TenantQueuesModel[SimChunk] = TenantQueuesModel(CHUNK_QUEUES.queues)
        self.workers: dict[SimWorker, None] = {}
        self.worker_s = self.useful_s = self.lost_s = 0.0
        self.kills = 0
        self.largest = 0
        self._blocked: dict[SimWorker, None] = {}
        self._arrivals = iter(jobs)
        self._scaler, self._metric = scaler, metric
        self._seen: tuple[float, float] = (float("-inf"), 0.0)
        self._draw = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._open = 0
        self._more = True
        if scaler is None:
            for _ in range(replicas):
                self._create(ready=True)
        else:
            self._scale(scaler.replicas)
            self._at(scaler.clocks.polling_s * self._draw.random(), self._poll)
            self._at(SYNC_S * self._draw.random(), self._sync)
        self._next_arrival()

    def run(self) -> FleetSimulation:
        """Runs until all jobs have ended; with a scaler, also until the fleet is as small as it may be."""
        while self._events and not self._is_over():
            self.now, _, event = heapq.heappop(self._events)
            event()
        for worker in list(self.workers):
            self._remove(worker)
        return self

    @property
    def busy(self) -> int:
        """Workers that hold a chunk."""
        return sum(bool(worker.in_work) for worker in self.workers)

    def _is_over(self) -> bool:
        if self._more or self._open:
            return False
        return self._scaler is None or self._scaler.replicas <= self._scaler.clocks.min_replicas

    def _at(self, delay_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), event))

    # -- jobs and chunks

    def _next_arrival(self) -> None:
        job = next(self._arrivals, None)
        if job is None:
            self._more = False
            return
        self._at(job.arrived - self.now, lambda: self._arrive(job))

    def _arrive(self, job: SimJob) -> None:
        self.jobs.append(job)
        self._open += 1
        self.backlog_s += sum(job.chunk_s)
        for _ in range(min(self.options.chunks_in_flight, len(job.chunk_s))):
            self._send_next(job)
        self._next_arrival()

    def _send_next(self, job: SimJob) -> None:
        if job.sent < len(job.chunk_s):
            job.sent += 1
            self._send(SimChunk(job, job.sent - 1))

    def _send(self, chunk: SimChunk) -> None:
        self.waiting.add(chunk.job.flow, chunk)
        # the one that waits for a message longest gets it
        worker = next(iter(self._blocked), None)
        if worker is not None:
            del self._blocked[worker]
            self._take(worker)

    def _take(self, worker: SimWorker) -> None:
        while len(worker.in_work) < self.options.slots:
            taken = self.waiting.take(worker.holds())
            if taken is None:
                self._blocked[worker] = None
                break
            _, chunk = taken
            worker.in_work[chunk] = None
            worker.queue.add(chunk)
        self._start(worker)

    def _start(self, worker: SimWorker) -> None:
        chunk = worker.queue.next() if worker.running is None else None
        if chunk is None:
            return
        worker.queue.admit(chunk)
        worker.running, worker.running_since = chunk, self.now
        if chunk.job.started is None:
            chunk.job.started = self.now
        self._at(chunk.seconds, lambda: self._finish(worker, chunk))

    def _finish(self, worker: SimWorker, chunk: SimChunk) -> None:
        if worker.gone or worker.running is not chunk:
            return
        worker.queue.charge([chunk])
        worker.queue.leave(chunk)
        worker.running = None
        del worker.in_work[chunk]
        self.useful_s += chunk.seconds
        self.backlog_s -= chunk.seconds
        job = chunk.job
        job.recorded += 1
        if job.recorded == len(job.chunk_s):
            job.ended, self._open = self.now, self._open - 1
            if not self._open:
                self.backlog_s = 0.0  # what rounding has left would keep a worker
        self._send_next(job)
        if not worker.draining:
            self._blocked.pop(worker, None)
            self._take(worker)
        elif worker.in_work:
            self._start(worker)
        else:
            self._remove(worker)

    # -- workers

    def _create(self, *, ready: bool = False) -> None:
        worker = SimWorker(self.now)
        self.workers[worker] = None
        self.largest = max(self.largest, len(self.workers))
        cold_s = 0.0 if ready else self.options.cold_start_s * self._draw.uniform(0.7, 1.3)
        self._at(cold_s, lambda: self._ready(worker))
        if self.options.kills_per_hour and not ready:
            self._at(self._draw.expovariate(self.options.kills_per_hour / 3600), lambda: self._kill(worker))

    def _ready(self, worker: SimWorker) -> None:
        if not worker.gone and not worker.draining:
            worker.ready = True
            self._take(worker)

    def _drain(self, worker: SimWorker) -> None:
        worker.draining = True
        self._blocked.pop(worker, None)
        if not worker.in_work:
            self._remove(worker)
        else:
            self._at(self.options.grace_s, lambda: self._remove(worker))

    def _kill(self, worker: SimWorker) -> None:
        if worker.gone:
            return
        self.kills += 1
        self._remove(worker, requeue_after_s=self.options.recovery_s)
        if self._scaler is not None:
            self._scale(self._scaler.replicas)

    def _remove(self, worker: SimWorker, *, requeue_after_s: float = 0.0) -> None:
        """Ends a worker; what it holds is sent again."""
        if worker.gone:
            return
        worker.gone = True
        del self.workers[worker]
        self._blocked.pop(worker, None)
        self.worker_s += self.now - worker.born
        if worker.running is not None:
            self.lost_s += self.now - worker.running_since
        for chunk in worker.in_work:
            self._at(requeue_after_s, lambda chunk=chunk: self._send(chunk))  # type: ignore[misc]

    # -- scaling

    def _value(self) -> float:
        assert self._metric is not None
        if self.now - self._seen[0] >= self.options.metric_age_s:
            self._seen = self.now, self._metric(self)
        return self._seen[1]

    def _poll(self) -> None:
        assert self._scaler is not None
        self._scale(self._scaler.poll(self.now, self._value()))
        self._at(self._scaler.clocks.polling_s, self._poll)

    def _sync(self) -> None:
        assert self._scaler is not None
        self._scale(self._scaler.sync(self.now, self._value()))
        self._at(SYNC_S, self._sync)

    def _scale(self, replicas: int) -> None:
        there = [worker for worker in self.workers if not worker.draining]
        for _ in range(replicas - len(there)):
            self._create()
        # a ReplicaSet takes away those that are not ready, then the youngest
        there.sort(key=lambda worker: (worker.ready, -worker.born))
        for worker in there[: max(0, len(there) - replicas)]:
            self._drain(worker)
