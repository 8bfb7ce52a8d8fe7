"""Deaths of bulk workers: one is charged to the run that caused it, and to none that was in hand beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from service.broker import redis_keys
from service.kit.run_kinds import RunKind, new_run_id
from service.kit.states import JobState
from service.runs.spec import RunSpec
from service.settings import Settings
from service.store import ObjectStore
from tests.waiting import until
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from workers.bulk import alone
from workers.bulk.alone import execute_alone
from workers.bulk.context import Finished, RunContext, RunHandler
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.sweeper import RunSweeper
from workers.bulk.worker import BulkWorker

DONE = Finished(JobState.SUCCEEDED, done=1)

DELIVERY = """
import os, signal, sys
from service.kit.run_kinds import RunKind
from service.settings import get_settings
from workers.bulk.context import RunHandler
from workers.bulk.execute import execute_run
from workers.bulk.worker import open_bulk_worker
handler = RunHandler(lambda context: os.kill(os.getpid(), signal.SIGKILL))
execute_run(open_bulk_worker(get_settings()), sys.argv[1], {kind: handler for kind in RunKind}, alone=%s)
"""


def deadly(worker: BulkWorker, run: str, *, by_itself: bool) -> RunOutcome:
    """A delivery to a process that the run's handler kills, beside others or ``by_itself``."""
    settings = worker.settings
    environment = {
        **os.environ,
        "TWINSET_DATA_DIR": str(settings.data_dir),
        "TWINSET_BROKER_URL": settings.broker_url,
        "TWINSET_MAX_CHUNK_ATTEMPTS": str(settings.max_chunk_attempts),
        "TWINSET_LEASE_S": "1",
    }
    code = DELIVERY % (None if by_itself else "lambda worker, run: None")
    ended = subprocess.run([sys.executable, "-c", code, run], env=environment, check=False)
    assert ended.returncode in (0, -signal.SIGKILL)
    until(lambda: not worker.leases.live(run))
    return RunOutcome.FAILED


def kinds(handle: Callable[[RunContext], Finished]) -> dict[RunKind, RunHandler]:
    return {kind: RunHandler(handle) for kind in RunKind}


def accepted(worker: BulkWorker) -> RunSpec:
    spec = RunSpec(run=new_run_id(RunKind.EXPORT), created_at=datetime.now(UTC), work={})
    worker.runs.write_spec(spec)
    return spec


def test_a_run_that_was_in_hand_at_deaths_is_executed_alone_and_succeeds(worker: BulkWorker) -> None:
    innocent = accepted(worker)
    for _ in range(worker.settings.max_chunk_attempts + 2):
        # as a worker leaves it that others have killed, again and again
        worker.redis.set(redis_keys.run_begun(innocent.run), "1")
    by_itself: list[str] = []

    def execute_here(worker: BulkWorker, run: str) -> RunOutcome:
        by_itself.append(run)
        return execute_run(worker, run, kinds(lambda context: DONE), alone=None)

    outcome = execute_run(worker, innocent.run, kinds(lambda context: pytest.fail("beside others")), alone=execute_here)
    assert outcome is RunOutcome.ENDED
    assert by_itself == [innocent.run]
    summary = worker.runs.read_summary(innocent.run)
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED
    assert not worker.redis.exists(redis_keys.run_begun(innocent.run), redis_keys.run_attempts(innocent.run))


def test_a_death_beside_others_counts_for_none_and_one_alone_for_the_run(worker: BulkWorker) -> None:
    bomb = accepted(worker)
    deadly(worker, bomb.run, by_itself=False)
    assert worker.redis.get(redis_keys.run_attempts(bomb.run)) is None
    assert worker.settings.max_chunk_attempts == 2
    for number in (1, 2):
        assert worker.runs.read_summary(bomb.run) is None
        outcome = execute_run(
            worker,
            bomb.run,
            kinds(lambda context: pytest.fail("beside others")),
            alone=lambda worker, run: deadly(worker, run, by_itself=True),
        )
        assert outcome is RunOutcome.FAILED
        assert worker.redis.get(redis_keys.run_attempts(bomb.run)) == str(number)
    deadly(worker, bomb.run, by_itself=True)
    summary = worker.runs.read_summary(bomb.run)
    assert summary is not None
    assert summary.reason == "failed after 2 attempts; the last one ended when its worker died"


def test_one_run_at_a_time_is_executed_alone_and_another_comes_later(
    worker: BulkWorker, run_queue: RecordingRunQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = accepted(worker)
    worker.redis.set(redis_keys.run_begun(spec.run), "1")
    with alone._ONE_AT_A_TIME:
        outcome = execute_run(worker, spec.run, kinds(lambda context: DONE), alone=execute_alone)
    assert outcome is RunOutcome.LATER
    assert RunSweeper(worker).run_once()
    assert run_queue.sent == [], "in two seconds"


def test_a_run_alone_is_a_real_import_in_a_process_of_its_own(
    client: TestClient, worker: BulkWorker, settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINSET_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("TWINSET_BROKER_URL", settings.broker_url)
    send(client, dataset_tar(4))
    [run] = worker.runs.open_runs()
    assert execute_alone(worker, run) is RunOutcome.ENDED
    assert client.get("/datasets/scenes").json()["items"] == 4


def test_a_shutdown_ends_the_process_of_a_run_alone(
    client: TestClient, worker: BulkWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINSET_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("TWINSET_BROKER_URL", settings.broker_url)
    send(client, dataset_tar(4))
    [run] = worker.runs.open_runs()
    worker.shutdown.request()
    assert execute_alone(worker, run) in (RunOutcome.RELEASED, RunOutcome.FAILED, RunOutcome.ENDED)
