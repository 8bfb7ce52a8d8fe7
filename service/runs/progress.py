"""A run's progress: its state from the store, its counts from Redis if that answers.

The hash is :func:`service.broker.redis_keys.run_progress`, the channel :func:`service.broker.redis_keys.events`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.broker import redis_keys
from service.broker.live_state import LiveState
from service.kit.states import JobState, current_state
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec, RunSummary
from service.webhooks import outbox

if TYPE_CHECKING:
    from redis import Redis

_TTL_S = 86_400
_HANG_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class RunProgress:
    """A run's progress at one moment.

    ``rate`` is in items a second; ``note`` says what it is doing; ``callback`` is None if none was requested. ``known``
    is false for a running run of which Redis has nothing, so that ``done`` is not known.
    """

    state: JobState
    done: int
    total: int | None
    rate: float | None = None
    note: str | None = None
    summary: RunSummary | None = None
    callback: outbox.DeliveryStatus | None = None
    known: bool = True

    @property
    def seconds_left(self) -> float | None:
        if self.state is not JobState.RUNNING or not self.rate or self.total is None:
            return None
        return max(0, self.total - self.done) / self.rate


def run_progress(repository: RunRepository, live_state: LiveState, spec: RunSpec) -> RunProgress:
    """The run's progress now."""
    summary = repository.read_summary(spec.run)
    if summary is not None:
        callback = None if spec.callback is None else repository.outbox.read(spec.run)
        return RunProgress(summary.state, summary.done, summary.total, summary=summary, callback=callback)
    state = current_state(
        ended=None, cancel_asked=repository.is_cancelled(spec.run), started=repository.is_started(spec.run)
    )
    empty: dict[str, str] = {}
    live = live_state.ask(lambda client: _read_hash(client, redis_keys.run_progress(spec.run)), empty)
    done, total = _number(live.get("done")) or 0, _number(live.get("total"))
    began, began_with = _number(live.get("began")), _number(live.get("began_with")) or 0
    rate = None
    if began is not None and done > began_with and time.time() - began >= 1:
        rate = (done - began_with) / (time.time() - began)
    return RunProgress(
        state,
        int(done),
        spec.total if total is None else int(total),
        rate,
        live.get("note") or None,
        callback=None if spec.callback is None else outbox.WAITING,
        known=bool(live),
    )


def publish_progress(live_state: LiveState, run: str, done: int, total: int | None, *, note: str = "") -> None:
    """Publishes how far the run is. Its rate counts from the first report, or the first after a minute without any."""
    now = time.time()
    values = {
        "done": str(done),
        "total": "" if total is None else str(total),
        "note": note,
        "said": f"{now:.3f}",
    }

    def publish(client: Redis) -> None:
        published_at = _number(_read_hash(client, redis_keys.run_progress(run)).get("said"))
        if published_at is None or now - published_at > _HANG_TIMEOUT_S:
            values.update(began=f"{now:.3f}", began_with=str(done))
        with client.pipeline(transaction=True) as pipe:
            pipe.hset(redis_keys.run_progress(run), mapping=dict(values.items()))
            pipe.expire(redis_keys.run_progress(run), _TTL_S)
            pipe.execute()
        client.publish(redis_keys.events(run), json.dumps({"done": done}))

    live_state.ask(publish, None)


def forget_progress(live_state: LiveState, run: str) -> None:
    """Deletes the live progress of a run that has ended, and publishes the end."""

    def drop(client: Redis) -> None:
        client.delete(redis_keys.run_progress(run))
        client.publish(redis_keys.events(run), json.dumps({"ended": True}))

    live_state.ask(drop, None)


def _read_hash(client: Redis, key: str) -> dict[str, str]:
    return {str(name): str(value) for name, value in client.hgetall(key).items()}


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
