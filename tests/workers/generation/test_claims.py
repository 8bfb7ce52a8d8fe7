"""Claims: the order of the store's and Redis's operations, on which crash safety depends, traced call by call."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from service.jobs.cancel import cancel
from tests.workers.conftest import Hire, load_tiny
from tests.workers.fakes import Post, tiny_spec
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.claims import CommitResult, JobCancelled, LeasedElsewhere
from workers.generation.worker import Worker

TRACED = {
    "repository": {"is_cancelled", "read_summary", "conclude"},
    "chunks": {"is_recorded", "write"},
    "live_state": {"clear_stalled"},
    "leases": {"take", "renew", "forget"},
    "renewer": {"renewing", "release"},
    "dispatcher": {"record_received", "begin_attempt", "cancel_attempt", "send", "send_next", "forget"},
    "start_marks": {"mark"},
    "progress": {"publish_started", "publish_recorded", "publish_left", "publish_ended"},
}


class Traced:
    """A part of a worker whose calls of ``TRACED`` are added to ``trace`` before they happen."""

    def __init__(self, name: str, part: object, trace: list[str]) -> None:
        self._name, self._part, self._trace = name, part, trace

    def __getattr__(self, attribute: str) -> Any:
        if attribute in TRACED[self._name]:
            self._trace.append(f"{self._name}.{attribute}")
        value = getattr(self._part, attribute)
        return Traced("chunks", value, self._trace) if attribute == "chunks" else value


def traced(worker: Worker) -> tuple[Worker, list[str]]:
    """The worker with the parts of ``TRACED`` traced, and its trace."""
    trace: list[str] = []
    parts = {name: Traced(name, getattr(worker.claims, name), trace) for name in TRACED if name != "chunks"}

    def with_parts(one: Any) -> Any:
        names = {field.name for field in dataclasses.fields(one)}
        return dataclasses.replace(one, **{name: part for name, part in parts.items() if name in names})

    changed = dataclasses.replace(
        with_parts(worker), claims=with_parts(worker.claims), completion=with_parts(worker.completion)
    )
    return changed, trace


def test_a_chunk_is_made_in_the_order_that_crash_safety_needs(worker: Worker) -> None:
    spec = tiny_spec(count=2, chunk_size=2)
    worker.repository.write_spec(spec)
    one, trace = traced(worker)
    assert generate_chunk(one, spec.job, 0) is ChunkOutcome.RECORDED
    assert trace == [
        "dispatcher.record_received",
        "repository.read_summary",
        "chunks.is_recorded",
        "progress.publish_started",
        "leases.take",
        "renewer.renewing",
        "start_marks.mark",
        "repository.is_cancelled",
        "dispatcher.begin_attempt",
        "chunks.is_recorded",
        "leases.renew",
        "repository.read_summary",
        "chunks.write",
        "renewer.release",
        "live_state.clear_stalled",
        "progress.publish_recorded",
        "repository.is_cancelled",
        "dispatcher.send_next",
        "repository.conclude",
        "progress.publish_ended",
        "leases.forget",
        "dispatcher.forget",
        "progress.publish_left",
    ]


def test_at_shutdown_the_lease_is_released_before_the_chunk_is_sent_again(hire: Hire, post: Post) -> None:
    worker = hire(grace_s=0.0)
    spec = tiny_spec(count=2, chunk_size=2)
    worker.repository.write_spec(spec)
    one, trace = traced(worker)
    worker.shutdown.request()
    assert generate_chunk(one, spec.job, 0) is ChunkOutcome.REQUEUED
    assert trace[-5:] == [
        "chunks.is_recorded",
        "dispatcher.cancel_attempt",
        "renewer.release",
        "dispatcher.send",
        "progress.publish_left",
    ]
    assert post.sent == [(spec.job, 0)]


def test_a_cancelled_job_is_marked_before_it_is_looked_at_and_no_attempt_is_counted(worker: Worker) -> None:
    spec = tiny_spec(count=2, chunk_size=2)
    worker.repository.write_spec(spec)
    worker.repository.record_started(spec.job)
    cancel(spec, worker.repository, worker.live_state)
    one, trace = traced(worker)
    with pytest.raises(JobCancelled), one.claims.claim(spec, 0):
        raise AssertionError("the block must not run")
    assert trace == [
        "progress.publish_started",
        "leases.take",
        "renewer.renewing",
        "start_marks.mark",
        "repository.is_cancelled",
        "progress.publish_left",
    ]
    assert worker.leases.live(spec.job) == set()


def test_a_chunk_has_one_claim_at_a_time(hire: Hire) -> None:
    first, second = hire(), hire(load=load_tiny)
    spec = tiny_spec(count=2, chunk_size=2)
    first.repository.write_spec(spec)
    with first.claims.claim(spec, 0) as claim:
        assert (claim.attempt, claim.epoch) == (1, 1)
        with pytest.raises(LeasedElsewhere), second.claims.claim(spec, 0):
            raise AssertionError("the block must not run")
    with second.claims.claim(spec, 0) as claim:
        assert (claim.attempt, claim.epoch) == (2, 2)


def test_a_chunk_that_is_recorded_already_is_counted_and_published_once(worker: Worker) -> None:
    spec = tiny_spec(count=4, chunk_size=2)
    worker.repository.write_spec(spec)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    one, trace = traced(worker)
    with one.claims.claim(spec, 0) as claim:
        assert claim.commit(record) is CommitResult.RECORDED_BEFORE
    assert trace[-2:] == ["chunks.write", "progress.publish_left"]
