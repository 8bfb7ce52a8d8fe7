"""Where a run stands: its state from the store, its progress from Redis where that answers.

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
    """A run at a moment. ``rate`` is in items a second; ``note`` says what it is at; ``callback`` is None where none
    was asked for.

    ``told`` is false for a run at work of which Redis had nothing to say: then nobody knows how much of it is done.
    """

    state: JobState
    done: int
    total: int | None
    rate: float | None = None
    note: str | None = None
    summary: RunSummary | None = None
    callback: outbox.DeliveryStatus | None = None
    told: bool = True

    @property
    def seconds_left(self) -> float | None:
        if self.state is not JobState.RUNNING or not self.rate or self.total is None:
            return None
        return max(0, self.total - self.done) / self.rate


def run_progress(repository: RunRepository, live_state: LiveState, spec: RunSpec) -> RunProgress:
    """Where the run stands."""
    summary = repository.read_summary(spec.run)
    if summary is not None:
        callback = None if spec.callback is None else repository.outbox.read(spec.run)
        return RunProgress(summary.state, summary.done, summary.total, summary=summary, callback=callback)
    state = current_state(
        ended=None, cancel_asked=repository.is_cancelled(spec.run), started=repository.is_started(spec.run)
    )
    said = live_state.ask(lambda client: client.hgetall(redis_keys.run_progress(spec.run)), {})
    done, total = _number(said.get("done")) or 0, _number(said.get("total"))
    began, began_with = _number(said.get("began")), _number(said.get("began_with")) or 0
    rate = None
    if began is not None and done > began_with and time.time() - began >= 1:
        rate = (done - began_with) / (time.time() - began)
    return RunProgress(
        state,
        int(done),
        spec.total if total is None else int(total),
        rate,
        said.get("note") or None,
        callback=None if spec.callback is None else outbox.WAITING,
        told=bool(said),
    )


def publish_progress(live_state: LiveState, run: str, done: int, total: int | None, *, note: str = "") -> None:
    """Says how far the run is. Its rate counts from the first word on, or from the first after nothing was heard for a
    minute."""
    now = time.time()
    values = {"done": str(done), "total": "" if total is None else str(total), "note": note, "said": f"{now:.3f}"}

    def say(client: Redis) -> None:
        said = _number(client.hget(redis_keys.run_progress(run), "said"))
        if said is None or now - said > _HANG_TIMEOUT_S:
            values.update(began=f"{now:.3f}", began_with=str(done))
        with client.pipeline(transaction=True) as pipe:
            pipe.hset(redis_keys.run_progress(run), mapping=values)
            pipe.expire(redis_keys.run_progress(run), _TTL_S)
            pipe.execute()
        client.publish(redis_keys.events(run), json.dumps({"done": done}))

    live_state.ask(say, None)


def forget_progress(live_state: LiveState, run: str) -> None:
    """Drops what was said of a run that has ended, and lets those know who wait for that."""

    def drop(client: Redis) -> None:
        client.delete(redis_keys.run_progress(run))
        client.publish(redis_keys.events(run), json.dumps({"ended": True}))

    live_state.ask(drop, None)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
