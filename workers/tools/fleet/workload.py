"""Jobs of a simulated fleet: who sends them, when, how large they are, and what their chunks cost a device."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from service.broker.fair_queue import Flow
from service.broker.queues import QUEUES


@dataclass(eq=False)
class SimJob:
    """A job: ``chunk_s`` has the device-seconds of each of its chunks."""

    name: str
    tenant: str
    priority: str
    arrived: float
    chunk_s: list[float]
    sent: int = 0
    recorded: int = 0
    started: float | None = None
    ended: float | None = None

    @property
    def flow(self) -> Flow:
        return Flow(self.tenant, QUEUES["interactive" if self.priority == "interactive" else "normal"])


@dataclass(eq=False)
class SimChunk:
    """One chunk of a job, as workers' fair queue sees a sample: ``rows`` is what it is charged, in row-steps."""

    job: SimJob
    number: int
    row_steps_per_s: float = 100.0

    @property
    def seconds(self) -> float:
        """Device-seconds to make it."""
        return self.job.chunk_s[self.number]

    @property
    def path(self) -> tuple[str, str, str]:
        return (self.job.tenant, self.job.priority, self.job.name)

    @property
    def rows(self) -> int:
        return max(1, round(self.seconds * self.row_steps_per_s))


@dataclass(frozen=True)
class Workload:
    """Poisson arrivals of jobs for ``hours``. ``twins`` draws the size of a bulk job; ``tenants`` send equally often.

    ``interactive_share`` of the jobs are interactive, of ``interactive_twins`` twins each.
    """

    jobs_per_hour: float
    twin_s: float
    hours: float = 24.0
    twins: Callable[[random.Random], int] = field(default=lambda draw: max(1, round(draw.lognormvariate(6.0, 1.3))))
    tenants: int = 8
    chunk_size: int = 8
    interactive_share: float = 0.3
    interactive_twins: int = 16

    def jobs(self, draw: random.Random) -> Iterator[SimJob]:
        """The jobs, in the order of their arrival."""
        at, number = 0.0, 0
        while (at := at + draw.expovariate(self.jobs_per_hour / 3600)) < self.hours * 3600:
            interactive = draw.random() < self.interactive_share
            left = self.interactive_twins if interactive else self.twins(draw)
            chunks = [min(self.chunk_size, left - first) * self.twin_s for first in range(0, left, self.chunk_size)]
            tenant = f"tenant-{draw.randrange(self.tenants)}"
            yield SimJob(f"job-{number}", tenant, "interactive" if interactive else "normal", at, chunks)
            number += 1
