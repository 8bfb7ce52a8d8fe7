"""Jobs under random interleavings of events, compared with a model of what the store must contain.

Two workers make chunks, one crashes at a write, Redis is flushed, cancels race with completion; after every step two
API processes look. No state goes back, no sequence number falls, a summary stays to the byte, and exactly one of the
workers that try ends a job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from service.broker.live_state import LiveState
from service.errors import JobStateConflict, StoreError
from service.jobs.cancel import cancel
from service.jobs.progress import Progress, ProgressReader
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.states import JobState, may_follow
from service.store import keys
from service.store.folder import FolderStore
from tests.workers.conftest import Hire, register
from tests.workers.fakes import FailingStore, Post, tiny_spec
from workers.generation.chunk import generate_chunk
from workers.generation.sweeper import Sweeper
from workers.generation.worker import Worker

CHUNKS = 4
PLACES = ("started.json", "images/", "masks/", "chunks/", "manifest", "summary")
"""The writes at which a worker may crash."""


@dataclass
class Seen:
    """What one observer has seen of a job so far."""

    state: JobState = JobState.QUEUED
    sequence: int = 0


@dataclass
class Model:
    """What must be true of a job after the events so far."""

    spec: JobSpec
    cancel_asked: bool = False
    all_recorded_before_cancel: bool = False
    end: bytes | None = None
    seen: dict[str, Seen] = field(default_factory=dict)


@dataclass
class Setting:
    """The real parts: two workers whose store crashes on demand, and the store itself."""

    workers: list[Worker]
    stores: list[FailingStore]
    repository: JobRepository
    live_state: LiveState
    redis: Redis


class Jobs(RuleBasedStateMachine):
    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        setting.redis.flushall()
        self.models: list[Model] = []
        self.readers = {"one API": self._new_reader()}
        self.sweeper = Sweeper(setting.workers[0])

    def _new_reader(self) -> ProgressReader:
        return ProgressReader(self.setting.repository, self.setting.live_state)

    def _recorded(self, model: Model) -> set[int]:
        return {chunk for chunk, _ in self.setting.repository.chunks.recorded(model.spec.job)}

    @initialize(count=st.integers(1, 2 * CHUNKS))
    def accept_the_first(self, count: int) -> None:
        self.accept(count)

    @precondition(lambda self: len(self.models) < 3)
    @rule(count=st.integers(1, 2 * CHUNKS))
    def accept_another(self, count: int) -> None:
        self.accept(count)

    def accept(self, count: int) -> None:
        spec = tiny_spec(count=count, chunk_size=2, steps=1)
        assert self.setting.repository.write_spec(spec)
        self.models.append(Model(spec))

    @rule(job=st.integers(0, 2), chunk=st.integers(0, CHUNKS - 1), worker=st.integers(0, 1))
    def make_chunk(self, job: int, chunk: int, worker: int) -> None:
        generate_chunk(self.setting.workers[worker], self._model(job).spec.job, chunk)

    @rule(job=st.integers(0, 2), chunk=st.integers(0, CHUNKS - 1), place=st.sampled_from(PLACES), written=st.booleans())
    def crash_at_a_write(self, job: int, chunk: int, place: str, written: bool) -> None:
        """Crashes before the write or right after it; the worker's state in Redis is lost too."""
        store = self.setting.stores[1]
        store.fail_on, store.after_success = place, written
        try:
            generate_chunk(self.setting.workers[1], self._model(job).spec.job, chunk)
        except StoreError:
            pass
        finally:
            store.fail_on = None

    @rule(job=st.integers(0, 2), chunk=st.integers(0, CHUNKS - 1))
    def both_workers_get_the_same_chunk(self, job: int, chunk: int) -> None:
        spec = self._model(job).spec
        self._at_once(
            *(lambda worker=worker: generate_chunk(worker, spec.job, chunk) for worker in self.setting.workers)
        )

    @rule(job=st.integers(0, 2))
    def cancel(self, job: int) -> None:
        self._cancel(self._model(job))

    @rule(job=st.integers(0, 2), chunk=st.integers(0, CHUNKS - 1))
    def cancel_races_with_a_chunk(self, job: int, chunk: int) -> None:
        model = self._model(job)
        work = lambda: generate_chunk(self.setting.workers[0], model.spec.job, chunk)  # noqa: E731
        self._at_once(
            lambda: self._cancel(model), work, lambda: generate_chunk(self.setting.workers[1], model.spec.job, chunk)
        )

    @rule()
    def sweep(self) -> None:
        self.sweeper.run_once()

    @rule()
    def flush_redis(self) -> None:
        self.setting.redis.flushall()

    @rule()
    def another_api_process_reads_all_afresh(self) -> None:
        self.readers["another API"] = self._new_reader()

    @invariant()
    def nothing_goes_back(self) -> None:
        for model in self.models:
            for name, reader in self.readers.items():
                self._look(model, name, reader.read(model.spec))

    def _look(self, model: Model, name: str, progress: Progress) -> None:
        # a new process starts from the newest state that any other has seen
        best = max((*model.seen.values(), Seen()), key=lambda seen: seen.sequence)
        assert progress.sequence >= best.sequence
        assert may_follow(best.state, progress.state), f"{progress.state} after {best.state}"
        model.seen[name] = Seen(progress.state, progress.sequence)
        recorded = self._recorded(model)
        summary = self.setting.repository.read_summary(model.spec.job)
        if summary is None:
            expected = JobState.QUEUED
            if recorded or self.setting.repository.is_started(model.spec.job):
                expected = JobState.RUNNING
            assert progress.state is (JobState.CANCELLING if model.cancel_asked else expected)
            assert progress.done == sum(len(model.spec.chunk_range(chunk)) for chunk in recorded)
            return
        data = self.setting.repository.store.get(keys.job_summary(model.spec.job))
        assert model.end in (None, data), "a summary never changes"
        model.end = data
        made = sum(len(model.spec.chunk_range(chunk)) for chunk in recorded)
        assert (progress.state, progress.done) == (summary.state, summary.done)
        assert summary.done == made
        assert (summary.state is JobState.SUCCEEDED) == (made == model.spec.count)
        assert summary.state in (JobState.SUCCEEDED, JobState.CANCELLED)
        if summary.state is JobState.CANCELLED:
            assert model.cancel_asked
            assert not model.all_recorded_before_cancel

    def teardown(self) -> None:
        """Ends every job, whatever has happened to it."""
        setting = self.setting
        for model in self.models:
            for chunk in range(model.spec.chunks):
                generate_chunk(setting.workers[0], model.spec.job, chunk)
        self.sweeper.run_once()
        self.nothing_goes_back()
        for model in self.models:
            assert model.end is not None, "every job ends"

    def _model(self, number: int) -> Model:
        return self.models[number % len(self.models)]

    def _cancel(self, model: Model) -> None:
        if not model.cancel_asked:
            model.all_recorded_before_cancel = len(self._recorded(model)) == model.spec.chunks
        try:
            cancel(model.spec, self.setting.repository, self.setting.live_state)
            model.cancel_asked = True
        except JobStateConflict:
            assert self.setting.repository.read_summary(model.spec.job).state is not JobState.CANCELLED  # type: ignore[union-attr]

    def _at_once(self, *work: Callable[[], object]) -> None:
        errors: list[BaseException] = []
        ready = threading.Barrier(len(work))

        def run(each: Callable[[], object]) -> None:
            try:
                ready.wait(10)
                each()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(each,)) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not errors, errors


@pytest.fixture
def setting(hire: Hire, store: FolderStore, redis: Redis, post: Post) -> Setting:
    def failing(root: Path) -> FailingStore:
        return FailingStore(root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")

    stores = [failing(store.root), failing(store.root)]
    register(store)
    workers = [hire(store=each, max_chunk_attempts=100) for each in stores]
    return Setting(workers, stores, JobRepository(store), workers[0].live_state, redis)


def test_any_interleaving_of_two_workers_crashes_cancels_and_flushes_leaves_states_in_order(setting: Setting) -> None:
    run_state_machine_as_test(
        lambda: Jobs(setting),
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
