"""Views of runs. Times are in UTC, durations in seconds, rates in items per second."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.jobs import CallbackView, callback_view
from service.kit.states import JobState
from service.runs.progress import RunProgress
from service.runs.spec import RunSpec


class View(BaseModel):
    """The base of the API's answers."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class RunView(View):
    """The members that all runs have."""

    id: str
    name: str | None = Field(description="your own name for it")
    state: JobState
    done: int = Field(description="items done")
    total: int | None = Field(description="items in total; null while unknown")
    rate: float | None = Field(description="items per second; null while unknown")
    seconds_left: float | None
    doing: str | None = Field(description="current activity, in a word or two")
    created_at: datetime
    finished_at: datetime | None
    seconds: float | None = Field(description="from acceptance to the end")
    reason: str | None = Field(description="why it ended as it did, if there is more to say")
    callback: CallbackView | None = Field(description="null if the request had no callback_url")


def run_fields(spec: RunSpec, progress: RunProgress) -> dict[str, Any]:
    """The members of :class:`RunView`."""
    summary = progress.summary
    return {
        "id": spec.run,
        "name": spec.name,
        "state": progress.state,
        "done": progress.done,
        "total": progress.total,
        "rate": progress.rate if progress.state is JobState.RUNNING else None,
        "seconds_left": progress.seconds_left,
        "doing": progress.note if not progress.state.ended else None,
        "created_at": spec.created_at,
        "finished_at": summary.finished_at if summary else None,
        "seconds": summary.seconds if summary else None,
        "reason": summary.reason if summary else None,
        "callback": callback_view(spec.run, spec.callback, progress.callback),
    }
