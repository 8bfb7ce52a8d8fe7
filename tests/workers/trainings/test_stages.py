"""Tests of trainings in one worker: a part, its checkpoints, pause, budget, and what goes wrong."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from service.kit.states import JobState
from service.store import ObjectStore, run_keys
from service.trainings import control
from service.trainings.records import TrainingRecords
from tests.waiting import until
from tests.workers.trainings.conftest import AUTOENCODER, accept, losses, part_hashes, train
from workers.bulk.execute import RunOutcome
from workers.bulk.worker import BulkWorker
from workers.trainings.folder import stage_folder


def with_options(**changes: Any) -> dict[str, Any]:
    return AUTOENCODER | {"options": AUTOENCODER["options"] | changes}  # type: ignore[operator]


def test_a_part_is_trained_and_kept(worker: BulkWorker, scenes: str, store: ObjectStore) -> None:
    run = accept(worker, stages=(AUTOENCODER,))
    assert train(worker, run) is RunOutcome.ENDED
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert (summary.state, summary.done, summary.reason) == (JobState.SUCCEEDED, 12, None)
    assert set(part_hashes(store, run)) == {"autoencoder.safetensors"}
    records = TrainingRecords(store, run)
    # a checkpoint that is replaced while the one before is being stored is passed over
    assert set(records.positions()) <= {(0, 3), (0, 6), (0, 9), (0, 12)}
    assert records.positions()[-1] == (0, 12)
    assert [line["iteration"] for line in losses(store, run)] == [3, 6, 9, 12]
    last = records.last()
    assert last is not None
    assert [(picture.stage, picture.iteration) for picture in records.samples()] == [(0, 6), (0, 12)]
    assert all(store.get(picture.key).startswith(b"\x89PNG") for picture in records.samples())
    best = min(records.checkpoints(), key=lambda record: record.loss or 0)
    files = {info.key for info in store.list(run_keys.run_prefix(run)) if info.key.endswith(".safetensors")}
    kept = {record.file.key for record in (*records.checkpoints()[-2:], best)}
    assert {key for key in files if "/checkpoints/" in key} == kept
    held = sum(info.size for info in store.list(run_keys.run_prefix(run)))
    assert summary.bytes == held - len(store.get(run_keys.run_summary(run)))
    assert list((worker.settings.data_dir / "trainings").iterdir()) == []


def test_a_paused_training_goes_on_where_it_was(worker: BulkWorker, scenes: str, store: ObjectStore) -> None:
    whole, cut = accept(worker, stages=(AUTOENCODER,)), accept(worker, stages=(AUTOENCODER,))
    assert train(worker, whole) is RunOutcome.ENDED
    control.request(store, cut, "pause")
    assert train(worker, cut) is RunOutcome.LATER
    assert TrainingRecords(store, cut).positions() == []
    control.request(store, cut, "resume")

    def pause_at_first_checkpoint() -> None:
        until(lambda: TrainingRecords(store, cut).positions() != [])
        control.request(store, cut, "pause")

    pausing = threading.Thread(target=pause_at_first_checkpoint)
    pausing.start()
    train(worker, cut)
    pausing.join()
    control.request(store, cut, "resume")
    if worker.runs.read_summary(cut) is None:
        assert train(worker, cut) is RunOutcome.ENDED
    assert part_hashes(store, cut) == part_hashes(store, whole)


def test_a_spent_budget_ends_at_a_checkpoint_and_says_so(worker: BulkWorker, scenes: str, store: ObjectStore) -> None:
    run = accept(worker, stages=(AUTOENCODER,), budget={"iterations": 5})
    assert train(worker, run) is RunOutcome.ENDED
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED
    assert summary.reason == "the budget of 5 iterations was spent after 5 of 12 iterations"
    assert TrainingRecords(store, run).positions() == [(0, 3), (0, 5)]
    assert part_hashes(store, run)


def test_device_seconds_are_a_budget_too(worker: BulkWorker, scenes: str, store: ObjectStore) -> None:
    run = accept(worker, stages=(with_options(iterations=100_000),), budget={"device_seconds": 1.0})
    assert train(worker, run) is RunOutcome.ENDED
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED
    assert "budget of 1 device-seconds was spent after" in str(summary.reason)
    assert 0 < summary.done < 100_000
    assert summary.result["device_seconds"] >= 1.0


def test_data_that_cannot_be_trained_on_end_the_training_at_once(worker: BulkWorker, scenes: str) -> None:
    run = accept(worker, stages=(with_options(size_px=30),))
    assert train(worker, run) is RunOutcome.ENDED
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert summary.state is JobState.FAILED
    assert "30 is not a multiple of" in str(summary.reason)
    assert list((worker.settings.data_dir / "trainings").iterdir()) == []


def test_a_dataset_that_is_deleted_is_named(worker: BulkWorker, scenes: str, client: Any) -> None:
    assert client.delete("/datasets/scenes/1").status_code == 204
    run = accept(worker, stages=(AUTOENCODER,))
    assert train(worker, run) is RunOutcome.ENDED
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert summary.state is JobState.FAILED
    assert "scenes@1" in str(summary.reason)


def test_a_loss_that_is_no_number_is_named(worker: BulkWorker, scenes: str, store: ObjectStore) -> None:
    run = accept(worker, stages=(with_options(learning_rate=1.0, kl_weight=1e30, clip_norm=1e30, iterations=500),))
    assert train(worker, run) is RunOutcome.ENDED
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert summary.state is JobState.FAILED
    assert "the gradient is" in str(summary.reason)


def test_a_cancelled_training_keeps_its_checkpoints(worker: BulkWorker, scenes: str, store: ObjectStore) -> None:
    run = accept(worker, stages=(with_options(iterations=100_000),))

    def cancel_at_first_checkpoint() -> None:
        until(lambda: TrainingRecords(store, run).positions() != [])
        worker.runs.cancel(worker.runs.read_spec(run))

    cancelling = threading.Thread(target=cancel_at_first_checkpoint)
    cancelling.start()
    assert train(worker, run) is RunOutcome.CANCELLED
    cancelling.join()
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert summary.state is JobState.CANCELLED
    last = TrainingRecords(store, run).last()
    assert last is not None
    assert store.head(last.file.key) is not None
    assert f"its last checkpoint is of iteration {last.iteration}" in str(summary.reason)


def test_two_trainers_of_one_run(worker: BulkWorker, hire: Any, scenes: str, store: ObjectStore) -> None:
    whole = accept(worker, stages=(AUTOENCODER,))
    assert train(worker, whole) is RunOutcome.ENDED
    run = accept(worker, stages=(with_options(iterations=100_000),))
    second, outcomes = hire(), []
    first = threading.Thread(target=lambda: outcomes.append(train(worker, run)))
    first.start()
    until(lambda: TrainingRecords(store, run).positions() != [])
    assert train(second, run) is RunOutcome.TAKEN
    # the first one's lease is taken from it, as from a process that was stopped for long
    worker.leases.forget(run)
    worker.redis.flushall()
    taken = second.leases.take(run, 0)
    assert taken is not None
    before = TrainingRecords(store, run).positions()
    first.join(timeout=60)
    assert not first.is_alive()
    assert outcomes[0] in (RunOutcome.RELEASED, RunOutcome.TAKEN)
    after = TrainingRecords(store, run).positions()
    assert len(after) - len(before) <= 1
    assert worker.runs.read_summary(run) is None


def test_folders_of_killed_workers_are_removed(tmp_path: Path) -> None:
    dead = tmp_path / "stage-dead"
    dead.mkdir()
    (dead / "lock").touch()
    with stage_folder(tmp_path) as first, stage_folder(tmp_path) as second:
        assert not dead.exists()
        assert first.is_dir()
        assert second.is_dir()
    assert list(tmp_path.iterdir()) == []
