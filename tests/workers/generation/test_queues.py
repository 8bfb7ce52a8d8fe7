"""The two queues over a real broker, read by Celery's consumer: interactive chunks first, and no job starves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery
from kombu import Connection
from redis import Redis

from service.broker.queues import (
    GENERATE_TASK,
    InteractiveFirst,
    JobQueue,
    celery_options,
    priority_in,
)
from service.settings import Settings
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, tiny_spec
from workers.generation.celery_app import create_app
from workers.generation.chunk import ChunkOutcome
from workers.generation.worker import Worker


@dataclass
class Reader:
    """Takes one message at a time, as a worker of one thread does."""

    connection: Connection
    taken: list[tuple[str, int, str]] = field(default_factory=list)

    def record(self, body: Any, message: Any) -> None:
        self.taken.append((body[1]["job"], body[1]["chunk"], message.delivery_info["routing_key"]))
        message.ack()

    def take(self, count: int, *, timeout_s: float = 10.0) -> list[tuple[str, int, str]]:
        """(job, chunk, queue) of the next ``count`` messages. Raises TimeoutError."""
        before = len(self.taken)
        while len(self.taken) < before + count:
            self.connection.drain_events(timeout=timeout_s)
        return self.taken[before:]


@contextmanager
def reading(app: Celery) -> Iterator[Reader]:
    """A reader of the queues of ``app``."""
    with app.connection_for_read() as connection:
        reader = Reader(connection)
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
    """The Celery application of a version without interactive jobs."""
    options = celery_options(settings)
    del options["task_queues"], options["broker_transport_options"]["queue_order_strategy"]
    app = Celery("older", set_as_current=False)
    app.conf.update(options)
    return app


def test_a_later_interactive_chunk_is_taken_before_earlier_normal_ones(
    settings: Settings, worker: Worker, queue: JobQueue
) -> None:
    bulk, urgent = tiny_spec().job, tiny_spec().job
    for chunk in range(3):
        queue.send_chunk(bulk, chunk)
    with reading(create_app(settings, worker)) as reader:
        assert reader.take(1) == [(bulk, 0, "generate")]
        queue.send_chunk(urgent, 0, "interactive")
        assert reader.take(1) == [(urgent, 0, "generate-interactive")]
        assert reader.take(2) == [(bulk, 1, "generate"), (bulk, 2, "generate")]


def test_four_interactive_chunks_are_taken_for_each_normal_one_that_waits(
    settings: Settings, worker: Worker, queue: JobQueue
) -> None:
    bulk, urgent = tiny_spec().job, tiny_spec().job
    for chunk in range(10):
        queue.send_chunk(urgent, chunk, "interactive")
    for chunk in range(4):
        queue.send_chunk(bulk, chunk)
    with reading(create_app(settings, worker)) as reader:
        jobs = "".join("i" if job == urgent else "n" for job, _, _ in reader.take(14))
    assert jobs == "iiiiniiiiniinn"


def test_an_older_worker_leaves_interactive_chunks_and_an_older_sender_is_read(
    settings: Settings, worker: Worker, queue: JobQueue, redis: Redis
) -> None:
    bulk, urgent, old = (tiny_spec().job for _ in range(3))
    older = older_app(settings)
    queue.send_chunk(urgent, 0, "interactive")
    queue.send_chunk(bulk, 0)
    with reading(older) as reader:
        assert reader.take(1) == [(bulk, 0, "generate")]
        with pytest.raises(TimeoutError):
            reader.take(1, timeout_s=1.5)
    assert redis.llen("generate-interactive") == 1
    older.send_task(GENERATE_TASK, kwargs={"job": old, "chunk": 5}, queue="generate", ignore_result=True)
    with reading(create_app(settings, worker)) as reader:
        assert reader.take(2) == [(urgent, 0, "generate-interactive"), (old, 5, "generate")]
    older.close()


def test_after_the_grace_time_a_chunk_goes_back_to_its_queue(settings: Settings, hire: Hire, post: Post) -> None:
    worker = hire(grace_s=0.0)
    worker.shutdown.request()
    task = create_app(settings, worker).tasks[GENERATE_TASK]
    jobs = [tiny_spec().job for _ in range(3)]
    for job, queue in zip(jobs, ("generate-interactive", "generate", None), strict=True):
        assert task.apply(kwargs={"job": job, "chunk": 2}, routing_key=queue).get() == ChunkOutcome.REQUEUED.value
    assert post.sent == [(job, 2) for job in jobs]
    assert post.interactive == [(jobs[0], 2)]


def test_the_order_does_not_depend_on_that_of_the_queues() -> None:
    for queues in (["generate", "generate-interactive"], ["generate-interactive", "generate"]):
        order = InteractiveFirst(queues)
        assert order.consume(2) == ["generate-interactive", "generate"]
        for _ in range(4):
            order.rotate("generate-interactive")
        assert order.consume(2) == ["generate", "generate-interactive"]
        order.update(queues)
        order.rotate("generate")
        assert order.consume(2) == ["generate-interactive", "generate"]
    order.update(["generate"])
    assert order.consume(1) == ["generate"]
    others = [priority_in(queue) for queue in ("generate", "elsewhere", None)]
    assert (priority_in("generate-interactive"), *others) == ("interactive", "normal", "normal", "normal")
