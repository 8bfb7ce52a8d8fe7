"""What a simulated fleet did: waits of jobs, device-hours, and what of them was wasted."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, quantiles

from service.kit.scaling import replicas_wanted
from workers.tools.fleet.simulation import FleetSimulation, Metric

LIST_LENGTH = 5
"""Messages for each replica: the default of KEDA's scaler for Redis lists."""


def by_backlog(target_s: float) -> Metric:
    """The rule of the chart: device-seconds of all that is not recorded, and no fewer workers than hold chunks."""
    return lambda fleet: replicas_wanted(fleet.backlog_s, target_s, fleet.busy)


def by_queue_length(messages: int = LIST_LENGTH) -> Metric:
    """The usual rule: a replica for so many messages that wait in the queue."""
    return lambda fleet: len(fleet.waiting) / messages


@dataclass(frozen=True)
class FleetReport:
    """Waits in seconds, from a job's acceptance: to its first chunk's start, and to its end."""

    jobs: int
    wait_p50_s: float
    wait_p95_s: float
    wait_mean_s: float
    done_p50_s: float
    done_p95_s: float
    gpu_hours: float
    useful_share: float
    lost_hours: float
    largest: int
    kills: int

    @property
    def wasted_hours(self) -> float:
        """Device-hours that made no recorded chunk: cold starts, idle workers, and what kills and drains undid."""
        return self.gpu_hours * (1.0 - self.useful_share)


def report(fleet: FleetSimulation) -> FleetReport:
    """The report of a fleet that has run."""
    ended = [job for job in fleet.jobs if job.ended is not None and job.started is not None]
    waits = [job.started - job.arrived for job in ended if job.started is not None]
    dones = [job.ended - job.arrived for job in ended if job.ended is not None]
    return FleetReport(
        jobs=len(ended),
        wait_p50_s=_percentile(waits, 50),
        wait_p95_s=_percentile(waits, 95),
        wait_mean_s=mean(waits),
        done_p50_s=_percentile(dones, 50),
        done_p95_s=_percentile(dones, 95),
        gpu_hours=fleet.worker_s / 3600,
        useful_share=fleet.useful_s / fleet.worker_s if fleet.worker_s else 0.0,
        lost_hours=fleet.lost_s / 3600,
        largest=fleet.largest,
        kills=fleet.kills,
    )


def _percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
