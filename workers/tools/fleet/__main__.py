"""``python -m workers.tools.fleet``: a simulated fleet under the chart's scaling rule, and by queue length."""

from __future__ import annotations

import random

import click

from service.cli.numbers import FiniteFloat
from workers.tools.fleet.autoscaler import Autoscaler, ScalingClocks
from workers.tools.fleet.report import FleetReport, by_backlog, by_queue_length, report
from workers.tools.fleet.simulation import FleetOptions, FleetSimulation
from workers.tools.fleet.workload import Workload

_COLUMNS = (
    ("rule", 26), ("start P50", 10), ("P95", 9), ("done P50", 10), ("P95", 9), ("GPU hours", 10), ("wasted", 8),
    ("undone", 8), ("most", 6), ("kills", 6),
)  # fmt: skip


@click.command(context_settings={"show_default": True})
@click.option("--jobs-per-hour", type=FiniteFloat(min=0.001), default=20.0, help="Jobs that arrive per hour.")
@click.option("--twin-s", type=FiniteFloat(min=0.0001), default=0.8, help="Device-seconds of one twin.")
@click.option("--hours", type=FiniteFloat(min=0.1), default=48.0, help="Hours in which jobs arrive.")
@click.option("--tenants", type=click.IntRange(1), default=8, help="Tenants that send them.")
@click.option("--target-s", type=FiniteFloat(min=1), default=600.0, help="Seconds in which the backlog shall be done.")
@click.option("--messages", type=click.IntRange(1), default=5, help="Messages for a replica, by queue length.")
@click.option("--min-replicas", type=click.IntRange(0), default=0, help="Workers that there always are.")
@click.option("--max-replicas", type=click.IntRange(1), default=50, help="Workers that there are at most.")
@click.option(
    "--cold-start-s", type=FiniteFloat(min=0), default=180.0, help="From a pod's creation to its first chunk."
)
@click.option("--kills-per-hour", type=FiniteFloat(min=0), default=0.05, help="Kills of one spot worker.")
@click.option("--seed", type=int, default=0, help="Of arrivals, sizes, cold starts and kills.")
def main(
    jobs_per_hour: float, twin_s: float, hours: float, tenants: int, target_s: float, messages: int, min_replicas: int,
    max_replicas: int, cold_start_s: float, kills_per_hour: float, seed: int,
) -> None:  # fmt: skip
    """Simulate a fleet of spot GPUs: how long jobs wait, and what is wasted.

    The same jobs run under the chart's rule and under the usual one, by the length of the queue.
    """
    load = Workload(jobs_per_hour=jobs_per_hour, twin_s=twin_s, hours=hours, tenants=tenants)
    jobs = list(load.jobs(random.Random(seed)))
    work_hours = sum(sum(job.chunk_s) for job in jobs) / 3600
    click.echo(f"{len(jobs)} jobs in {hours:g} h with {work_hours:.1f} device-hours of work, seed {seed}")
    click.echo("  ".join(f"{title:>{width}}" for title, width in _COLUMNS))
    options = FleetOptions(cold_start_s=cold_start_s, kills_per_hour=kills_per_hour)
    clocks = ScalingClocks(min_replicas=min_replicas, max_replicas=max_replicas)
    rules = {
        f"backlog, {target_s:g} s": by_backlog(target_s),
        f"queue length, {messages} each": by_queue_length(messages),
    }
    for name, metric in rules.items():
        scaler = Autoscaler(clocks, replicas=min_replicas)
        again = load.jobs(random.Random(seed))
        click.echo(_row(name, report(FleetSimulation(again, options, scaler=scaler, metric=metric, seed=seed).run())))


def _row(name: str, found: FleetReport) -> str:
    waits = (found.wait_p50_s, found.wait_p95_s, found.done_p50_s, found.done_p95_s)
    cells = (
        name, *(f"{wait:.0f} s" for wait in waits), f"{found.gpu_hours:.1f}", f"{found.wasted_hours:.1f}",
        f"{found.lost_hours:.2f}", str(found.largest), str(found.kills),
    )  # fmt: skip
    return "  ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))


if __name__ == "__main__":
    main()
