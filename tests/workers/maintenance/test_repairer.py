"""Tests of repairs: damaged and missing twins of an ended job are made again, in place, and the records stay true."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from model_store.card import load_card
from service.broker import redis_keys
from service.errors import StoreUnavailable
from service.jobs.chunk_records import ChunkRecords
from service.jobs.garbage import remove_strays
from service.jobs.repairs import Repair
from service.jobs.repository import JobRepository
from service.jobs.sample_files import read_sample_file, sample_files_of
from service.jobs.spec import JobSpec
from service.kit.states import JobState
from service.settings import Settings
from service.store import keys
from service.store.base import ObjectStore
from service.store.folder import FolderStore
from tests.stored_twins import image_key, manifest_key, manifest_lines, mask_key, shard_key
from tests.workers.conftest import Hire, load_tiny, register
from tests.workers.fakes import Post, TinySystem
from tests.workers.generation.test_chunk import accept, work
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.repair import JobRepair
from workers.generation.twin_maker import TwinMaker
from workers.generation.worker import Worker
from workers.maintenance.repairer import Repairer
from workers.tools.verify import Stored, draw, verify

LAYOUTS = ("objects", "shards")


def load_other(folder: Path) -> Any:
    """A loader on a machine of another make: of the same twin it gets other bytes."""
    return TinySystem(load_card(folder), dtype=torch.bfloat16)


def made(worker: Worker, post: Post, **changes: Any) -> JobSpec:
    spec = accept(worker, post, **{"count": 6, "chunk_size": 3, **changes})
    work(worker, post)
    return spec


def contents(store: ObjectStore, job: str) -> dict[str, bytes]:
    """The job's objects, without what repairs themselves write."""
    return {info.key: store.get(info.key) for info in store.list(keys.job_prefix(job)) if "/repairs/" not in info.key}


def repair(worker: Worker, spec: JobSpec, load: Any = load_tiny) -> Repair:
    """Requests a repair, and has it done."""
    worker.repository.repairs.request(spec.job, datetime.now(UTC))
    worker.redis.delete(redis_keys.leader("repairer"))
    assert Repairer(worker, load=load).run_once()
    assert worker.repository.repairs.pending(spec.job) is None
    return worker.repository.repairs.of_job(spec.job)[-1]


def counts(done: Repair) -> tuple[int, ...]:
    return done.checked, done.damaged, done.missing, done.restored, done.replaced, done.failed


def assert_true(store: ObjectStore, spec: JobSpec, intact: int) -> None:
    """Asserts that all records and the manifest name objects with the recorded bytes."""
    repository = JobRepository(store)
    items = [item for _, item in repository.chunks.items(spec) if item.error is None]
    assert len(items) == intact
    for item in items:
        for file in sample_files_of(item):
            assert hashlib.sha256(read_sample_file(store, file)).hexdigest() == file.sha256
    lines = [json.loads(line) for line in manifest_lines(store, spec.job)]
    assert [line["index"] for line in lines] == [item.index for item in items]
    for line, item in zip(lines, items, strict=True):
        assert (line["image"]["key"], line["image"]["sha256"]) == (item.image_key, item.image_sha256)
        assert (line["mask"]["key"], line["mask"]["sha256"]) == (item.mask_key, item.mask_sha256)


def damage(store: ObjectStore, spec: JobSpec) -> None:
    """Damages the image of twin 1, and loses the mask of twin 4; with it all of the second shard in a job of shards."""
    if spec.layout == "shards":
        key, item = shard_key(store, spec.job, 0), next(JobRepository(store).chunks.iterate(spec.job)).items[1]
        data = bytearray(store.get(key))
        data[(item.image_offset or 0) + 30] ^= 1
        store.put(key, bytes(data))
        store.delete(shard_key(store, spec.job, 1))
    else:
        store.put(image_key(store, spec.job, 1), b"not what was recorded")
        store.delete(mask_key(store, spec.job, 4))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_intact_job_is_checked_and_not_changed(worker: Worker, post: Post, store: FolderStore, layout: str) -> None:
    spec = made(worker, post, layout=layout)
    before = contents(store, spec.job)
    assert counts(repair(worker, spec)) == (6, 0, 0, 0, 0, 0)
    assert contents(store, spec.job) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_the_same_kind_of_machine_the_very_objects_come_back(
    worker: Worker, post: Post, store: FolderStore, layout: str
) -> None:
    spec = made(worker, post, layout=layout)
    before = contents(store, spec.job)
    damage(store, spec)
    lost = 1 if layout == "objects" else 3
    assert counts(repair(worker, spec)) == (6, 1, lost, 1 + lost, 0, 0)
    assert contents(store, spec.job) == before, "records and manifest are true as they are"
    assert_true(store, spec, 6)
    assert counts(repair(worker, spec)) == (6, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_another_machine_the_record_says_truthfully_what_was_made_again(
    worker: Worker, post: Post, store: FolderStore, layout: str
) -> None:
    spec = made(worker, post, layout=layout, tenant="acme")
    before = {item.index: item for _, item in worker.repository.chunks.items(spec)}
    old_manifest = manifest_key(store, spec.job)
    damage(store, spec)
    done = repair(worker, spec, load_other)
    remade = [1, 4] if layout == "objects" else [1, 3, 4, 5]
    assert (done.replaced, done.restored, done.failed) == (len(remade), 0, 0)
    assert_true(store, spec, 6)
    for record, item in worker.repository.chunks.items(spec):
        assert record.format == 2
        assert record.dtype == "float32"
        assert record.made_on(item).dtype == ("bfloat16" if item.index in remade else "float32")
        if item.index not in remade:
            assert (item.image_sha256, item.mask_sha256, item.remade) == (
                before[item.index].image_sha256,
                before[item.index].mask_sha256,
                None,
            )
            continue
        assert item.remade is not None
        assert item.image_sha256 != before[item.index].image_sha256
        assert (item.remade.former_image_sha256, item.remade.repair) == (before[item.index].image_sha256, 1)
        assert (item.seed, item.index) == (before[item.index].seed, before[item.index].index)
    lines = {line["index"]: line for line in map(json.loads, manifest_lines(store, spec.job))}
    assert manifest_key(store, spec.job) != old_manifest
    assert [index for index, line in lines.items() if "remade" in line] == remade
    assert {lines[index]["dtype"] for index in remade} == {"bfloat16"}
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done) == (JobState.SUCCEEDED, 6)
    # what no longer counts is swept, and what counts stays
    assert remove_strays(worker.repository, spec, summary, datetime.now(UTC) + timedelta(days=1), max_objects=100) > 0
    assert_true(store, spec, 6)
    prefixes = (*keys.job_sample_prefixes(spec.job), keys.job_manifests_prefix(spec.job))
    stored = sum(info.size for prefix in prefixes for info in store.list(prefix))
    assert worker.repository.usage.stored_bytes("acme") == {spec.job: stored}


def test_a_remade_twin_is_verified_under_the_conditions_of_its_repair(
    worker: Worker, post: Post, store: FolderStore, settings: Settings
) -> None:
    spec = made(worker, post)
    damage(store, spec)
    repair(worker, spec, load_other)

    def load(folder: Path) -> Any:
        # what the settings ask for, as load_system does
        return TinySystem(load_card(folder), dtype=torch.bfloat16)

    drawn = draw(worker.repository, spec, 6, 0)
    findings = list(verify(drawn, store, settings, load=load))
    assert [finding.index for finding in findings if not finding.differs] == [1, 4]
    assert all(file.stored is Stored.AS_RECORDED for finding in findings for file in finding.files)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_chunk_whose_record_is_lost_is_made_again(
    worker: Worker, post: Post, store: FolderStore, layout: str, how: str
) -> None:
    spec = made(worker, post, layout=layout)
    before = contents(store, spec.job)
    key = keys.job_chunk(spec.job, 0)
    if how == "missing":
        store.delete(key)
    else:
        store.put(key, b"{not a record")
    done = repair(worker, spec)
    assert (done.lost_records, done.failed) == (1, 0)
    assert_true(store, spec, 6)
    after = contents(store, spec.job)
    assert all(after[key] == data for key, data in before.items() if "/images/" in key or "/shards/" in key)


def test_a_chunk_that_was_never_made_is_left_to_a_retry(worker: Worker, post: Post, store: FolderStore) -> None:
    spec = accept(worker, post, count=6, chunk_size=3)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    worker.repository.request_cancel(spec.job)
    worker.repository.conclude(spec)
    assert counts(repair(worker, spec)) == (3, 0, 0, 0, 0, 0)
    assert_true(store, spec, 3)


def test_a_twin_that_cannot_be_made_again_is_named_and_its_record_stays(
    worker: Worker, post: Post, store: FolderStore
) -> None:
    spec = made(worker, post)
    damage(store, spec)
    store.delete(keys.model_card(*spec.model.split("@")))
    before = contents(store, spec.job)
    done = repair(worker, spec)
    assert counts(done) == (6, 1, 1, 0, 0, 2)
    assert [failure.index for failure in done.failures] == [1, 4]
    assert spec.model.partition("@")[0] in done.failures[0].reason
    assert contents(store, spec.job) == before


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("load", [load_tiny, load_other], ids=["same make", "other make"])
def test_interrupted_after_any_write_it_is_finished_by_the_next(
    hire: Hire, post: Post, tmp_path: Path, layout: str, load: Any
) -> None:
    for writes in range(30):
        store = StopsAfter(tmp_path / f"{writes}", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
        register(store)
        worker = hire(store=store)
        spec = made(worker, post, layout=layout)
        damage(store, spec)
        worker.repository.repairs.request(spec.job, datetime.now(UTC))
        store.left = writes
        worker.redis.delete(redis_keys.leader("repairer"))
        Repairer(worker, load=load).run_once()
        interrupted = worker.repository.repairs.pending(spec.job) is not None
        store.left = 10**6
        worker.redis.delete(redis_keys.leader("repairer"))
        Repairer(worker, load=load).run_once()
        assert worker.repository.repairs.pending(spec.job) is None
        assert_true(store, spec, 6)
        assert len(worker.repository.repairs.of_job(spec.job)) == 1
        if not interrupted:
            break
    assert 3 <= writes < 29


def test_two_workers_of_two_makes_at_once_leave_one_truth(worker: Worker, post: Post, store: FolderStore) -> None:
    """One was stopped before it wrote its record; the other repairs the job; then the first wakes and goes on."""
    spec = made(worker, post)
    damage(store, spec)
    request = worker.repository.repairs.request(spec.job, datetime.now(UTC))
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None

    def of(load: Any, name: str) -> JobRepair:
        maker = TwinMaker(spec, store, worker.settings, load)
        return JobRepair(worker.repository, spec, summary, request, maker, name)

    late, other = of(load_other, "late"), of(load_other, "other")
    late.repository = Sleeping(store, lambda: [list(other.steps()), other.conclude()])
    list(late.steps())
    late.conclude()
    for each in (late, other):
        each.maker.close()
    assert_true(store, spec, 6)
    workers = {item.remade.worker for _, item in worker.repository.chunks.items(spec) if item.remade is not None}
    assert workers == {"other"}


def test_the_repair_of_a_deleted_job_is_dropped(worker: Worker, post: Post, store: FolderStore) -> None:
    spec = made(worker, post)
    worker.repository.repairs.request(spec.job, datetime.now(UTC))
    worker.repository.deletions.enqueue(spec, "asked for")
    assert Repairer(worker, load=load_tiny).run_once()
    assert list(worker.repository.repairs.all_pending()) == []


def test_tenants_take_turns_and_none_waits_for_anothers_many_repairs(
    worker: Worker, post: Post, store: FolderStore
) -> None:
    flood = [made(worker, post, count=6, chunk_size=1, tenant="many") for _ in range(6)]
    alone = made(worker, post, count=6, chunk_size=1, tenant="one")
    for spec in (*flood, alone):
        damage(store, spec)
        worker.repository.repairs.request(spec.job, datetime.now(UTC))
    repairer = Repairer(worker, load=load_tiny, turn_s=0.0)
    turns = 0
    while worker.repository.repairs.pending(alone.job) is not None:
        assert repairer.run_once()
        turns += 1
    assert turns <= 7
    done = [spec.job for spec in flood if worker.repository.repairs.pending(spec.job) is None]
    assert done in ([], [flood[0].job]), "the oldest first"
    repairer.turn_s = 60.0
    for _ in flood:
        repairer.run_once()
    assert list(worker.repository.repairs.all_pending()) == []
    for spec in (*flood, alone):
        assert_true(store, spec, 6)


def test_long_repairs_take_turns(worker: Worker, post: Post, store: FolderStore) -> None:
    jobs = [made(worker, post, count=12, chunk_size=1, tenant=tenant) for tenant in ("acme", "other")]
    for spec in jobs:
        damage(store, spec)
        worker.repository.repairs.request(spec.job, datetime.now(UTC))
    repairer = Repairer(worker, load=load_tiny, turn_s=0.0)
    turns = 0
    while list(worker.repository.repairs.all_pending()):
        assert repairer.run_once()
        turns += 1
    assert turns > 5
    for spec in jobs:
        assert_true(store, spec, 12)
    repairer.stop()


class StopsAfter(FolderStore):
    """A folder store that is unavailable after ``left`` writes."""

    left = 10**6

    def put(self, key: str, data: bytes, **options: Any) -> Any:
        self._count()
        return super().put(key, data, **options)

    def _count(self) -> None:
        if self.left <= 0:
            raise StoreUnavailable("the worker is killed here, the test says")
        self.left -= 1


class Sleeping(JobRepository):
    """A repository whose user is stopped before it writes the first repaired record, while ``meanwhile`` happens."""

    def __init__(self, store: ObjectStore, meanwhile: Any) -> None:
        super().__init__(store)
        object.__setattr__(self, "meanwhile", [meanwhile])

    @property
    def chunks(self) -> ChunkRecords:
        sleeping, records = self, super().chunks

        class Records(ChunkRecords):
            def replace(self, record: Any, replaces: str | None) -> bool:
                while sleeping.meanwhile:  # type: ignore[attr-defined]
                    sleeping.meanwhile.pop()()  # type: ignore[attr-defined]
                return records.replace(record, replaces)

        return Records(self.store)
