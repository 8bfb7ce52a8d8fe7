"""Jobs whose chunks are stored as shards: the same twins in fewer writes, and no attempt damages another's."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from torch import Tensor

from model_store.card import load_card
from model_store.interface import Condition
from model_store.masks.decode import Twin
from service.broker import redis_keys
from service.jobs.sample_files import read_sample_file, sample_files_of
from service.jobs.spec import JobSpec
from service.kit.states import JobState
from service.store import keys
from service.store.base import ObjectInfo
from service.store.folder import FolderStore
from tests.stored_twins import manifest_lines, shard_key
from tests.workers.conftest import Hire, register
from tests.workers.fakes import FailingStore, Post, TinySystem
from tests.workers.generation.test_chunk import accept, files_of, work
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.worker import Worker
from workers.runtime.leases import Leases

SHARDS = {"layout": "shards"}


class NotingStore(FolderStore):
    """A store that records the keys written below jobs/, without the job."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
        self.written: list[str] = []

    def put(self, key: str, data: bytes, **options: Any) -> ObjectInfo:
        self.written += key.split("/", 2)[2:] if key.startswith("jobs/") else []
        return super().put(key, data, **options)


def assert_all_readable(worker: Worker, spec: JobSpec) -> None:
    """Checks that every recorded file is where its record says."""
    for _, item in worker.repository.chunks.items(spec):
        for file in sample_files_of(item):
            assert hashlib.sha256(read_sample_file(worker.repository.store, file)).hexdigest() == file.sha256


def test_both_layouts_give_the_same_files_and_shards_take_one_write_a_chunk(
    hire: Hire, post: Post, tmp_path: Path
) -> None:
    store = NotingStore(tmp_path / "noting")
    register(store)
    worker = hire(store=store)
    apart = accept(worker, post, count=7, chunk_size=3, eta=1.0)
    work(worker, post)
    store.written.clear()
    together = accept(worker, post, count=7, chunk_size=3, eta=1.0, **SHARDS)
    work(worker, post)
    assert len(files_of(store, together)) == 14
    assert files_of(store, together) == files_of(store, apart)
    written = [key for key in store.written if key.startswith(("images", "masks", "shards", "chunks"))]
    assert [key.partition(".")[0] for key in written] == [
        f"{kind}s/{chunk:06d}" for chunk in range(3) for kind in ("shard", "chunk")
    ]

    records = list(worker.repository.chunks.iterate(together.job))
    for record in records:
        data = store.get(shard_key(store, together.job, record.chunk))
        assert record.shard is not None
        assert record.shard.sha256 == hashlib.sha256(data).hexdigest()
        assert record.bytes == record.shard.bytes == len(data)
    hashes = [
        [(item.image_sha256, item.mask_sha256, item.classes) for _, item in worker.repository.chunks.items(spec)]
        for spec in (apart, together)
    ]
    assert hashes[0] == hashes[1]
    assert_all_readable(worker, together)

    lines = [json.loads(line) for line in manifest_lines(store, together.job)]
    assert [line["index"] for line in lines] == list(range(7))
    for line in lines:
        for kind in ("image", "mask"):
            entry = line[kind]
            part = store.get(entry["key"])[entry["offset"] : entry["offset"] + entry["bytes"]]
            assert hashlib.sha256(part).hexdigest() == entry["sha256"]
    loose = [json.loads(line) for line in manifest_lines(store, apart.job)]
    assert {line[kind]["offset"] for line in loose for kind in ("image", "mask")} == {None}
    place = {"key", "offset", "sha256", "bytes"}
    assert loose[0]["image"].keys() == lines[0]["image"].keys() == place


def test_shards_are_the_same_bytes_in_another_job_and_from_another_worker(
    hire: Hire, post: Post, store: FolderStore
) -> None:
    shards = []
    for _ in range(2):
        worker = hire()
        spec = accept(worker, post, count=5, chunk_size=3, **SHARDS)
        work(worker, post)
        shards.append([store.get(shard_key(store, spec.job, chunk)) for chunk in range(2)])
    assert shards[0] == shards[1]


def test_a_shard_that_cannot_be_stored_is_retried_until_it_is(hire: Hire, post: Post, tmp_path: Path) -> None:
    store = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(store)
    worker = hire(store=store)
    spec = accept(worker, post, count=2, chunk_size=2, **SHARDS)
    store.fail_on = "shards/"
    for _ in range(worker.settings.max_chunk_attempts + 2):
        assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RETRY
        assert worker.repository.chunks.read(spec.job, 0) is None
    store.fail_on = None
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED
    assert_all_readable(worker, spec)


@pytest.mark.parametrize(("fail_on", "after_success"), [("shards/", True), ("chunks/", False), ("chunks/", True)])
def test_after_a_crash_between_shard_and_record_the_chunk_is_made_again_with_the_same_bytes(
    hire: Hire, post: Post, tmp_path: Path, fail_on: str, after_success: bool
) -> None:
    store = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(store)
    worker = hire(store=store)
    spec = accept(worker, post, count=2, chunk_size=2, **SHARDS)
    store.fail_on, store.after_success = fail_on, after_success
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RETRY
    store.fail_on = None
    [key] = [info.key for info in store.list(keys.job_shards_prefix(spec.job))]
    before, data = store.head(key), store.get(key)
    assert (worker.repository.chunks.read(spec.job, 0) is not None) == (fail_on == "chunks/" and after_success)
    again = hire(store=store)
    assert generate_chunk(again, spec.job, 0) in (ChunkOutcome.RECORDED, ChunkOutcome.NOTHING_TO_DO)
    assert store.head(key) == before
    assert store.get(key) == data
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done) == (JobState.SUCCEEDED, 2)
    assert [info.key for info in store.list(keys.job_shards_prefix(spec.job))] == [key]
    assert_all_readable(worker, spec)


class Breaks(TinySystem):
    """A system that loses the twins decoded at the calls ``at``."""

    at: tuple[int, ...] = ()
    calls = 0

    def decode(self, x0: Tensor, size_px: int) -> list[Twin]:
        self.calls += 1
        if self.calls in self.at:
            raise ValueError("no twin can be seen in this")
        return super().decode(x0, size_px)


def breaking(*at: int) -> Any:
    """A loader of such a system."""

    def load(folder: Path) -> Breaks:
        system = Breaks(load_card(folder))
        system.at = at
        return system

    return load


def test_failed_samples_are_not_in_the_shard(hire: Hire, post: Post, store: FolderStore) -> None:
    worker = hire(load=breaking(2, 5, 6))
    spec = accept(worker, post, count=6, chunk_size=4, **SHARDS)
    work(worker, post)
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done, summary.failed) == (JobState.PARTIAL, 3, 3)
    first, second = worker.repository.chunks.iterate(spec.job)
    assert first.shard is not None
    assert second.shard is None
    assert second.bytes == 0
    made = [item.index for item in first.items if item.error is None]
    with tarfile.open(fileobj=io.BytesIO(store.get(first.shard.key))) as shard:
        assert [name for name in shard.getnames() if name.endswith(".json")] == [f"{index:08d}.json" for index in made]
    assert [info.key for info in store.list(keys.job_shards_prefix(spec.job))] == [first.shard.key]
    assert len(manifest_lines(store, spec.job)) == 3
    assert_all_readable(worker, spec)


def test_an_attempt_that_lost_a_sample_and_died_does_not_damage_the_next_one(
    hire: Hire, post: Post, tmp_path: Path
) -> None:
    store = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(store)
    worker = hire(store=store, load=breaking(1))
    spec = accept(worker, post, count=3, chunk_size=3, **SHARDS)
    store.fail_on = "chunks/"
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RETRY
    store.fail_on = None
    [short] = list(store.list(keys.job_shards_prefix(spec.job)))
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    record, summary = worker.repository.chunks.read(spec.job, 0), worker.repository.read_summary(spec.job)
    assert record is not None
    assert record.shard is not None
    assert summary is not None
    assert (summary.state, summary.done) == (JobState.SUCCEEDED, 3)
    assert record.shard.key == keys.job_shard(spec.job, 0, record.shard.sha256)
    assert {info.key for info in store.list(keys.job_shards_prefix(spec.job))} == {short.key, record.shard.key}
    assert record.shard.bytes > short.size
    assert_all_readable(worker, spec)


def test_a_worker_that_lost_its_lease_commits_no_shard(
    hire: Hire, post: Post, redis: Redis, store: FolderStore
) -> None:
    specs: list[JobSpec] = []

    class Robbed(TinySystem):
        def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            if len(self.forwards) == 2:
                redis.delete(redis_keys.lease(specs[0].job, 0))
                assert Leases(redis, 30).take(specs[0].job, 0) is not None
            return super().forward(x, t, condition)

    worker = hire(load=lambda folder: Robbed(load_card(folder)))
    specs.append(accept(worker, post, count=2, chunk_size=2, **SHARDS))
    assert generate_chunk(worker, specs[0].job, 0) is ChunkOutcome.FENCED
    assert worker.repository.chunks.read(specs[0].job, 0) is None
    assert worker.repository.read_summary(specs[0].job) is None
