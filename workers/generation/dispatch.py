"""The window: few chunks of a job are queued or running at once, and finishing one sends the next.

    twinset:next:{job}       string  the lowest chunk number that has never been sent
    twinset:sent:{job}       zset    chunk -> when it was sent (s), until a worker takes it up
    twinset:attempts:{job}   hash    chunk -> attempts begun and not called off; "{chunk}:error" -> the last reason

All of it is a hint. What is lost here the sweeper finds in the store and sends again.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import TypeVar

from redis import Redis
from redis.exceptions import RedisError

from service.broker.priority import Priority
from service.broker.queues import QUEUES, ChunkSender
from service.errors import BrokerUnavailable
from service.jobs.spec import JobSpec

logger = logging.getLogger(__name__)
_TTL_S = 7 * 86_400
LONGEST_READ = 2000
"""Messages of a queue that are read to know what waits in it: about 2 MB."""
Answer = TypeVar("Answer")

# KEYS next; ARGV first, kept_s. Returns a chunk number that no one else gets; never below `first`.
_CLAIM = """
local chunk = math.max(tonumber(redis.call('GET', KEYS[1]) or ARGV[1]), tonumber(ARGV[1]))
redis.call('SET', KEYS[1], chunk + 1, 'EX', ARGV[2])
return chunk
"""

# KEYS next, sent; ARGV chunk, kept_s.
_NOTE_SENT = """
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], now[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
local following = tonumber(redis.call('GET', KEYS[1]) or '0')
if following <= tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1] + 1, 'EX', ARGV[2]) end
return 1
"""


class ChunkDispatcher:
    """Sends chunks and notes it. ``redis`` decodes its answers; ``width`` is ``chunks_in_flight``."""

    def __init__(self, redis: Redis, queue: ChunkSender, width: int) -> None:
        self._redis = redis
        self._queue = queue
        self.width = width

    def send(self, job: str, chunk: int, priority: Priority = "normal") -> bool:
        """Sends the chunk to the queue of its job's ``priority``; False (and a log line) if the broker would not take
        it."""
        try:
            self._queue.send_chunk(job, chunk, priority)
        except BrokerUnavailable as error:
            logger.warning("job=%s chunk=%d not sent: %s", job, chunk, error.detail)
            return False
        self._ask(lambda: self._redis.eval(_NOTE_SENT, 2, _next(job), _sent(job), chunk, _TTL_S), None)
        return True

    def send_next(self, spec: JobSpec, finished: int) -> int | None:
        """Sends the next chunk after ``finished`` is done: one that was never sent. None if there is none."""
        # the first `width` chunks were sent with the job's acceptance
        first = max(self.width, finished + 1)
        claimed = self._ask(lambda: int(self._redis.eval(_CLAIM, 1, _next(spec.job), first, _TTL_S)), None)
        if claimed is None or claimed >= spec.chunks:
            return None
        return claimed if self.send(spec.job, claimed, spec.priority) else None

    def claimed(self, job: str, chunk: int) -> None:
        """Notes that the chunk is in a worker's hands, no longer in the queue."""
        self._ask(lambda: self._redis.zrem(_sent(job), chunk), None)

    def waiting(self, job: str) -> dict[int, float]:
        """Chunks sent and not taken up, with seconds since. Raises RedisError if nobody can tell."""
        now_s, _ = self._redis.time()
        return {
            int(chunk): now_s - sent_at for chunk, sent_at in self._redis.zrange(_sent(job), 0, -1, withscores=True)
        }

    def queue_length(self, priority: Priority | None = None) -> int:
        """Chunks that wait in the queue: of jobs with ``priority``, or of all. Raises RedisError if nobody can tell."""
        queues = QUEUES.values() if priority is None else [QUEUES[priority]]
        return sum(int(self._redis.llen(queue)) for queue in queues)

    def queued(self, priority: Priority) -> set[tuple[str, int]] | None:
        """(job, chunk) of all that waits in the queue; None if it is too long to be read. Raises RedisError if nobody
        can tell."""
        messages = self._redis.lrange(QUEUES[priority], 0, LONGEST_READ)
        if len(messages) > LONGEST_READ:
            return None
        return {named for message in messages if (named := _named_in(message)) is not None}

    def begin_attempt(self, job: str, chunk: int) -> int:
        """Counts an attempt and returns its number, from 1. Counted before the work, so that a chunk which kills its
        worker is counted too."""
        attempt = self._ask(lambda: int(self._redis.hincrby(_attempts(job), str(chunk), 1)), 1)
        self._ask(lambda: self._redis.expire(_attempts(job), _TTL_S), None)
        return attempt

    def cancel_attempt(self, job: str, chunk: int) -> None:
        """Takes an attempt back that ended through no fault of the chunk."""
        self._ask(lambda: self._redis.hincrby(_attempts(job), str(chunk), -1), None)

    def record_error(self, job: str, chunk: int, reason: str) -> None:
        """Keeps the reason why an attempt failed, for when the chunk is given up."""
        self._ask(lambda: self._redis.hset(_attempts(job), f"{chunk}:error", reason[:2000]), None)

    def last_error(self, job: str, chunk: int) -> str | None:
        return self._ask(lambda: self._redis.hget(_attempts(job), f"{chunk}:error"), None)

    def forget(self, job: str) -> None:
        """Drops what is kept of a job that has ended."""
        self._ask(lambda: self._redis.delete(_next(job), _sent(job), _attempts(job)), None)

    def _ask(self, question: Callable[[], Answer], otherwise: Answer) -> Answer:
        try:
            return question()
        except RedisError as error:
            logger.debug("no hint: %s", error)
            return otherwise


def _named_in(message: str) -> tuple[str, int] | None:
    """The chunk that a message of Celery's names, None where it is no such message."""
    try:
        _, named, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
        return str(named["job"]), int(named["chunk"])
    except (ValueError, KeyError, TypeError):
        return None


def _next(job: str) -> str:
    return f"twinset:next:{job}"


def _sent(job: str) -> str:
    return f"twinset:sent:{job}"


def _attempts(job: str) -> str:
    return f"twinset:attempts:{job}"
