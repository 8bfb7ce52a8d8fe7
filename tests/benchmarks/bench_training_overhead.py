"""Cost of a training as a run, against ``twinset train`` with the same settings: wall time of both, in turn.

    python -m tests.benchmarks.bench_training_overhead [--rounds 3] [--iterations 400]

Both train the same autoencoder on the same dataset in the same store, with a checkpoint every 50 iterations; the run
also stores its checkpoints, renews its lease and reports its progress. Prints the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from starlette.testclient import TestClient

from service.api.app import create_app
from service.kit.run_kinds import RunKind, new_run_id
from service.local.broker import EmbeddedBroker
from service.runs.spec import RunSpec
from service.settings import Settings
from service.store import open_store
from service.trainings.records import TrainingRecords
from service.trainings.work import TrainingWork
from tests.workers.bulk.conftest import dataset_tar, send
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.handlers import handlers
from workers.bulk.worker import open_bulk_worker
from workers.trainings.handler import training_handler


def main() -> None:
    """Runs both and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=400)
    chosen = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", TWINSET_DEVICE="cpu")
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder) / "broker") as broker:
        settings = Settings(broker_url=broker.url, data_dir=Path(folder) / "data")
        store = open_store(settings)
        worker = open_bulk_worker(settings, store=store)
        with TestClient(create_app(settings, store=store)) as client:
            send(client, dataset_tar(12))
        dataset = next(iter(worker.runs.open_runs()))
        assert execute_run(worker, dataset, handlers()) is RunOutcome.ENDED
        bare, run = [], []
        for number in range(chosen.rounds):
            bare.append(_bare(settings, Path(folder) / f"bare-{number}", chosen.iterations))
            run.append(_run(worker, chosen.iterations))
            print(f"bare {bare[-1]:6.2f} s   run {run[-1]:6.2f} s   run / bare {run[-1] / bare[-1]:.3f}", flush=True)
        print(f"median: run / bare {statistics.median(run) / statistics.median(bare):.3f}")
        worker.close()


def _bare(settings: Settings, out: Path, iterations: int) -> float:
    command = [sys.executable, "-m", "service.cli", "train", "autoencoder", "--data", "scenes@1", "--out", str(out)]
    command += ["--size", "32", "--batch-size", "8", "--iterations", str(iterations), "--precision", "no", "--cpu"]
    command += ["--checkpoint-every", "50", "--sample-every", "100", "--seed", "5", "--perceptual-weight", "0"]
    environment = {**os.environ, "TWINSET_DATA_DIR": str(settings.data_dir)}
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def _run(worker, iterations: int) -> float:  # type: ignore[no-untyped-def]
    options = {"size_px": 32, "batch_size": 8, "iterations": iterations, "precision": "no", "seed": 5}
    options |= {"checkpoint_every": 50, "sample_every": 100, "perceptual_weight": 0.0}
    work = TrainingWork.model_validate(
        {"stages": [{"system": "autoencoder", "data": ("scenes@1",), "options": options}]}
    )
    spec = RunSpec(run=new_run_id(RunKind.TRAINING), created_at=datetime.now(UTC), work=work.model_dump(mode="json"))
    worker.runs.write_spec(spec)
    began = time.monotonic()
    outcome = execute_run(worker, spec.run, {RunKind.TRAINING: training_handler()}, alone=None)
    taken = time.monotonic() - began
    assert outcome is RunOutcome.ENDED
    assert TrainingRecords(worker.store, spec.run).stage(0) is not None
    return taken


if __name__ == "__main__":
    main()
