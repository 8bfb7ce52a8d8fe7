"""Tests of the bulk worker's metrics: real work, and the page that Prometheus scrapes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.api.app import create_app
from service.broker import redis_keys
from service.broker.run_queue import RUN_QUEUE, RunQueue
from service.errors import SettingsError, StoreUnavailable
from service.kit.run_kinds import RunKind
from service.settings import Settings
from service.store import ObjectStore
from tests.ports import free_port
from tests.service.api.support import mask_card, register
from tests.waiting import until
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from tests.workers.bulk.test_augmentations import ask, execute_until_ended
from tests.workers.bulk.test_cleanup import break_at_the_third_shard
from tests.workers.bulk.test_execute import DONE, accepted, kinds
from tests.workers.bulk.test_exports import NAMES
from workers.bulk.context import Finished, RetryLater, RunContext
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.handlers import handlers
from workers.bulk.metrics import BulkCollector
from workers.bulk.sweeper import RunSweeper
from workers.bulk.worker import BulkWorker
from workers.runtime.metrics_server import serve_metrics

Execute = Callable[[str], RunOutcome]
Values = dict[tuple[str, ...], float]


def page(port: int) -> Values:
    """The metrics page: values by metric and labels, without the buckets of histograms."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("twinset_bulk_")
        and "le" not in sample.labels
        and not sample.name.endswith("_created")
    }


@pytest.fixture
def port(worker: BulkWorker) -> Iterator[int]:
    """Port on which the worker's metrics are served."""
    collector, port = BulkCollector(worker), free_port()
    serve_metrics(collector, port, "127.0.0.1")
    yield port
    REGISTRY.unregister(collector)


@pytest.fixture
def grown(port: int) -> Callable[[], Values]:
    """Returns a function that gives the growth of each metric since the start of the test, if it grew."""
    before = page(port)

    def since() -> Values:
        return {
            name: value - before.get(name, 0.0) for name, value in page(port).items() if value != before.get(name, 0.0)
        }

    return since


def test_a_dataset_and_its_export_are_counted(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, grown: Callable[[], Values], store: ObjectStore
) -> None:
    send(client, dataset_tar(6, spoilt=2))
    execute(run_queue.sent[-1])
    said = grown()
    assert said["twinset_bulk_dataset_files_total", "archive"] == 13, "a list of classes, six images, six masks"
    assert (said["twinset_bulk_dataset_items_total", "kept"], said["twinset_bulk_dataset_items_total", "skipped"]) == (
        5,
        1,
    )
    shards = sum(info.size for info in store.list(f"datasets/{run_queue.sent[-1]}/shards/"))
    pictures = sum(info.size for info in store.list(f"datasets/{run_queue.sent[-1]}/") if info.key.endswith(".png"))
    assert said["twinset_bulk_dataset_bytes_total",] == shards + pictures

    # the same image comes once
    send(client, dataset_tar(6), name="again")
    execute(run_queue.sent[-1])
    body = {"sources": [{"dataset": "scenes"}, {"dataset": "again"}], "format": "webdataset", "shard_items": 2}
    export = client.post("/exports", json=body).json()["id"]
    execute(export)
    view = client.get(f"/exports/{export}").json()
    said = grown()
    assert view["items"]["real"] == 6
    assert view["skipped"] == {"same_image": 5}
    assert said["twinset_bulk_export_items_total", "webdataset", "written"] == 6
    assert said["twinset_bulk_export_items_total", "webdataset", "skipped"] == 5
    assert said["twinset_bulk_export_bytes_total", "webdataset"] == view["bytes"]
    for kind, count in (("dataset", 2), ("export", 1)):
        assert said["twinset_bulk_runs_ended_total", kind, "succeeded"] == count
        assert (
            said["twinset_bulk_attempts_total", kind] == said["twinset_bulk_deliveries_total", kind, "ended"] == count
        )
        assert said["twinset_bulk_run_seconds_count", kind] == count
    assert said["twinset_bulk_run_seconds_sum", "export"] == pytest.approx(view["seconds"])


def test_an_export_over_two_workers_is_counted_by_each(
    client: TestClient,
    hire: Callable[..., BulkWorker],
    execute: Execute,
    run_queue: RecordingRunQueue,
    grown: Callable[[], Values],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send(client, dataset_tar(6))
    execute(run_queue.sent[-1])
    export = client.post(
        "/exports", json={"sources": [{"dataset": "scenes"}], "format": "webdataset", "shard_items": 2}
    ).json()["id"]
    with monkeypatch.context() as patched:
        break_at_the_third_shard(patched, StoreUnavailable("killed here"))
        assert execute_run(hire(), export, handlers()) is RunOutcome.FAILED
    assert execute_run(hire(), export, handlers()) is RunOutcome.ENDED
    said = grown()
    assert said["twinset_bulk_deliveries_total", "export", "failed"] == 1
    # the second went on behind the last checkpoint: what lay between that and the end of the first was done twice
    assert 6 <= said["twinset_bulk_export_items_total", "webdataset", "written"] <= 8
    assert said["twinset_bulk_runs_ended_total", "export", "succeeded"] == 1


def test_accepted_and_rejected_twins_are_counted(
    client: TestClient,
    execute: Execute,
    worker: BulkWorker,
    run_queue: RecordingRunQueue,
    store: ObjectStore,
    grown: Callable[[], Values],
) -> None:
    register(store, mask_card())
    send(client, dataset_tar(12, names=NAMES))
    execute(run_queue.sent[-1])
    asked = ask(
        client, dataset="scenes", model="aerial", count=12, seed=1, acceptance={"min_confident_share": 0.9}, budget=4.0
    )
    view = execute_until_ended(client, execute, worker, asked["id"], lambda seed: 0.95 if seed % 2 else 0.5)
    said = grown()
    assert said["twinset_bulk_twins_accepted_total",] == view["done"] == 12
    rejected = {name[1]: value for name, value in said.items() if name[0] == "twinset_bulk_twins_rejected_total"}
    assert rejected == view["rejected"]
    assert sum(rejected.values()) == view["tried"] - 12 > 0
    assert said["twinset_bulk_deliveries_total", "augmentation", "later"] >= 1


def test_running_runs_queue_and_sweeps_are_counted(
    worker: BulkWorker, port: int, grown: Callable[[], Values], settings: Settings, run_queue: RecordingRunQueue
) -> None:
    spec = accepted(worker)
    under_way: list[Values] = []

    def handle(context: RunContext) -> Finished:
        under_way.append(page(port))
        return DONE

    assert page(port)["twinset_bulk_runs_under_way", "export"] == 0
    execute_run(worker, spec.run, kinds(handle))
    assert under_way[0]["twinset_bulk_runs_under_way", "export"] == 1
    assert under_way[0]["twinset_bulk_runs_under_way", "dataset"] == 0
    assert page(port)["twinset_bulk_runs_under_way", "export"] == 0

    queue = RunQueue(settings)
    for _ in range(3):
        queue.send_run(spec.run)
    queue.close()
    assert page(port)["twinset_bulk_queue_runs",] == 3
    worker.redis.delete(RUN_QUEUE, redis_keys.fair_queue("runs"), redis_keys.waiting(RUN_QUEUE, spec.tenant))
    lost = accepted(worker, RunKind.DATASET)
    sweeper = RunSweeper(worker)
    assert sweeper.run_once()
    assert run_queue.sent == [lost.run]
    worker.runs.delete(lost)
    assert sweeper.run_once()
    said = grown()
    assert said["twinset_bulk_sweeps_total",] == 2
    assert (
        said["twinset_bulk_runs_requeued_total", "dataset"],
        said["twinset_bulk_runs_removed_total", "dataset"],
    ) == (1, 1)
    assert ("twinset_bulk_runs_requeued_total", "export") not in said
    execute_run(worker, accepted(worker).run, kinds(lambda context: RetryLater(1.0)))
    assert grown()["twinset_bulk_deliveries_total", "export", "later"] == 1


def test_the_metrics_page_is_served_without_a_broker(
    worker: BulkWorker, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redis.exceptions import ConnectionError

    def away(name: str) -> int:
        raise ConnectionError("the broker is down")

    monkeypatch.setattr(worker.redis, "llen", away)
    said = page(port)
    assert ("twinset_bulk_queue_runs",) not in said
    assert ("twinset_bulk_sweeps_total",) in said


def test_a_port_in_use_is_named(worker: BulkWorker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot serve metrics on port {port} of 127.0.0.1.*--metrics-port"):
            serve_metrics(BulkCollector(worker), port, "127.0.0.1")


def listening(pid: int) -> list[str]:
    """Local addresses, in the kernel's hexadecimal form, on which a process listens for TCP."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(entry))
        except OSError:
            continue  # closed since
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]


def test_the_command_serves_metrics_only_with_a_port(settings: Settings, store: ObjectStore) -> None:
    environment = {
        **os.environ,
        "TWINSET_DATA_DIR": str(settings.data_dir),
        "TWINSET_BROKER_URL": settings.broker_url,
        "TWINSET_SWEEP_INTERVAL_S": "0.2",
    }
    client, port = TestClient(create_app(settings, store=store)), free_port()
    command = [sys.executable, "-m", "service.cli", "worker", "--bulk"]

    def carried(*options: str) -> subprocess.Popen[bytes]:
        """A worker that has taken a dataset in."""
        process = subprocess.Popen([*command, *options], env=environment, stderr=subprocess.DEVNULL)
        version = send(client, dataset_tar(4))["version"]
        until(lambda: client.get(f"/datasets/scenes/{version}").json()["state"] == "succeeded")
        return process

    started = []
    try:
        started.append(carried("--metrics-port", str(port)))
        # the summary is there before it is counted
        said = until(lambda: (values := page(port))["twinset_bulk_run_seconds_count", "dataset"] and values)
        assert said["twinset_bulk_runs_ended_total", "dataset", "succeeded"] == 1
        assert said["twinset_bulk_dataset_items_total", "kept"] == 4
        assert said["twinset_bulk_queue_runs",] == 0
        assert said["twinset_bulk_sweeps_total",] >= 1
        if sys.platform == "linux":
            assert len(listening(started[0].pid)) == 1
        refused = subprocess.run(
            [*command, "--metrics-port", str(port)], env=environment, capture_output=True, text=True, timeout=60
        )
        assert refused.returncode == 1
        assert f"port {port} of 127.0.0.1" in refused.stderr
        assert "Traceback" not in refused.stderr
        started[0].terminate()
        assert started[0].wait(30) == 0
        started.append(carried())
        if sys.platform == "linux":
            assert listening(started[1].pid) == []
    finally:
        for process in started:
            process.kill()
            process.wait()
