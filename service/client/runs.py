"""Runs: what jobs, datasets, exports and augmentations share. They start, progress and end on the server."""

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
_WAITING_WORDS = {"queued": "waiting for a worker", "cancelling": "stopping", "validating": "reading the data"}
_FIRST_PAUSE_S, _MAX_PAUSE_S, _PAUSE_GROWTH = 0.2, 2.0, 1.3


@dataclass(frozen=True)
class ResourceKind(Generic[V]):
    """A kind of run: its value class, its path on the server, the label of its progress bar, and the unit it counts."""

    name: str
    view: type[V]
    path: Callable[[V], str]
    label: str
    unit: str


class Run(Generic[V]):
    """A run on the server. ``info`` is its state when it was last fetched; :meth:`refresh` fetches it again."""

    kind: ClassVar[ResourceKind[Any]]

    def __init__(self, client: BaseClient, info: V) -> None:
        self._client = client
        self.info = info

    @property
    def id(self) -> str:
        """The run's id."""
        return self.info.id

    @property
    def name(self) -> str | None:
        """The name you gave it."""
        return self.info.name

    @property
    def state(self) -> JobState:
        """The state: queued, running, cancelling, succeeded, partial, failed or cancelled."""
        return self.info.state

    @property
    def ended(self) -> bool:
        """Whether the state is final: succeeded, partial, failed or cancelled."""
        return self.state.ended

    @property
    def done(self) -> int:
        """Number of twins, items or files done so far."""
        return self.info.done

    @property
    def total(self) -> int | None:
        """Number of twins, items or files in all; None while it is unknown."""
        return self.info.total

    @property
    def reason(self) -> str | None:
        """Why it ended as it did, if there is more to say than the state."""
        return self.info.reason

    @property
    def path(self) -> str:
        """The run's path on the server."""
        return self.kind.path(self.info)

    def __repr__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        return f"<{type(self).__name__} {self.id}: {self.state.value}, {self.done}{of} {self.kind.unit}>"

    def __getstate__(self) -> None:
        raise TypeError(
            f"{self!r} holds a connection and cannot be pickled; pass its id, or the folder it was downloaded to"
        )


def refresh(run: R) -> Flow[R]:
    """Fetches the current state into ``info``, and returns the run itself."""
    run.info = yield from fetch_info(run._client, run.kind, run.info)
    return run


def wait(run: R, *, progress: bool = True, timeout: float | None = None, check: bool = True) -> Flow[R]:
    """Waits until the run has ended, at most ``timeout`` seconds, and returns the run itself.

    With ``progress``, a bar is shown in terminals and notebooks. Raises RunFailed if the run failed or was cancelled,
    unless ``check`` is false, and StillRunning (a TimeoutError) after ``timeout``; the run then continues on the
    server. ``partial`` is not an error: see ``state`` and ``reason``. Example::

        try:
            job.wait(timeout=600)
        except TimeoutError:
            print(job.done, "of", job.total)
    """
    run.info = yield from wait_until_ended(run._client, run.kind, run.info, progress=progress, timeout=timeout)
    if check:
        raise_if_failed(run.kind, run.info)
    return run


def cancel(run: R) -> Flow[R]:
    """Cancels the run and returns it, cancelled or cancelling. What is done stays; a second cancel changes nothing."""
    response = yield from send(run._client.config, Request("POST", f"{run.path}/cancel"))
    run.info = parse(run.kind.view, response)
    return run


def delete(run: Run[Any]) -> Flow[bool]:
    """Deletes the run with all its results, for good. Returns True once it is gone.

    Returns False for a run that has not ended: it is cancelled instead, and can be deleted once it has ended.
    """
    try:
        response = yield from send(run._client.config, Request("DELETE", run.path))
    except ApiProblem as problem:
        if problem.status == 404:
            return True  # deleted before, or by a first attempt whose response was lost
        raise
    if response.status == 204:
        return True
    run.info = parse(run.kind.view, response)
    return False


def fetch_info(client: BaseClient, kind: ResourceKind[V], info: V) -> Flow[V]:
    """The current state of the run."""
    return parse(kind.view, (yield from send(client.config, Request("GET", kind.path(info)))))


def wait_until_ended(
    client: BaseClient, kind: ResourceKind[V], info: V, *, progress: bool, timeout: float | None
) -> Flow[V]:
    """The final state of the run, once it has ended. Raises StillRunning after ``timeout`` seconds."""
    if info.state.ended:
        return info
    clock = client.config.clock
    deadline = None if timeout is None else clock() + timeout
    pause_s = _FIRST_PAUSE_S
    with client.progress_display.bar(progress, kind.label, kind.unit) as bar:
        while True:
            info = yield from fetch_info(client, kind, info)
            _show(bar, info)
            if info.state.ended:
                return info
            left_s = pause_s if deadline is None else deadline - clock()
            if left_s <= 0:
                of = "" if info.total is None else f" of {info.total}"
                raise StillRunning(
                    f"{kind.name} {info.id} is {info.state.value} after {timeout:g} s, {info.done}{of} {kind.unit} "
                    "done. It continues: wait again, with a longer timeout or none"
                )
            yield Sleep(min(pause_s, left_s))
            pause_s = min(_PAUSE_GROWTH * pause_s, _MAX_PAUSE_S)


def raise_if_failed(kind: ResourceKind[Any], info: RunInfo) -> None:
    """Raises RunFailed for a run that failed or was cancelled."""
    if info.state in (JobState.FAILED, JobState.CANCELLED):
        of = "" if info.total is None else f" of {info.total}"
        how = "failed" if info.state == JobState.FAILED else "was cancelled"
        raise RunFailed(
            f"{kind.name} {info.id} {how}, {info.done}{of} {kind.unit} done"
            + (f": {info.reason}" if info.reason else ""),
            state=info.state.value,
            reason=info.reason,
        )


def _show(bar: Bar, info: RunInfo) -> None:
    stalled = getattr(info, "stalled", None)
    if stalled is not None:
        message = f"waiting: {stalled.reason}"
    elif info.state != JobState.RUNNING:
        message = _WAITING_WORDS.get(info.state.value, info.state.value)
    else:
        # the count of an augmentation stands still while a round is made; ``doing`` shows the progress of the round
        parts = [doing] if (doing := getattr(info, "doing", None)) else []
        parts += [f"{info.rate:.3g}/s"] if info.rate else []
        parts += [f"{info.seconds_left:.0f} s left"] if info.seconds_left is not None else []
        message = ", ".join(parts)
    bar.update(info.done, info.total, message)
