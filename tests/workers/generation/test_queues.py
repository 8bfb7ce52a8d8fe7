"""The queues of chunks over a real broker, read by Celery's consumer: tenants take turns, interactive first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery
from kombu import Connection
from redis import Redis

from service.broker.queues import CHUNK_QUEUES, GENERATE_TASK, JobQueue, celery_options, named_chunk
from service.settings import Settings
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, tiny_spec
from workers.generation.celery_app import create_app
from workers.generation.chunk import ChunkOutcome
from workers.generation.worker import Worker


@dataclass
class Reader:
    """Takes one message at a time, as a worker of one thread does, and the turn for it if ``worker`` is given."""

    connection: Connection
    worker: Worker | None = None
    taken: list[tuple[str, int]] = field(default_factory=list)

    def record(self, body: Any, message: Any) -> None:
        item = None if self.worker is None else self.worker.slots.queue.take({}, 1)
        self.taken.append((body[1]["job"], body[1]["chunk"]) if item is None else named_chunk(item.name))
        message.ack()

    def take(self, count: int, *, timeout_s: float = 10.0) -> list[tuple[str, int]]:
        """The chunks of the next ``count`` messages. Raises TimeoutError."""
        before = len(self.taken)
        while len(self.taken) < before + count:
            self.connection.drain_events(timeout=timeout_s)
        return self.taken[before:]


@contextmanager
def reading(app: Celery, worker: Worker | None = None) -> Iterator[Reader]:
    """A reader of the queues of ``app``."""
    with app.connection_for_read() as connection:
        reader = Reader(connection, worker)
        tasks = app.amqp.TaskConsumer(connection.default_channel, callbacks=[reader.record], accept=["json"])
        tasks.qos(prefetch_count=1)
        with tasks:
            yield reader


@pytest.fixture
def queue(settings: Settings) -> Iterator[JobQueue]:
    queue = JobQueue(settings)
    yield queue
    queue.close()


def older_app(settings: Settings) -> Celery:
    """The Celery application of a version without interactive jobs and turns."""
    options = celery_options(settings)
    del options["task_queues"]
    app = Celery("older", set_as_current=False)
    app.conf.update(options)
    return app


def test_a_later_interactive_chunk_is_taken_before_earlier_normal_ones(
    settings: Settings, worker: Worker, queue: JobQueue
) -> None:
    bulk, urgent = tiny_spec().job, tiny_spec().job
    for chunk in range(3):
        queue.send_chunk(bulk, chunk)
    with reading(create_app(settings, worker), worker) as reader:
        assert reader.take(1) == [(bulk, 0)]
        queue.send_chunk(urgent, 0, "interactive")
        assert reader.take(3) == [(urgent, 0), (bulk, 1), (bulk, 2)]


def test_another_tenants_chunk_is_taken_after_one_of_a_flood(
    settings: Settings, worker: Worker, queue: JobQueue, redis: Redis
) -> None:
    flood, single = [tiny_spec().job for _ in range(200)], tiny_spec().job
    for job in flood:
        queue.send_chunks(job, range(2), "normal", "acme")
    queue.send_chunk(single, 0, "normal", "birch")
    with reading(create_app(settings, worker), worker) as reader:
        assert reader.take(4) == [(flood[0], 0), (single, 0), (flood[0], 1), (flood[1], 0)]
    assert redis.llen("generate") == 397, "each message stands for one chunk"


def test_an_older_worker_makes_what_messages_name_and_an_older_senders_message_is_made(
    settings: Settings, worker: Worker, queue: JobQueue, redis: Redis
) -> None:
    bulk, urgent, old = (tiny_spec().job for _ in range(3))
    older = older_app(settings)
    queue.send_chunk(urgent, 0, "interactive")
    queue.send_chunk(bulk, 0)
    with reading(older) as reader:
        assert reader.take(1) == [(bulk, 0)]
        with pytest.raises(TimeoutError):
            reader.take(1, timeout_s=1.5)
    assert redis.llen("generate-interactive") == 1
    redis.flushall()
    older.send_task(GENERATE_TASK, kwargs={"job": old, "chunk": 5}, queue="generate", ignore_result=True)
    with reading(create_app(settings, worker), worker) as reader:
        assert reader.take(1) == [(old, 5)]
    older.close()


def test_once_a_worker_shuts_down_it_begins_no_chunk_and_the_others_get_the_message_again(
    settings: Settings, hire: Hire, queue: JobQueue, post: Post, redis: Redis
) -> None:
    worker, spec = hire(grace_s=60.0), tiny_spec(tenant="acme")
    queue.send_chunk(spec.job, 2, spec.priority, spec.tenant)
    worker.shutdown.request()
    task = create_app(settings, worker).tasks[GENERATE_TASK]
    assert redis.rpop("generate")
    assert task.apply(kwargs={"job": spec.job, "chunk": 2}).get() == ChunkOutcome.REQUEUED.value
    assert worker.dispatcher.queued(spec, range(4)) == {2}
    assert worker.slots.in_use == 0
    assert post.sent == [(spec.job, 2)]


def test_a_message_that_no_list_stands_for_is_made_as_it_is_named(
    settings: Settings, worker: Worker, redis: Redis
) -> None:
    spec = tiny_spec(count=2, chunk_size=2)
    worker.repository.write_spec(spec)
    task = create_app(settings, worker).tasks[GENERATE_TASK]
    assert task.apply(kwargs={"job": spec.job, "chunk": 0}).get() == ChunkOutcome.RECORDED.value
    assert worker.slots.in_use == 0
    assert CHUNK_QUEUES.queues == ("generate-interactive", "generate")


def test_a_worker_takes_no_message_that_another_could_have(settings: Settings, worker: Worker) -> None:
    # the count of prefetched messages drifts on Redis with late acknowledgement
    conf = create_app(settings, worker).conf
    assert (conf.task_acks_late, conf.worker_disable_prefetch, conf.worker_prefetch_multiplier) == (True, True, 1)
