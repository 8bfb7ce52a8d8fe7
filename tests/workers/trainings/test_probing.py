"""Probes of a stage: which iterations are measured, and what a real child reports of its machine."""

from __future__ import annotations

from service.store import ObjectStore
from service.trainings.probes import Fingerprints, Probe, find_probes
from service.trainings.quota import TrainingUsage
from service.trainings.work import TrainingWork
from tests.workers.trainings.conftest import AUTOENCODER, accept, train
from workers.bulk.execute import RunOutcome
from workers.bulk.worker import BulkWorker
from workers.trainings.folder import Begun, StageProgress
from workers.trainings.probing import Prober

MACHINE = {"device": "NVIDIA H200", "torch": "2.11.0"}
BEGUN = Begun(iterations=100, start=40, parameters=9, device="cuda:0", machine=MACHINE)


def prober(worker: BulkWorker) -> Prober:
    return Prober(worker, worker.runs.read_spec(accept(worker, stages=[AUTOENCODER])), 0, 2)


def stored(worker: BulkWorker) -> list[Probe]:
    work = TrainingWork.model_validate({"stages": [AUTOENCODER]})
    return list(find_probes(worker.store, "autoencoder", Fingerprints(worker.runs, "default").of(work, 0)))


def report(probing: Prober, iteration: int, seconds: float, *, is_yielding: bool = False) -> None:
    progress = StageProgress(iteration=iteration, seconds=seconds, memory_bytes=1 << 30)
    probing.note(BEGUN, progress, is_yielding=is_yielding)


def test_twenty_iterations_after_the_first_five_are_measured_once(worker: BulkWorker) -> None:
    probing = prober(worker)
    report(probing, 41, 30.0)  # slow: the kernels are being chosen
    report(probing, 46, 31.0)
    report(probing, 65, 40.0)
    assert stored(worker) == []
    report(probing, 67, 41.5)
    (probe,) = stored(worker)
    assert (probe.seconds_per_iteration, probe.iterations, probe.parameters) == (0.5, 21, 9)
    assert (probe.machine, probe.device, probe.devices, probe.memory_bytes) == (MACHINE, "NVIDIA H200", 2, 1 << 30)
    report(probing, 90, 999.0)
    assert stored(worker) == [probe]


def test_iterations_beside_interactive_twins_are_not_measured(worker: BulkWorker) -> None:
    probing = prober(worker)
    report(probing, 46, 1.0)
    report(probing, 60, 20.0, is_yielding=True)
    report(probing, 70, 21.0)
    assert stored(worker) == []
    report(probing, 80, 22.0)
    assert [probe.seconds_per_iteration for probe in stored(worker)] == [0.1]


def test_a_trained_stage_leaves_its_probe_and_its_device_seconds(
    worker: BulkWorker, scenes: str, store: ObjectStore
) -> None:
    slow = {"iterations": 60, "checkpoint_every": 30, "batch_size": 12, "size_px": 32}
    stage = AUTOENCODER | {"options": AUTOENCODER["options"] | slow}  # type: ignore[operator]
    run = accept(worker, stages=[stage])
    assert train(worker, run) is RunOutcome.ENDED
    summary = worker.runs.read_summary(run)
    assert summary is not None
    used, reserved = TrainingUsage(store).counted("default", summary.finished_at)
    assert used >= 1
    assert used - 1 <= summary.result["device_seconds"] <= used + 1
    assert reserved == 0
    work = TrainingWork.model_validate({"stages": [stage]})
    (probe,) = find_probes(store, "autoencoder", Fingerprints(worker.runs, "default").of(work, 0))
    assert probe.iterations >= 20
    assert 0.3 < probe.seconds_per_iteration * 60 / summary.result["seconds"] < 3
    assert probe.parameters > 1000
    assert (probe.memory_bytes or 0) > 50 << 20
    assert probe.machine["cpu_threads"] == "1"
