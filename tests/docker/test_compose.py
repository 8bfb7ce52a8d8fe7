"""The composition: it comes up, makes the twins asked for, and loses and doubles none when its parts are killed."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.client import Job, Twinset
from service.jobs.repository import JobRepository
from service.store.base import ObjectStore
from tests.docker.engine import BIN, Composition, files_below, run
from tests.faults.checker import Reference, check_job, reference_of
from tests.waiting import until

pytestmark = pytest.mark.slow
COUNT = 48
REQUEST: dict[str, Any] = {
    "model": "pathdiff-nuclei",
    "prompt": "An H&E stained histology image with many nuclei.",
    "count": COUNT,
    "steps": 20,
    "seed": 11,
}
MAX_DRAIN_S = 12.0
"""8 s of grace, and what docker takes."""


@pytest.fixture(scope="module")
def reference(client: Twinset, store: ObjectStore) -> Reference:
    """The hashes of an undisturbed job."""
    since = time.monotonic()
    made = client.generate(**REQUEST).wait()
    print(f"undisturbed: {time.monotonic() - since:.1f} s")
    return reference_of(store, JobRepository(store).read_spec(made.id))


@pytest.fixture
def job(client: Twinset, reference: Reference) -> Iterator[Job]:
    """A job of the same request, of which some chunks are done and some are not."""
    job = client.generate(**REQUEST)
    until(lambda: job.refresh().info.done > 0)
    assert job.info.done < COUNT
    yield job
    if not job.refresh().info.state.ended:
        job.cancel()


def check(job: Job, store: ObjectStore, reference: Reference) -> float:
    """Asserts that the job has every twin once, with the bytes of an undisturbed run; returns the time of its end."""
    until(lambda: job.refresh().info.state.ended, timeout_s=180)
    ended = time.monotonic()
    findings = check_job(store, JobRepository(store).read_spec(job.id), reference)
    assert findings.clean, findings
    return ended


def test_all_services_are_healthy_and_without_restarts(running: Composition) -> None:
    for service in ("valkey", "store", "api", "worker", "bulk"):
        found = running.inspect(service)
        assert (found["State"]["Health"]["Status"], found["RestartCount"]) == ("healthy", 0), service
    for service in ("api", "worker", "bulk"):
        assert running.inspect(service)["HostConfig"]["ReadonlyRootfs"]
        secrets = [entry for entry in running.inspect(service)["Config"]["Env"] if "SECRET" in entry]
        assert secrets == ["TWINSET_SECRETS_DIR=/run/secrets"]


def test_the_command_line_gets_twins_whose_hashes_are_those_of_the_manifest(
    running: Composition, tmp_path: Path
) -> None:
    command = [
        str(BIN / "twinset"),
        "generate",
        "--url",
        running.environment["TWINSET_PUBLIC_URL"],
        "--model",
        "cosimgen-dubai",
    ]
    run(*command, "--classes", "water", "--count", "4", "--steps", "4", "--seed", "3", "--out", str(tmp_path / "twins"))
    files = files_below(tmp_path / "twins")
    lines = [json.loads(line) for line in files["manifest.jsonl"].splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        for kind in ("image", "mask"):
            data = files[f"{kind}s/{line['index']:08d}.png"]
            assert hashlib.sha256(data).hexdigest() == line[kind]["sha256"]


def test_a_worker_killed_in_the_middle_of_a_job_costs_no_twin(
    running: Composition, job: Job, store: ObjectStore, reference: Reference
) -> None:
    killed = running.kill("worker")
    running.start("worker")
    recovered = check(job, store, reference)
    print(f"from SIGKILL to the job's last twin: {recovered - killed:.1f} s")


def test_a_worker_stopped_in_the_middle_of_a_job_ends_in_time_and_its_chunks_go_on(
    running: Composition, job: Job, store: ObjectStore, reference: Reference
) -> None:
    exit_code, drain_s = running.stop("worker")
    print(f"from SIGTERM to the end: {drain_s:.1f} s")
    assert exit_code == 0
    assert drain_s < MAX_DRAIN_S
    assert not job.refresh().info.state.ended
    running.start("worker")
    check(job, store, reference)


@pytest.fixture
def two_workers(running: Composition) -> Iterator[tuple[str, str]]:
    """The host names of two workers, the first of which may end; afterwards there is one again."""
    running("up", "-d", "--no-deps", "--no-build", "--no-recreate", "--wait", "--scale", "worker=2", "worker")
    first, second = (running.inspect("worker", number)["Config"]["Hostname"] for number in (1, 2))
    yield first, second
    running.start("worker")


@pytest.mark.parametrize("command", ["stop", "kill"])
def test_another_worker_goes_on_with_what_one_held(
    running: Composition,
    two_workers: tuple[str, str],
    job: Job,
    store: ObjectStore,
    reference: Reference,
    command: str,
) -> None:
    gone, left = two_workers
    ended_by, since = datetime.now(UTC), time.monotonic()
    run("docker", command, running.container("worker", 1))
    print(f"docker {command}: {time.monotonic() - since:.1f} s")
    if command == "stop":
        assert running.inspect("worker", 1)["State"]["ExitCode"] == 0
        ended_by += timedelta(seconds=MAX_DRAIN_S)
    print(f"from docker {command} to the job's last twin: {check(job, store, reference) - since:.1f} s")
    records = list(JobRepository(store).chunks.iterate(job.id))
    assert all(gone in record.worker or left in record.worker for record in records)
    late = [record for record in records if record.finished_at > ended_by]
    assert late
    assert all(left in record.worker for record in late)


def test_a_broker_that_is_killed_and_comes_back_empty_costs_no_twin(
    running: Composition, job: Job, store: ObjectStore, reference: Reference
) -> None:
    running.kill("valkey")
    running("rm", "--force", "valkey")
    run("docker", "volume", "rm", f"{running.project}_valkey")
    running.start("valkey")
    check(job, store, reference)


def test_a_store_that_is_restarted_costs_no_twin(
    running: Composition, job: Job, store: ObjectStore, reference: Reference
) -> None:
    running("restart", "store")
    check(job, store, reference)


def test_all_stopped_together_end_in_time_and_the_job_goes_on(
    running: Composition, job: Job, store: ObjectStore, reference: Reference
) -> None:
    since = time.monotonic()
    running("stop")
    assert time.monotonic() - since < 2 * MAX_DRAIN_S
    assert {service: running.inspect(service)["State"]["ExitCode"] for service in ("api", "worker", "bulk")} == {
        "api": 0,
        "worker": 0,
        "bulk": 0,
    }
    running("up", "-d", "--no-build", "--wait")
    check(job, store, reference)


def test_the_bulk_worker_exports_and_imports(running: Composition, client: Twinset, tmp_path: Path) -> None:
    made = client.generate(model="cosimgen-dubai", classes=["water"], count=4, steps=2, seed=3).wait()
    url = running.environment["TWINSET_PUBLIC_URL"]
    for format in ("huggingface", "coco"):
        run(str(BIN / "twinset"), "export", made.id, "--url", url, "--format", format, "--out", str(tmp_path / format))
    run(str(BIN / "twinset"), "datasets", "push", "from-docker", str(tmp_path / "huggingface"), "--url", url)
    assert client.dataset("from-docker").info.items == 4


def test_prometheus_reads_every_process_and_all_rules(running: Composition) -> None:
    running("--profile", "observability", "up", "-d", "--no-build", "--no-deps", "prometheus")
    url = f"http://{running.environment['PROMETHEUS_LISTEN']}/api/v1"

    def healths() -> dict[str, str]:
        targets = read_json(f"{url}/targets")["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in targets}

    expected = {"twinset-api": "up", "twinset-worker": "up", "twinset-bulk": "up"}
    until(lambda: healths() == expected, timeout_s=60)
    groups = read_json(f"{url}/rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}


def read_json(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
    except (urllib.error.URLError, ConnectionError):
        return {"activeTargets": []}


def test_a_worker_that_stands_still_becomes_unhealthy(running: Composition) -> None:
    def is_health(expected: str) -> bool:
        return bool(running.inspect("bulk")["State"]["Health"]["Status"] == expected)

    running("exec", "-T", "bulk", "sh", "-c", "kill -STOP -1")
    until(lambda: is_health("unhealthy"), timeout_s=90)
    running("exec", "-T", "bulk", "sh", "-c", "kill -CONT -1")
    until(lambda: is_health("healthy"), timeout_s=30)
