"""What jobs, datasets, exports and augmentations have in common: they begin, go on, and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from service.client.client import BaseClient
from service.client.effects import Flow, Request, Sleep
from service.client.errors import ApiProblem, RunFailed, StillRunning
from service.client.progress_bars import Bar
from service.client.retries import parse, send
from service.client.views import RunInfo
from service.kit.states import JobState

V = TypeVar("V", bound=RunInfo)
R = TypeVar("R", bound="Run[Any]")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GROWTH = 0.2, 2.0, 1.3


@dataclass(frozen=True)
class ResourceKind(Generic[V]):
    """A kind of run: what its answers are, where it is, and what is said of it. ``unit`` is what it counts."""

    name: str
    view: type[V]
    path: Callable[[V], str]
    doing: str
    unit: str


class Run(Generic[V]):
    """A run on the server, as it was when last looked at: ``info`` has all that was told."""

    kind: ClassVar[ResourceKind[Any]]

    def __init__(self, client: BaseClient, info: V) -> None:
        self._client = client
        self.info = info

    @property
    def id(self) -> str:
        """Its id."""
        return self.info.id

    @property
    def name(self) -> str | None:
        """Your own words for it."""
        return self.info.name

    @property
    def state(self) -> JobState:
        """queued, running, cancelling, succeeded, partial, failed or cancelled."""
        return self.info.state

    @property
    def ended(self) -> bool:
        """Whether its state is its last."""
        return self.state.ended

    @property
    def done(self) -> int:
        """How many are done."""
        return self.info.done

    @property
    def total(self) -> int | None:
        """How many there are to be; None while that is not known."""
        return self.info.total

    @property
    def reason(self) -> str | None:
        """Why it ended as it did, where there is more to say."""
        return self.info.reason

    @property
    def path(self) -> str:
        """Its path on the server."""
        return self.kind.path(self.info)

    def __repr__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        return f"<{type(self).__name__} {self.id}: {self.state.value}, {self.done}{of} {self.kind.unit}>"

    def __getstate__(self) -> None:
        raise TypeError(
            f"{self!r} holds a connection and cannot be pickled; hand on its id, or the folder that it was fetched into"
        )


def refresh(run: R) -> Flow[R]:
    """Looks again; returns itself."""
    run.info = yield from look(run._client, run.kind, run.info)
    return run


def wait(run: R, *, progress: bool = True, timeout: float | None = None, check: bool = True) -> Flow[R]:
    """Waits for the end, at most ``timeout`` seconds; returns itself.

    A bar shows how far it is, if ``progress`` and somebody watches. Raises RunFailed for one that ended failed or
    cancelled, unless ``check`` is false, and StillRunning, a TimeoutError, after ``timeout``: it goes on. One that
    ended partial is no error; look at ``state`` and ``reason``.
    """
    run.info = yield from until_ended(run._client, run.kind, run.info, progress=progress, timeout=timeout)
    if check:
        check_end(run.kind, run.info)
    return run


def cancel(run: R) -> Flow[R]:
    """Cancels it; what was made before stays. Asking again changes nothing. Returns itself, cancelled or cancelling."""
    answer = yield from send(run._client.config, Request("POST", f"{run.path}/cancel"))
    run.info = parse(run.kind.view, answer)
    return run


def delete(run: Run[Any]) -> Flow[bool]:
    """Deletes it with all it made; nothing brings it back. True once it is gone.

    False for one that has not ended: it is cancelled, and stays until it has ended and is deleted in turn.
    """
    try:
        answer = yield from send(run._client.config, Request("DELETE", run.path))
    except ApiProblem as problem:
        if problem.status == 404:
            return True  # gone already, or by a first attempt whose answer was lost
        raise
    if answer.status == 204:
        return True
    run.info = parse(run.kind.view, answer)
    return False


def look(client: BaseClient, kind: ResourceKind[V], info: V) -> Flow[V]:
    """The run as it is now."""
    return parse(kind.view, (yield from send(client.config, Request("GET", kind.path(info)))))


def until_ended(
    client: BaseClient, kind: ResourceKind[V], info: V, *, progress: bool, timeout: float | None
) -> Flow[V]:
    """The run as it has ended. Raises StillRunning after ``timeout`` seconds."""
    if info.state.ended:
        return info
    clock = client.config.clock
    deadline = None if timeout is None else clock() + timeout
    pause_s = _FIRST_PAUSE_S
    with client.board.bar(progress, kind.doing, kind.unit) as bar:
        while True:
            info = yield from look(client, kind, info)
            _show(bar, info)
            if info.state.ended:
                return info
            left_s = pause_s if deadline is None else deadline - clock()
            if left_s <= 0:
                of = "" if info.total is None else f" of {info.total}"
                raise StillRunning(
                    f"{kind.name} {info.id} is {info.state.value} after {timeout:g} s, {info.done}{of} {kind.unit} done. It goes on: "
                    "wait again, with a longer timeout or none"
                )
            yield Sleep(min(pause_s, left_s))
            pause_s = min(_GROWTH * pause_s, _LONGEST_PAUSE_S)


def check_end(kind: ResourceKind[Any], info: RunInfo) -> None:
    """Raises RunFailed for a run that failed or was cancelled."""
    if info.state in (JobState.FAILED, JobState.CANCELLED):
        of = "" if info.total is None else f" of {info.total}"
        raise RunFailed(
            f"{kind.name} {info.id} {'failed' if info.state is JobState.FAILED else 'was cancelled'}, {info.done}{of} {kind.unit} done"
            + (f": {info.reason}" if info.reason else ""),
            state=info.state.value,
            reason=info.reason,
        )


def _show(bar: Bar, info: RunInfo) -> None:
    stalled = getattr(info, "stalled", None)
    if stalled is not None:
        note = f"waiting: {stalled.reason}"
    elif info.state is not JobState.RUNNING:
        note = {JobState.QUEUED: "waiting for a worker", JobState.CANCELLING: "stopping"}.get(
            info.state, info.state.value
        )
    else:
        # what an augmentation set counts stands still while a round is made, and only its words move
        parts = [doing] if (doing := getattr(info, "doing", None)) else []
        parts += [f"{info.rate:.3g}/s"] if info.rate else []
        parts += [f"{info.seconds_left:.0f} s left"] if info.seconds_left is not None else []
        note = ", ".join(parts)
    bar.show(info.done, info.total, note)
