"""Chunk dispatch against a real Redis: each chunk is sent once, by its job's priority, and attempts are counted."""

from __future__ import annotations

from redis import Redis

from tests.workers.fakes import Post, tiny_spec
from workers.generation.dispatch import ChunkDispatcher

JOB = "j" + "0" * 18


def test_each_finished_chunk_sends_one_that_was_never_sent(redis: Redis) -> None:
    post = Post()
    dispatcher = ChunkDispatcher(redis, post, 3)
    spec = tiny_spec(count=14, chunk_size=2)
    assert [dispatcher.send_next(spec, finished) for finished in (0, 2, 1, 3, 4, 5)] == [3, 4, 5, 6, None, None]
    assert set(dispatcher.waiting(spec.job)) == {3, 4, 5, 6}
    dispatcher.record_received(spec.job, 4)
    assert set(dispatcher.waiting(spec.job)) == {3, 5, 6}


def test_after_a_flush_chunks_are_sent_from_behind_the_finished_one(redis: Redis) -> None:
    dispatcher = ChunkDispatcher(redis, Post(), 2)
    spec = tiny_spec(count=40, chunk_size=2)
    assert dispatcher.send_next(spec, 0) == 2
    redis.flushall()
    assert dispatcher.send_next(spec, 7) == 8
    assert dispatcher.send_next(spec, 3) == 9
    dispatcher.send(spec, 15)
    assert dispatcher.send_next(spec, 4) == 16, "a chunk that the sweeper sent is not sent again"


def test_chunks_are_sent_by_their_jobs_priority_and_both_queues_are_counted(redis: Redis) -> None:
    post = Post()
    dispatcher = ChunkDispatcher(redis, post, 2)
    urgent, plain = (tiny_spec(count=8, chunk_size=2, priority=priority) for priority in ("interactive", "normal"))
    assert dispatcher.send_next(urgent, 0) == dispatcher.send_next(plain, 0) == 2
    assert dispatcher.send(urgent, 1)
    assert dispatcher.send(plain, 1)
    assert post.interactive == [(urgent.job, 2), (urgent.job, 1)]
    redis.rpush("generate", "a", "b")
    redis.rpush("generate-interactive", "c")
    assert (dispatcher.queue_length(), dispatcher.queue_length("normal"), dispatcher.queue_length("interactive")) == (
        3,
        2,
        1,
    )


def test_attempts_are_counted_per_chunk_and_can_be_cancelled(redis: Redis) -> None:
    dispatcher = ChunkDispatcher(redis, Post(), 2)
    assert [dispatcher.begin_attempt(JOB, 0), dispatcher.begin_attempt(JOB, 0), dispatcher.begin_attempt(JOB, 1)] == [
        1,
        2,
        1,
    ]
    dispatcher.cancel_attempt(JOB, 0)
    assert dispatcher.begin_attempt(JOB, 0) == 2
    dispatcher.record_error(JOB, 0, "why")
    assert dispatcher.last_error(JOB, 0) == "why"
    dispatcher.forget(JOB)
    assert dispatcher.begin_attempt(JOB, 0) == 1
    assert dispatcher.last_error(JOB, 0) is None
