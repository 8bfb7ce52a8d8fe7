"""Live progress of a job: twins recorded, what is half made, and how fast it goes. Hints for the API; the store
decides.

twinset:pace:{job}   hash   "recorded": samples in records; "c{chunk}": samples' worth of steps done in a chunk at work;
                            "base", "mid": moments "{unix time} {samples' worth}" between which the rate is taken
"""

from __future__ import annotations

import logging
import threading
import time

from redis import Redis
from redis.exceptions import RedisError

from service.broker.live_state import LiveState
from service.jobs.spec import JobSpec, Summary
from service.kit.states import JobState

logger = logging.getLogger(__name__)
_TTL_S = 86_400
_PUBLISH_INTERVAL_S = 0.5
_RATE_WINDOW_S = 30.0
_JOBS_REMEMBERED = 4096


class ProgressPublisher:
    """Publishes progress through ``live_state``, at most twice a second a job and process. May be used from many
    threads."""

    def __init__(self, redis: Redis, live_state: LiveState) -> None:
        self._redis = redis
        self._live_state = live_state
        self._published: dict[str, float] = {}
        self._lock = threading.Lock()

    def publish_started(self, spec: JobSpec) -> None:
        """Says that a worker is at the job."""
        self._publish(spec)

    def publish_steps(self, spec: JobSpec, chunk: int, samples: float) -> None:
        """Says how many samples' worth of steps a chunk at work has done."""
        with self._lock:
            now = time.monotonic()
            if now - self._published.get(spec.job, -_PUBLISH_INTERVAL_S) < _PUBLISH_INTERVAL_S:
                return
            self._published[spec.job] = now
            if len(self._published) > _JOBS_REMEMBERED:
                self._published.clear()
        self._write(spec.job, {f"c{chunk}": f"{samples:.3f}"})
        self._publish(spec)

    def publish_recorded(self, spec: JobSpec, chunk: int, samples: int) -> None:
        """Says that a chunk has been recorded with so many samples."""
        try:
            with self._redis.pipeline() as pipe:
                pipe.hdel(_key(spec.job), f"c{chunk}")
                pipe.hincrby(_key(spec.job), "recorded", samples)
                pipe.execute()
        except RedisError as error:
            logger.debug("no hint: %s", error)
        self._publish(spec)

    def publish_left(self, spec: JobSpec, chunk: int) -> None:
        """Says that a chunk at work was put down unrecorded."""
        try:
            self._redis.hdel(_key(spec.job), f"c{chunk}")
        except RedisError as error:
            logger.debug("no hint: %s", error)

    def publish_ended(self, spec: JobSpec, summary: Summary) -> None:
        """Says that the job has ended, and wakes who waits for it."""
        self._live_state.publish_progress(spec.job, state=summary.state, done=summary.done)
        try:
            self._redis.delete(_key(spec.job))
        except RedisError as error:
            logger.debug("no hint: %s", error)

    def _publish(self, spec: JobSpec) -> None:
        try:
            values = self._redis.hgetall(_key(spec.job))
        except RedisError as error:
            logger.debug("no hint: %s", error)
            return
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
                pipe.hset(_key(job), mapping=values)
                pipe.expire(_key(job), _TTL_S)
                pipe.execute()
        except RedisError as error:
            logger.debug("no hint: %s", error)


def rate_of(base: str | None, mid: str | None, now: float, worth: float) -> tuple[float | None, dict[str, str]]:
    """Twins per second since ``base``, and the moments to keep from now on.

    The base moves up every half minute, so the rate is that of the last 30 to 60 seconds; None in the first second.
    """
    here = f"{now:.3f} {worth:.3f}"
    if base is None or mid is None:
        return None, {"base": here, "mid": here}
    moved = {"base": mid, "mid": here} if now - float(mid.split()[0]) >= _RATE_WINDOW_S else {}
    then, worth_then = (float(part) for part in base.split())
    if now - then < 1.0 or worth <= worth_then:
        return None, moved
    return (worth - worth_then) / (now - then), moved


def _key(job: str) -> str:
    return f"twinset:pace:{job}"
