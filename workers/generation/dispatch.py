"""Chunk dispatch: few chunks of a job are queued or running at once, and finishing one sends the next.

The keys are :func:`~service.broker.redis_keys.next_chunk` (the lowest number that was never sent), ``sent`` (chunks on
their way to a worker) and ``attempts``. If Redis loses them, the sweeper finds the missing chunks in the store and
sends them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from redis import Redis
from redis.exceptions import RedisError

from service.broker import redis_keys
from service.broker.fair_queue import Flow, TenantQueues
from service.broker.priority import Priority
from service.broker.queues import CHUNK_QUEUES, QUEUES, ChunkSender, chunk_name, named_chunk
from service.errors import BrokerUnavailable
from service.jobs.spec import JobSpec

logger = logging.getLogger(__name__)
_TTL_S = 7 * 86_400
_MAX_MESSAGES_AT_ONCE = 1000
Answer = TypeVar("Answer")

# KEYS next; ARGV first, ttl_s. Returns a chunk number, at least `first`, that no other caller gets.
_TAKE_NEXT = """
local chunk = math.max(tonumber(redis.call('GET', KEYS[1]) or ARGV[1]), tonumber(ARGV[1]))
redis.call('SET', KEYS[1], chunk + 1, 'EX', ARGV[2])
return chunk
"""

# KEYS next, sent; ARGV chunk, ttl_s.
_RECORD_SENT = """
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], now[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
local following = tonumber(redis.call('GET', KEYS[1]) or '0')
if following <= tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1] + 1, 'EX', ARGV[2]) end
return 1
"""


class ChunkDispatcher:
    """Sends chunks, at most ``max_in_flight`` of a job at once, and counts attempts. ``redis`` decodes its answers."""

    def __init__(self, redis: Redis, queue: ChunkSender, max_in_flight: int) -> None:
        self._redis = redis
        self._queue = queue
        self.fair_queue = TenantQueues(redis, CHUNK_QUEUES)
        self.max_in_flight = max_in_flight

    def send(self, spec: JobSpec, chunk: int) -> bool:
        """Sends the chunk to the queue of its job's priority; False, with a log line, if the broker fails."""
        job = spec.job
        try:
            self._queue.send_chunk(job, chunk, spec.priority, spec.tenant)
        except BrokerUnavailable as error:
            logger.warning("job=%s chunk=%d not sent: %s", job, chunk, error.detail)
            return False
        self._ask(
            lambda: self._redis.eval(_RECORD_SENT, 2, redis_keys.next_chunk(job), redis_keys.sent(job), chunk, _TTL_S),
            None,
        )
        return True

    def send_next(self, spec: JobSpec, finished: int) -> int | None:
        """Sends a chunk that was never sent, now that ``finished`` is done, and returns it; None if there is none."""
        # the API sends the first `max_in_flight` chunks when it accepts the job
        first = max(self.max_in_flight, finished + 1)
        chunk = self._ask(
            lambda: int(self._redis.eval(_TAKE_NEXT, 1, redis_keys.next_chunk(spec.job), first, _TTL_S)), None
        )
        if chunk is None or chunk >= spec.chunks:
            return None
        return chunk if self.send(spec, chunk) else None

    def record_received(self, job: str, chunk: int) -> None:
        """Records that a worker has received the chunk from the queue."""
        self._ask(lambda: self._redis.zrem(redis_keys.sent(job), chunk), None)

    def waiting(self, job: str) -> dict[int, float]:
        """Chunks sent that no worker has received, with the seconds since. Raises RedisError if Redis fails."""
        now_s = int(self._redis.time()[0])
        sent = cast("list[tuple[str, float]]", self._redis.zrange(redis_keys.sent(job), 0, -1, withscores=True))
        return {int(chunk): now_s - sent_at for chunk, sent_at in sent}

    def queue_length(self, priority: Priority | None = None) -> int:
        """The number of chunks in the queue of ``priority``, or in all queues. Raises RedisError if Redis fails."""
        queues = QUEUES.values() if priority is None else [QUEUES[priority]]
        return sum(int(self._redis.llen(queue)) for queue in queues)

    def queued(self, spec: JobSpec, chunks: Iterable[int]) -> set[int]:
        """Those of ``chunks`` that wait for a worker. Raises RedisError if Redis fails."""
        flow = Flow(spec.tenant, QUEUES[spec.priority])
        names = [chunk_name(spec.job, chunk) for chunk in chunks]
        return {named_chunk(name)[1] for name in self.fair_queue.waiting(flow, names)}

    def replace_lost_messages(self) -> int:
        """Sends a message for each chunk that waits without one; returns how many. Raises RedisError if Redis fails.

        A worker that dies takes the messages along that it has read, also where it made other chunks than they name.
        """
        priorities = {queue: priority for priority, queue in QUEUES.items()}
        lost = self.fair_queue.without_message(_MAX_MESSAGES_AT_ONCE)
        try:
            for item in lost:
                self._queue.send_chunk(*named_chunk(item.name), priorities[item.flow.queue], item.flow.tenant)
        except BrokerUnavailable as error:
            logger.warning("%s", error.detail)
        return len(lost)

    def begin_attempt(self, job: str, chunk: int) -> int:
        """Counts an attempt and returns its number, from 1. Call it before the work, so that a fatal one counts too."""
        attempt = self._ask(lambda: int(self._redis.hincrby(redis_keys.attempts(job), str(chunk), 1)), 1)
        self._ask(lambda: self._redis.expire(redis_keys.attempts(job), _TTL_S), None)
        return attempt

    def cancel_attempt(self, job: str, chunk: int) -> None:
        """Takes back an attempt that ended through no fault of the chunk."""
        self._ask(lambda: self._redis.hincrby(redis_keys.attempts(job), str(chunk), -1), None)

    def record_error(self, job: str, chunk: int, reason: str) -> None:
        """Keeps the reason why an attempt failed, for the record of a chunk that fails for good."""
        self._ask(lambda: self._redis.hset(redis_keys.attempts(job), f"{chunk}:error", reason[:2000]), None)

    def last_error(self, job: str, chunk: int) -> str | None:
        """The reason why the chunk's last attempt failed; None if it is not known."""
        error = self._ask(lambda: self._redis.hget(redis_keys.attempts(job), f"{chunk}:error"), None)
        return None if error is None else str(error)

    def forget(self, job: str) -> None:
        """Deletes the state of a job that has ended."""
        self._ask(
            lambda: self._redis.delete(
                redis_keys.next_chunk(job), redis_keys.sent(job), redis_keys.attempts(job), redis_keys.unable(job)
            ),
            None,
        )

    def _ask(self, question: Callable[[], Answer], default: Answer) -> Answer:
        try:
            return question()
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)
            return default
