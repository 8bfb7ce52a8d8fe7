"""Tests of deliveries of runs: repeated, cancelled, deleted, killed; and of the sweeper."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from redis import Redis

from service.broker import redis_keys
from service.broker.run_queue import (
    RUN_QUEUE,
    RUN_TASK,
    RunQueue,
    run_celery_options,
)
from service.errors import InvalidDataset, StoreUnavailable
from service.kit.run_kinds import RunKind, kind_of, new_run_id
from service.kit.states import JobState
from service.runs.spec import RunSpec
from service.settings import Settings
from service.store import ObjectStore, run_keys
from tests.workers.bulk.conftest import RecordingRunQueue
from workers.bulk.celery_app import create_bulk_app
from workers.bulk.context import (
    Finished,
    RetryLater,
    RunContext,
    RunHandler,
    RunReleased,
)
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.sweeper import RunSweeper
from workers.bulk.worker import BulkWorker

DONE = Finished(JobState.SUCCEEDED, done=3, total=3, size=10, result={"said": "so"})


def accepted(worker: BulkWorker, kind: RunKind = RunKind.EXPORT) -> RunSpec:
    """Writes the spec of a new run."""
    spec = RunSpec(run=new_run_id(kind), created_at=datetime.now(UTC), work={})
    worker.runs.write_spec(spec)
    return spec


def kinds(handle: Callable[[RunContext], Finished | RetryLater], **changes: object) -> dict[RunKind, RunHandler]:
    return {kind: RunHandler(handle, **changes) for kind in RunKind}  # type: ignore[arg-type]


def test_ids_name_their_kind_and_sort_newest_first() -> None:
    early, late = (new_run_id(RunKind.EXPORT, datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2))
    assert late < early
    assert kind_of(early) is RunKind.EXPORT
    assert kind_of(new_run_id(RunKind.DATASET)) is RunKind.DATASET
    for none in ("", "e", "j" + early[1:], early + "0", early.upper(), f"../{early}", early + "\n"):
        assert kind_of(none) is None


def test_a_run_ends_once_with_its_handlers_result(worker: BulkWorker) -> None:
    spec = accepted(worker)
    calls: list[str] = []

    def handle(context: RunContext) -> Finished:
        calls.append(context.spec.run)
        assert worker.leases.live(spec.run) == {0}
        return DONE

    assert execute_run(worker, spec.run, kinds(handle)) is RunOutcome.ENDED
    summary = worker.runs.read_summary(spec.run)
    assert summary is not None
    assert (summary.state, summary.done, summary.result, summary.bytes) == (
        JobState.SUCCEEDED,
        3,
        {"said": "so"},
        10,
    )
    assert worker.store.head(run_keys.open_run(spec.run)) is None
    assert worker.repository.usage.stored_bytes("default") == {spec.run: 10}
    # delivered again, it is not executed
    assert execute_run(worker, spec.run, kinds(handle)) is RunOutcome.NOTHING_TO_DO
    assert calls == [spec.run]
    assert worker.leases.live(spec.run) == set()


def test_two_workers_never_execute_the_same_run(hire: Callable[..., BulkWorker]) -> None:
    one, other = hire(), hire()
    spec = accepted(one)
    outcomes: list[RunOutcome] = []

    def handle(context: RunContext) -> Finished:
        outcomes.append(execute_run(other, spec.run, kinds(handle)))
        return DONE

    assert execute_run(one, spec.run, kinds(handle)) is RunOutcome.ENDED
    assert outcomes == [RunOutcome.TAKEN]


def test_a_waiting_run_is_not_requeued_early(worker: BulkWorker, run_queue: RecordingRunQueue) -> None:
    spec = accepted(worker)
    sweeper = RunSweeper(worker)
    assert execute_run(worker, spec.run, kinds(lambda context: RetryLater(0.6))) is RunOutcome.LATER
    assert sweeper.run_once()
    assert run_queue.sent == []
    time.sleep(0.7)
    assert sweeper.run_once()
    assert run_queue.sent == [spec.run]
    # waiting is no failed attempt, however often
    for _ in range(worker.settings.max_chunk_attempts + 1):
        assert execute_run(worker, spec.run, kinds(lambda context: RetryLater(0.001))) is RunOutcome.LATER


def test_the_sweeper_requeues_lost_runs_only(
    worker: BulkWorker, run_queue: RecordingRunQueue, settings: Settings
) -> None:
    lost, queued, held, ended = (accepted(worker) for _ in range(4))
    real = RunQueue(settings)
    real.send_run(queued.run)
    real.close()
    lease = worker.leases.take(held.run, 0)
    assert lease is not None
    execute_run(worker, ended.run, kinds(lambda context: DONE))
    worker.store.put(run_keys.open_run(ended.run), b"")  # as if killed between summary and this
    sweeper = RunSweeper(worker)
    assert sweeper.run_once()
    assert run_queue.sent == [lost.run]
    assert worker.store.head(run_keys.open_run(ended.run)) is None
    worker.leases.release(lease)
    sweeper.run_once()
    assert set(run_queue.sent) == {lost.run, held.run}


def test_an_invalid_request_ends_the_run_and_a_store_error_does_not(worker: BulkWorker) -> None:
    spec = accepted(worker)

    def away(context: RunContext) -> Finished:
        raise StoreUnavailable("the store does not answer")

    for _ in range(worker.settings.max_chunk_attempts + 2):
        assert execute_run(worker, spec.run, kinds(away)) is RunOutcome.FAILED
    assert worker.runs.read_summary(spec.run) is None

    def wrong(context: RunContext) -> Finished:
        raise InvalidDataset("there is no pair")

    assert execute_run(worker, spec.run, kinds(wrong)) is RunOutcome.ENDED
    summary = worker.runs.read_summary(spec.run)
    assert summary is not None
    assert (summary.state, summary.reason) == (JobState.FAILED, "there is no pair")


def test_a_run_that_keeps_failing_fails_with_the_reason(worker: BulkWorker) -> None:
    spec = accepted(worker)

    def broken(context: RunContext) -> Finished:
        raise RuntimeError("a fault of ours")

    assert worker.settings.max_chunk_attempts == 2
    assert execute_run(worker, spec.run, kinds(broken)) is RunOutcome.FAILED
    assert execute_run(worker, spec.run, kinds(broken)) is RunOutcome.ENDED
    summary = worker.runs.read_summary(spec.run)
    assert summary is not None
    assert summary.state is JobState.FAILED
    assert summary.reason == "failed after 2 attempts; the last one: RuntimeError: a fault of ours"


def test_an_error_that_comes_again_is_final(worker: BulkWorker) -> None:
    worker = replace(worker, settings=worker.settings.model_copy(update={"max_chunk_attempts": 5}))
    spec = accepted(worker)
    messages = iter(["one", "another", "another"])

    def broken(context: RunContext) -> Finished:
        raise KeyError(next(messages))

    outcomes = [execute_run(worker, spec.run, kinds(broken)) for _ in range(3)]
    assert outcomes == [RunOutcome.FAILED, RunOutcome.FAILED, RunOutcome.ENDED]
    summary = worker.runs.read_summary(spec.run)
    assert summary is not None
    assert summary.reason == "failed after 3 attempts; the last one: KeyError: 'another'"
    # a full disk may be emptied
    other = accepted(worker)

    def full(context: RunContext) -> Finished:
        raise OSError(28, "No space left on device")

    assert {execute_run(worker, other.run, kinds(full)) for _ in range(4)} == {RunOutcome.FAILED}
    assert execute_run(worker, other.run, kinds(full)) is RunOutcome.ENDED


def test_a_run_that_keeps_killing_its_worker_fails(worker: BulkWorker, settings: Settings) -> None:
    spec = accepted(worker)
    redis = Redis.from_url(settings.broker_url)
    redis.set(redis_keys.run_attempts(spec.run), 2)  # two attempts began and never ended
    redis.close()
    assert execute_run(worker, spec.run, kinds(lambda context: DONE)) is RunOutcome.ENDED
    summary = worker.runs.read_summary(spec.run)
    assert summary is not None
    assert "the last one ended when its worker died" in (summary.reason or "")


def test_a_run_cancelled_before_its_start_ends_at_once(worker: BulkWorker) -> None:
    spec = accepted(worker)
    worker.runs.cancel(spec)
    summary = worker.runs.read_summary(spec.run)
    assert summary is not None
    assert summary.state is JobState.CANCELLED
    worker.runs.cancel(spec)
    assert (
        execute_run(worker, spec.run, kinds(lambda context: pytest.fail("it was cancelled")))
        is RunOutcome.NOTHING_TO_DO
    )


def test_a_run_cancelled_during_execution_keeps_nothing(worker: BulkWorker) -> None:
    spec = accepted(worker)

    def handle(context: RunContext) -> Finished:
        worker.store.put(f"{run_keys.run_prefix(spec.run)}files/a.tar", b"half")
        worker.runs.cancel(spec)
        assert worker.runs.read_summary(spec.run) is None
        context._checked_at = float("-inf")
        context.check()
        raise AssertionError("the cancel was not seen")

    assert execute_run(worker, spec.run, kinds(handle)) is RunOutcome.CANCELLED
    summary = worker.runs.read_summary(spec.run)
    assert summary is not None
    assert summary.state is JobState.CANCELLED
    assert worker.store.head(f"{run_keys.run_prefix(spec.run)}files/a.tar") is None


def test_a_worker_that_stops_requeues_its_run(
    worker: BulkWorker, run_queue: RecordingRunQueue, hire: Callable[..., BulkWorker]
) -> None:
    spec = accepted(worker)

    def handle(context: RunContext) -> Finished:
        worker.shutdown.request()
        assert context.should_stop()
        raise RunReleased(cancelled=False)

    assert execute_run(worker, spec.run, kinds(handle)) is RunOutcome.RELEASED
    assert run_queue.sent == [spec.run]
    assert execute_run(hire(), spec.run, kinds(lambda context: DONE)) is RunOutcome.ENDED


def test_a_deleted_runs_objects_are_removed_after_its_lease_ends(worker: BulkWorker, store: ObjectStore) -> None:
    before = {info.key for info in store.list("")}
    spec = accepted(worker, RunKind.DATASET)
    sweeper = RunSweeper(worker)

    def handle(context: RunContext) -> Finished:
        store.put(f"{run_keys.run_prefix(spec.run)}shards/0.tar", b"x")
        worker.runs.delete(spec)
        assert sweeper.run_once()
        assert store.head(run_keys.run_spec(spec.run)) is not None, "removed while a worker writes"
        context._checked_at = float("-inf")
        context.check()
        raise AssertionError("the deletion was not seen")

    assert execute_run(worker, spec.run, kinds(handle)) is RunOutcome.CANCELLED
    assert sweeper.run_once()
    assert {info.key for info in store.list("")} == before


def test_messages_hold_only_a_run_id(worker: BulkWorker, settings: Settings) -> None:
    app = create_bulk_app(settings, worker)
    task = app.tasks[RUN_TASK]
    assert task("../../x") == RunOutcome.NOTHING_TO_DO.value
    assert task(7) == RunOutcome.NOTHING_TO_DO.value
    assert set(app.conf.task_queues) == {RUN_QUEUE} == set(run_celery_options(settings)["task_queues"])


def test_an_open_entry_without_a_spec_is_deleted_after_an_hour(
    worker: BulkWorker, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    import workers.bulk.sweeper as module

    run = new_run_id(RunKind.EXPORT)
    store.put(run_keys.open_run(run), b"")
    sweeper = RunSweeper(worker)
    sweeper.run_once()
    assert store.head(run_keys.open_run(run)) is not None
    monkeypatch.setattr(module, "_NEVER_WRITTEN_AFTER", timedelta(0))
    sweeper.run_once()
    assert store.head(run_keys.open_run(run)) is None


@pytest.mark.parametrize("damaged", [b"", bytes(50), b"[]", b'{"format": 99}'])
def test_a_record_that_cannot_be_read_stops_no_sweep(
    worker: BulkWorker, store: ObjectStore, run_queue: RecordingRunQueue, damaged: bytes
) -> None:
    bad_spec, bad_summary, going, good = (accepted(worker, RunKind.EXPORT) for _ in range(4))
    bad_set = accepted(worker, RunKind.AUGMENTATION)
    store.put(run_keys.run_spec(bad_spec.run), damaged)
    store.put(run_keys.run_summary(bad_summary.run), damaged)
    worker.runs.delete(bad_set)
    store.put(run_keys.deleting_run(bad_set.run), damaged)
    store.put(run_keys.run_spec(bad_set.run), damaged)
    worker.runs.delete(going)
    assert RunSweeper(worker).run_once()
    assert good.run in run_queue.sent
    assert bad_spec.run not in run_queue.sent
    assert not [info.key for info in store.list("") if going.run in info.key or bad_set.run in info.key]
