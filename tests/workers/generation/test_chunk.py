"""A chunk from delivery to record, and a job from its first chunk to its summary, with a real store and Redis."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from redis import Redis
from torch import Tensor

from model_store.card import load_card
from model_store.interface import Condition, System
from model_store.masks.decode import Twin
from service.broker import redis_keys
from service.jobs.cancel import cancel
from service.jobs.spec import JobSpec
from service.kit.states import JobState
from service.store import keys
from service.store.folder import FolderStore
from tests.stored_twins import manifest_lines
from tests.workers.conftest import Hire, register
from tests.workers.fakes import FailingStore, Post, TinySystem, tiny_spec
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.tasks import run_generate
from workers.generation.worker import Worker
from workers.runtime.leases import Leases


def accept(worker: Worker, post: Post, **changes: Any) -> JobSpec:
    """What the API does with a request: the spec into the store, the first chunks to the queue."""
    spec = tiny_spec(**changes)
    worker.repository.write_spec(spec)
    for chunk in range(min(worker.settings.chunks_in_flight, spec.chunks)):
        post.send_chunk(spec.job, chunk)
    return spec


def work(worker: Worker, post: Post) -> list[int]:
    return list(post.deliver_all(lambda job, chunk: run_generate(worker, job, chunk)))


def files_of(store: FolderStore, spec: JobSpec) -> dict[str, bytes]:
    """The job's images and masks, named as in an archive, whether they are objects or in shards."""
    prefix = f"jobs/{spec.job}/"
    files = {
        re.sub(r"\.[0-9a-f]{16}\.png$", ".png", info.key.removeprefix(prefix)): store.get(info.key)
        for part in ("images/", "masks/")
        for info in store.list(prefix + part)
    }
    for info in store.list(keys.job_shards_prefix(spec.job)):
        with tarfile.open(fileobj=io.BytesIO(store.get(info.key))) as shard:
            for member in shard:
                index, _, kind = member.name.partition(".")
                folder = {"png": "images", "mask.png": "masks"}.get(kind)
                if folder:
                    files[f"{folder}/{index}.png"] = shard.extractfile(member).read()  # type: ignore[union-attr]
    return files


def test_a_job_goes_from_its_first_chunks_to_manifest_and_summary(
    worker: Worker, post: Post, store: FolderStore
) -> None:
    spec = accept(worker, post, count=9, chunk_size=2)
    queued = work(worker, post)
    assert post.sent == [(spec.job, chunk) for chunk in range(5)], "finishing a chunk sends the next one, each once"
    assert max(queued) <= worker.settings.chunks_in_flight

    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done, summary.failed, summary.total) == (JobState.SUCCEEDED, 9, 0, 9)
    assert summary.reason is None

    lines = [json.loads(line) for line in manifest_lines(store, spec.job)]
    assert [line["index"] for line in lines] == list(range(9))
    for line in lines:
        image, mask = store.get(line["image"]["key"]), store.get(line["mask"]["key"])
        assert hashlib.sha256(image).hexdigest() == line["image"]["sha256"]
        assert hashlib.sha256(mask).hexdigest() == line["mask"]["sha256"]
        assert line["batch_shape"] == [8, 6, 8, 8]
        assert line["dtype"] == "float32"
        with Image.open(io.BytesIO(mask)) as decoded:
            indices = np.asarray(decoded)
        for found in line["classes_found"]:
            assert found["share"] == pytest.approx(float((indices == found["index"]).mean()), abs=1e-6)
            assert found["share"] >= 0.005
        assert line["confident_share"] == pytest.approx(float((indices != 255).mean()), abs=1e-6)


def test_the_same_request_and_seed_give_the_same_bytes_in_another_job_with_other_chunks(
    worker: Worker, post: Post, store: FolderStore
) -> None:
    first = accept(worker, post, count=6, chunk_size=2, eta=1.0)
    second = accept(worker, post, count=6, chunk_size=5, eta=1.0)
    other_seed = accept(worker, post, count=6, chunk_size=5, eta=1.0, seed=12)
    work(worker, post)
    assert len(files_of(store, first)) == 12
    assert files_of(store, first) == files_of(store, second)
    assert files_of(store, first).keys() == files_of(store, other_seed).keys()
    assert files_of(store, first) != files_of(store, other_seed)


def test_a_chunk_delivered_again_costs_no_work(worker: Worker, post: Post) -> None:
    spec = accept(worker, post, count=4, chunk_size=2)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    forwards, _ = worker.engine.counts
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.NOTHING_TO_DO
    assert generate_chunk(worker, spec.job, 7) is ChunkOutcome.NOTHING_TO_DO
    assert generate_chunk(worker, "j" + "0" * 18, 0) is ChunkOutcome.NOTHING_TO_DO
    assert worker.engine.counts[0] == forwards


@pytest.mark.parametrize(
    "message", [(5, 0), ("../../etc", 0), ("j" + "0" * 18, "0"), ("j" + "0" * 18, True), (None, None)]
)
def test_a_message_that_names_no_chunk_is_dropped(worker: Worker, message: tuple[object, object]) -> None:
    assert run_generate(worker, *message) == ChunkOutcome.NOTHING_TO_DO.value


@pytest.mark.parametrize("fail_on", ["images/00000001", "masks/00000000", "chunks/", "summary", "manifest"])
@pytest.mark.parametrize("after_success", [False, True])
def test_a_write_that_fails_anywhere_leaves_no_partial_state_and_a_repeat_gives_the_same_bytes(
    hire: Hire, post: Post, tmp_path: Path, fail_on: str, after_success: bool
) -> None:
    store = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(store)
    worker = hire(store=store)
    undisturbed = accept(worker, post, count=2, chunk_size=2)
    work(worker, post)

    spec = accept(worker, post, count=2, chunk_size=2)
    store.fail_on, store.after_success = fail_on, after_success
    # an image or a mask that was written after all counts at the next attempt
    healed = after_success and fail_on.startswith(("images", "masks"))
    for attempt in range(worker.settings.max_chunk_attempts + 2):
        outcome = generate_chunk(worker, spec.job, 0)
        if healed and attempt:
            assert outcome is (ChunkOutcome.RECORDED if attempt == 1 else ChunkOutcome.NOTHING_TO_DO)
            continue
        assert outcome in (ChunkOutcome.RETRY, ChunkOutcome.NOTHING_TO_DO)
        if fail_on.startswith(("images", "masks")):
            assert worker.repository.chunks.read(spec.job, 0) is None
    store.fail_on = None
    generate_chunk(worker, spec.job, 0)
    record, summary = worker.repository.chunks.read(spec.job, 0), worker.repository.read_summary(spec.job)
    assert record is not None
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED, "the store's failures are not counted as attempts at the chunk"
    assert files_of(store, spec) == files_of(store, undisturbed)
    assert [item.image_sha256 for item in record.items] == [
        hashlib.sha256(data).hexdigest() for key, data in files_of(store, spec).items() if key.startswith("images")
    ]


def test_a_sample_that_fails_has_its_reason_and_the_job_ends_partial(
    hire: Hire, post: Post, store: FolderStore
) -> None:
    class BreaksOnce(TinySystem):
        calls = 0

        def decode(self, x0: Tensor, size_px: int) -> list[Twin]:
            BreaksOnce.calls += 1
            if BreaksOnce.calls == 2:
                raise ValueError("no twin can be seen in this")
            return super().decode(x0, size_px)

    worker = hire(load=lambda folder: BreaksOnce(load_card(folder)))
    spec = accept(worker, post, count=4, chunk_size=4)
    work(worker, post)
    summary, record = worker.repository.read_summary(spec.job), worker.repository.chunks.read(spec.job, 0)
    assert summary is not None
    assert record is not None
    assert (summary.state, summary.done, summary.failed) == (JobState.PARTIAL, 3, 1)
    assert "no twin can be seen in this" in (summary.reason or "")
    [error] = [item.error for item in record.items if item.error]
    assert error == "decode failed: ValueError: no twin can be seen in this"
    assert len(manifest_lines(store, spec.job)) == 3


def test_a_job_whose_condition_is_not_finite_fails_beside_one_that_succeeds(
    hire: Hire, post: Post, store: FolderStore
) -> None:
    worker = hire()
    alone = accept(worker, post, count=3, chunk_size=3, steps=40)
    work(worker, post)
    sound = accept(worker, post, count=3, chunk_size=3, steps=40)
    broken = accept(worker, post, count=3, chunk_size=3, steps=40, prompt="nan", classes=None)
    threads = [threading.Thread(target=generate_chunk, args=(worker, spec.job, 0)) for spec in (sound, broken)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = worker.repository.read_summary(broken.job)
    assert failed is not None
    assert (failed.state, failed.failed) == (JobState.FAILED, 3)
    assert "not finite after step 1 of 40" in (failed.reason or "")
    assert files_of(store, sound) == files_of(store, alone)


def test_a_cancelled_job_ends_with_the_twins_it_has(worker: Worker, post: Post) -> None:
    spec = accept(worker, post, count=6, chunk_size=2)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    cancel(spec, worker.repository, worker.live_state)
    forwards, _ = worker.engine.counts
    assert generate_chunk(worker, spec.job, 1) is ChunkOutcome.CANCELLED
    assert worker.engine.counts[0] == forwards
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done) == (JobState.CANCELLED, 2)
    assert generate_chunk(worker, spec.job, 2) is ChunkOutcome.NOTHING_TO_DO


def test_a_cancel_in_the_middle_of_the_steps_stops_them(hire: Hire, post: Post) -> None:
    at_work = threading.Event()

    class Slow(TinySystem):
        def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            at_work.set()
            return super().forward(x, t, condition)

    worker = hire(load=lambda folder: Slow(load_card(folder)))
    spec = accept(worker, post, count=64, chunk_size=64, steps=1000)
    outcomes: list[ChunkOutcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(generate_chunk(worker, spec.job, 0)))
    thread.start()
    assert at_work.wait(30)
    cancel(spec, worker.repository, worker.live_state)
    thread.join(30)
    assert outcomes == [ChunkOutcome.CANCELLED]
    assert worker.engine.counts[0] < 1000
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done) == (JobState.CANCELLED, 0)


def test_a_worker_that_lost_its_lease_commits_nothing(hire: Hire, post: Post, redis: Redis) -> None:
    specs: list[JobSpec] = []

    class LosesItsLease(TinySystem):
        def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            if len(self.forwards) == 2:
                # the lease expires while this worker is stopped, and another worker claims the chunk
                redis.delete(redis_keys.lease(specs[0].job, 0))
                assert Leases(redis, 30).take(specs[0].job, 0) is not None
            return super().forward(x, t, condition)

    worker = hire(load=lambda folder: LosesItsLease(load_card(folder)))
    specs.append(accept(worker, post, count=2, chunk_size=2))
    assert generate_chunk(worker, specs[0].job, 0) is ChunkOutcome.FENCED
    assert worker.repository.chunks.read(specs[0].job, 0) is None
    assert worker.repository.read_summary(specs[0].job) is None
    assert worker.leases.live(specs[0].job) == {0}, "the other worker's lease stays"
    assert generate_chunk(worker, specs[0].job, 0) is ChunkOutcome.LEASED


def test_the_same_chunk_delivered_five_times_at_once_to_two_workers_is_recorded_once(
    hire: Hire, post: Post, store: FolderStore
) -> None:
    workers = [hire(), hire()]
    spec = accept(workers[0], post, count=4, chunk_size=4, steps=30)
    outcomes: list[ChunkOutcome] = []
    threads = [
        threading.Thread(target=lambda worker=worker: outcomes.append(generate_chunk(worker, spec.job, 0)))
        for worker in (*workers, *workers, workers[0])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes).count(ChunkOutcome.RECORDED) == 1
    assert len(outcomes) == 5
    summary = workers[0].repository.read_summary(spec.job)
    assert summary is not None
    assert summary.done == 4


def test_without_any_redis_a_chunk_is_made_and_the_job_ends_all_the_same(hire: Hire, post: Post) -> None:
    worker = hire(broker_url="redis://127.0.0.1:1/0", chunks_in_flight=1)
    spec = accept(worker, post, count=2, chunk_size=2)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    summary, record = worker.repository.read_summary(spec.job), worker.repository.chunks.read(spec.job, 0)
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED
    assert record is not None
    assert record.epoch == 0


def test_a_chunk_that_keeps_failing_fails_for_good_with_its_reason(hire: Hire, post: Post) -> None:
    def explode(folder: Path) -> System:
        raise MemoryError("the model is larger than this machine")

    worker = hire(load=explode)
    spec = accept(worker, post, count=2, chunk_size=2)
    assert [generate_chunk(worker, spec.job, 0) for _ in range(3)] == [
        ChunkOutcome.RETRY,
        ChunkOutcome.RETRY,
        ChunkOutcome.FAILED,
    ]
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.failed) == (JobState.FAILED, 2)
    assert "failed after 3 attempts" in (summary.reason or "")
    assert "larger than this machine" in (summary.reason or "")


def test_a_chunk_that_kills_its_worker_each_time_fails_for_good_too(worker: Worker, post: Post) -> None:
    spec = accept(worker, post, count=4, chunk_size=2)
    for _ in range(worker.settings.max_chunk_attempts):
        worker.dispatcher.begin_attempt(spec.job, 0)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.FAILED
    assert generate_chunk(worker, spec.job, 1) is ChunkOutcome.RECORDED
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done, summary.failed) == (JobState.PARTIAL, 2, 2)
    assert "its worker died each time" in (summary.reason or "")


def test_a_model_that_is_gone_or_changed_ends_the_job_at_once_and_says_so(worker: Worker, post: Post) -> None:
    gone = accept(worker, post, model="nowhere@1.0.0", count=1)
    changed = accept(worker, post, weights_sha256="0" * 64, count=1)
    for spec, words in ((gone, "neither bundled nor registered"), (changed, "a version never changes its weights")):
        assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.FAILED
        summary = worker.repository.read_summary(spec.job)
        assert summary is not None
        assert summary.state is JobState.FAILED
        assert words in (summary.reason or "")


def test_a_worker_that_shuts_down_requeues_its_chunk(hire: Hire, post: Post) -> None:
    workers: list[Worker] = []

    class Stops(TinySystem):
        def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            workers[0].shutdown.request()
            return super().forward(x, t, condition)

    workers.append(hire(load=lambda folder: Stops(load_card(folder)), grace_s=0.0))
    spec = accept(workers[0], post, count=16, chunk_size=16, steps=1000, priority="interactive")
    post.waiting.clear()
    assert generate_chunk(workers[0], spec.job, 0) is ChunkOutcome.REQUEUED
    assert list(post.waiting) == post.interactive == [(spec.job, 0)]
    assert workers[0].repository.chunks.read(spec.job, 0) is None
    assert workers[0].leases.live(spec.job) == set()
    assert workers[0].dispatcher.begin_attempt(spec.job, 0) == 1, "a shutdown is no failed attempt"


def test_within_the_grace_time_a_worker_finishes_its_chunk(hire: Hire, post: Post) -> None:
    worker = hire(grace_s=60.0)
    spec = accept(worker, post, count=2, chunk_size=2)
    worker.shutdown.request()
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED


def test_progress_moves_with_the_steps_of_a_single_chunk(hire: Hire, post: Post, redis: Redis) -> None:
    seen: list[float] = []
    specs: list[JobSpec] = []

    class Watched(TinySystem):
        def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            value = redis.hget(redis_keys.throughput(specs[0].job), "c0")
            seen.append(float(value or 0.0))
            return super().forward(x, t, condition)

    worker = hire(load=lambda folder: Watched(load_card(folder)))
    specs.append(accept(worker, post, count=4, chunk_size=4, steps=1000))
    assert generate_chunk(worker, specs[0].job, 0) is ChunkOutcome.RECORDED
    assert seen == sorted(seen)
    assert 0.0 < seen[-1] < 4.0


def test_more_samples_than_the_pipeline_has_slots_are_made_without_growth(hire: Hire, post: Post) -> None:
    worker = hire()
    worker.pipeline._held["another tenant"] = 254
    spec = accept(worker, post, count=12, chunk_size=12)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    assert record.failed == 0


def test_the_records_bits_are_the_engines_whatever_torch_runs_on(worker: Worker) -> None:
    model = worker.models.get("tiny@1.0.0")
    assert model.batch_shape == (8, 6, 8, 8)
    assert model.build["torch"] == torch.__version__
    assert model.build["cpu_threads"] == "1"
