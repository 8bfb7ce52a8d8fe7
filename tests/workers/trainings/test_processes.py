"""Tests of training workers as processes: they are killed or stopped, and the next one goes on to the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from functools import partial
from typing import Any

import pytest
from redis import Redis

from service.broker.run_queue import RunQueue
from service.kit.states import JobState
from service.runs.progress import run_progress
from service.settings import Settings
from service.store import ObjectStore
from service.trainings.records import TrainingRecords
from tests.waiting import until
from tests.workers.trainings.conftest import AUTOENCODER, Start, accept, losses, part_hashes, train
from workers.bulk.worker import BulkWorker

LONG = AUTOENCODER | {"options": AUTOENCODER["options"] | {"iterations": 150, "checkpoint_every": 6}}  # type: ignore[operator]


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The ids of a worker's child processes."""
    found = []
    for task in os.listdir(f"/proc/{process.pid}/task"):
        with open(f"/proc/{process.pid}/task/{task}/children") as file:
            found += [int(child) for child in file.read().split()]
    return found


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def none_runs(pids: list[int]) -> bool:
    return not any(map(is_running, pids))


def has_come_further(worker: BulkWorker, run: str, known: int) -> bool:
    ended = worker.runs.read_summary(run) is not None
    return ended or len(TrainingRecords(worker.store, run).positions()) > known


def kill_again_and_again(
    kills: int, settings: Settings, store: ObjectStore, worker: BulkWorker, start: Start, *, flush: bool
) -> None:
    """Kills a training's worker or its child at random moments; the result is that of an undisturbed run."""
    chosen = random.Random(3)
    whole = accept(worker, stages=(LONG,))
    train(worker, whole)
    run = accept(worker, stages=(LONG,))
    RunQueue(settings).send_run(run)
    records, resumed = TrainingRecords(store, run), 0.0
    for number in range(kills):
        if worker.runs.read_summary(run) is not None:
            break
        process, known = start(), len(records.positions())
        began = time.monotonic()
        # dead at its start, while it reads, or as soon as it has come further
        if chosen.random() < 0.3:
            time.sleep(chosen.uniform(0.5, 6.0))
        else:
            until(partial(has_come_further, worker, run, known), timeout_s=90)
            resumed = max(resumed, time.monotonic() - began)
            time.sleep(chosen.uniform(0.0, 0.5))
        children = children_of(process)
        if children and number % 3 == 2:
            os.kill(children[0], signal.SIGKILL)
            time.sleep(1.0)
        if flush and number % 2:
            client = Redis.from_url(settings.broker_url)
            client.flushall()
            client.close()
        process.kill()
        process.wait()
        until(partial(none_runs, children), timeout_s=10)
    start()
    until(lambda: worker.runs.read_summary(run) is not None, timeout_s=180)
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert (summary.state, summary.done) == (JobState.SUCCEEDED, 150), summary.reason
    assert part_hashes(store, run) == part_hashes(store, whole)
    assert losses(store, run) == losses(store, whole)
    assert resumed < 60
    held = {info.key for info in store.list(f"trainings/{run}/checkpoints/") if info.key.endswith(".safetensors")}
    assert held <= records.counted_keys()


def test_killed_at_random_it_ends_with_the_same_bits(
    settings: Settings, scenes: str, store: ObjectStore, worker: BulkWorker, start: Start
) -> None:
    kill_again_and_again(2, settings, store, worker, start, flush=True)


@pytest.mark.soak
def test_killed_twenty_times_it_ends_with_the_same_bits(
    settings: Settings, scenes: str, store: ObjectStore, worker: BulkWorker, start: Start
) -> None:
    kill_again_and_again(20, settings, store, worker, start, flush=True)


def test_a_stopped_worker_leaves_a_checkpoint_for_the_next(
    settings: Settings, scenes: str, store: ObjectStore, worker: BulkWorker, start: Start
) -> None:
    options: dict[str, Any] = LONG["options"] | {"checkpoint_every": 100_000}  # type: ignore[operator]
    run = accept(worker, stages=(LONG | {"options": options | {"iterations": 100_000}},))
    RunQueue(settings).send_run(run)
    process, records = start(), TrainingRecords(store, run)
    until(records.is_validated, timeout_s=60)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 0
    first = records.last()
    assert first is not None
    assert worker.runs.read_summary(run) is None
    again = start()
    until(lambda: run_progress(worker.runs, worker.live_state, worker.runs.read_spec(run)).done > first.iteration + 1)
    again.send_signal(signal.SIGTERM)
    assert again.wait(40) == 0
    second = records.last()
    assert second is not None
    assert second.iteration > first.iteration
    assert second.seconds > first.seconds
