"""Live progress of a job: samples recorded, steps done of chunks under way, and the rate. The store has the truth.

The workers' counts are in the hash :func:`~service.broker.redis_keys.throughput`; its page tells the fields.
"""

from __future__ import annotations

import logging
import threading
import time

from redis import Redis
from redis.exceptions import RedisError

from service.broker import redis_keys
from service.broker.live_state import LiveState
from service.jobs.spec import JobSpec, Summary
from service.kit.states import JobState

logger = logging.getLogger(__name__)
_TTL_S = 86_400
_PUBLISH_INTERVAL_S = 0.5
_RATE_WINDOW_S = 30.0
_MAX_JOBS = 4096


class ProgressPublisher:
    """Publishes progress through ``live_state``, at most twice a second for each job. May be used from many threads."""

    def __init__(self, redis: Redis, live_state: LiveState) -> None:
        self._redis = redis
        self._live_state = live_state
        self._published: dict[str, float] = {}
        self._lock = threading.Lock()

    def publish_started(self, spec: JobSpec) -> None:
        """Publishes that a worker has begun with the job."""
        self._publish(spec)

    def publish_steps(self, spec: JobSpec, chunk: int, samples: float) -> None:
        """Publishes how many samples' worth of steps a chunk under way has done."""
        with self._lock:
            now = time.monotonic()
            if now - self._published.get(spec.job, -_PUBLISH_INTERVAL_S) < _PUBLISH_INTERVAL_S:
                return
            self._published[spec.job] = now
            if len(self._published) > _MAX_JOBS:
                self._published.clear()
        self._write(spec.job, {f"c{chunk}": f"{samples:.3f}"})
        self._publish(spec)

    def publish_recorded(self, spec: JobSpec, chunk: int, samples: int) -> None:
        """Publishes that a chunk has been recorded, with the number of its samples."""
        try:
            with self._redis.pipeline() as pipe:
                pipe.hdel(redis_keys.throughput(spec.job), f"c{chunk}")
                pipe.hincrby(redis_keys.throughput(spec.job), "recorded", samples)
                pipe.execute()
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)
        self._publish(spec)

    def publish_left(self, spec: JobSpec, chunk: int) -> None:
        """Removes the steps of a chunk under way, which was recorded or released."""
        try:
            self._redis.hdel(redis_keys.throughput(spec.job), f"c{chunk}")
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)

    def publish_ended(self, spec: JobSpec, summary: Summary) -> None:
        """Publishes that the job has ended, which wakes its waiting clients."""
        self._live_state.publish_progress(spec.job, state=summary.state, done=summary.done)
        try:
            self._redis.delete(redis_keys.throughput(spec.job))
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)

    def _publish(self, spec: JobSpec) -> None:
        try:
            found = self._redis.hgetall(redis_keys.throughput(spec.job))
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)
            return
        values = {str(name): str(value) for name, value in found.items()}
        recorded = int(values.get("recorded", 0))
        worth = recorded + sum(float(value) for name, value in values.items() if name.startswith("c"))
        rate, moments = rate_of(values.get("base"), values.get("mid"), time.time(), worth)
        self._write(spec.job, moments)
        self._live_state.publish_progress(spec.job, state=JobState.RUNNING, done=min(recorded, spec.count), rate=rate)

    def _write(self, job: str, values: dict[str, str]) -> None:
        if not values:
            return
        try:
            with self._redis.pipeline() as pipe:
                pipe.hset(redis_keys.throughput(job), mapping=dict(values.items()))
                pipe.expire(redis_keys.throughput(job), _TTL_S)
                pipe.execute()
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)


def rate_of(base: str | None, mid: str | None, now: float, worth: float) -> tuple[float | None, dict[str, str]]:
    """Twins per second since ``base``, and the moments to store from now on.

    ``base`` advances every half minute, so the rate is that of the last 30 to 60 seconds; None in the first second.
    """
    here = f"{now:.3f} {worth:.3f}"
    if base is None or mid is None:
        return None, {"base": here, "mid": here}
    moved = {"base": mid, "mid": here} if now - float(mid.split()[0]) >= _RATE_WINDOW_S else {}
    then, worth_then = (float(part) for part in base.split())
    if now - then < 1.0 or worth <= worth_then:
        return None, moved
    return (worth - worth_then) / (now - then), moved
