"""Tests of the worker as a process over a real broker: it makes a job's twins, and SIGTERM loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from model_store.card import load_card
from service.broker import redis_keys
from service.broker.lease_token import holder_of
from service.broker.queues import JobQueue
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.states import JobState
from service.settings import Settings
from service.store import keys
from service.store.folder import FolderStore
from tests.stored_twins import manifest_lines
from tests.workers.fakes import tiny_spec


def until(condition: Callable[[], Any], *, timeout_s: float = 180.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return found


@contextmanager
def worker_process(
    settings: Settings, store: FolderStore, log: Path, *arguments: str, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "TWINSET_BROKER_URL": settings.broker_url,
        "TWINSET_STORE_URL": store.root.absolute().as_uri(),
        "TWINSET_DATA_DIR": str(settings.data_dir),
        "TWINSET_CPU_THREADS": "1",
        "TWINSET_DEVICE": "cpu",
        "TWINSET_CHUNKS_IN_FLIGHT": "2",
        "TWINSET_SWEEP_INTERVAL_S": "1",
        **variables,
    }
    command = [sys.executable, "-m", "workers.main", *arguments]
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def submit(store: FolderStore, settings: Settings, model: Path, **changes: Any) -> JobSpec:
    """Registers the model folder and accepts a job for it, as the API does."""
    card = load_card(model)
    for file in card.files:
        store.put(keys.model_file(card.name, card.version, file), (model / file).read_bytes())
    store.put(keys.model_card(card.name, card.version), (model / "card.json").read_bytes())
    spec = tiny_spec(
        card,
        weights_sha256=card.files["model.safetensors"].sha256,
        classes=card.queryable[:1],
        size=card.default_size_px,
        **changes,
    )
    JobRepository(store).write_spec(spec)
    queue = JobQueue(settings)
    for chunk in range(min(2, spec.chunks)):
        queue.send_chunk(spec.job, chunk, spec.priority, spec.tenant)
    queue.close()
    return spec


def test_on_sigterm_a_worker_requeues_its_chunks_and_the_next_ends_the_job(
    settings: Settings, redis: Redis, tiny_model: Path, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "objects", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    spec = submit(store, settings, tiny_model, count=40, chunk_size=8, steps=20, priority="interactive")
    repository, log = JobRepository(store), tmp_path / "worker.log"
    with worker_process(settings, store, log, "--grace-s", "0") as process:
        # one chunk recorded, others in hand
        until(lambda: next(repository.chunks.recorded(spec.job), None) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, log.read_text()
    assert "requeued at shutdown" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert repository.read_summary(spec.job) is None
    assert redis.zcard(redis_keys.leases(spec.job)) == 0
    assert redis.llen("generate-interactive") > 0 == redis.llen("generate")

    with worker_process(settings, store, log):
        summary = until(lambda: repository.read_summary(spec.job))
    assert (summary.state, summary.done) == (JobState.SUCCEEDED, 40)
    lines = [json.loads(line) for line in manifest_lines(store, spec.job)]
    assert [line["index"] for line in lines] == list(range(40))


def held_by(redis: Redis, spec: JobSpec, process: subprocess.Popen[bytes]) -> set[int]:
    """The chunks of the job on which the worker has a lease."""
    tokens = {chunk: redis.get(redis_keys.lease(spec.job, chunk)) for chunk in range(spec.chunks)}
    return {chunk for chunk, token in tokens.items() if token and f"-{process.pid}-" in holder_of(str(token))}


@pytest.mark.parametrize("grace_s", [0, 60])
def test_on_sigterm_no_chunk_is_begun_and_what_is_unfinished_starts_elsewhere_within_two_seconds(
    settings: Settings, redis: Redis, tiny_model: Path, tmp_path: Path, grace_s: int
) -> None:
    store = FolderStore(tmp_path / "objects", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    spec = submit(store, settings, tiny_model, count=48, chunk_size=8, steps=100)
    # sweeps would send again what a worker failed to hand over
    slow = {"TWINSET_BATCH_SHAPE": "2", "TWINSET_SWEEP_INTERVAL_S": "600"}
    log, other_log = tmp_path / "worker.log", tmp_path / "other.log"
    # the first has one thread, so that it leaves chunks to the other, which starts once it is at work
    with (
        worker_process(settings, store, log, f"--grace-s={grace_s}", **slow, TWINSET_WORKER_THREADS="1") as process,
        ExitStack() as stack,
    ):
        until(lambda: held_by(redis, spec, process))
        other = stack.enter_context(worker_process(settings, store, other_log, **slow, TWINSET_WORKER_THREADS="4"))
        until(lambda: held_by(redis, spec, process) and held_by(redis, spec, other))
        process.send_signal(signal.SIGTERM)
        held = held_by(redis, spec, process)
        handed_at: float | None = None
        while process.poll() is None:
            now_held = held_by(redis, spec, process)
            assert now_held <= held, "a chunk was begun after SIGTERM"
            if not now_held and handed_at is None:
                handed_at = time.monotonic()
            if grace_s == 0 and handed_at is not None and held_by(redis, spec, other) & held:
                assert time.monotonic() - handed_at < 2.0
                held = set()
            time.sleep(0.01)
        assert process.returncode == 0, log.read_text()
        if grace_s == 0 and held:
            assert handed_at is not None
            until(lambda: held_by(redis, spec, other) & held, timeout_s=2.0)
        else:
            recorded = [chunk for chunk, _ in JobRepository(store).chunks.recorded(spec.job)]
            assert grace_s == 0 or held <= set(recorded), "what was in hand was finished in the grace time"
        summary = until(lambda: JobRepository(store).read_summary(spec.job))
    assert (summary.state, summary.done) == (JobState.SUCCEEDED, 48)
    assert ("requeued at shutdown" in log.read_text()) == (grace_s == 0)


def test_an_invalid_setting_is_named_with_exit_code_1(settings: Settings, tmp_path: Path) -> None:
    environment = {**os.environ, "TWINSET_BATCH_SHAPE": "-1"}
    ended = subprocess.run(
        [sys.executable, "-m", "workers.main"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "TWINSET_BATCH_SHAPE=-1" in ended.stderr
    assert "Traceback" not in ended.stderr
