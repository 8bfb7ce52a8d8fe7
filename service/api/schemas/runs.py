"""What the API says of runs. Every moment is in UTC, every duration in seconds, every rate in items a second."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.jobs import CallbackView, callback_view
from service.kit.states import JobState
from service.runs.progress import RunProgress
from service.runs.spec import RunSpec


class View(BaseModel):
    """A value of an answer."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class RunView(View):
    """What all runs have."""

    id: str
    name: str | None = Field(description="your own words for it")
    state: JobState
    done: int = Field(description="items done")
    total: int | None = Field(description="items in all; null where that is not known yet")
    rate: float | None = Field(description="items a second; null where nothing is known of it")
    seconds_left: float | None
    doing: str | None = Field(description="what it is at, in a word or two")
    created_at: datetime
    finished_at: datetime | None
    seconds: float | None = Field(description="from acceptance to end")
    reason: str | None = Field(description="why it ended as it did, where there is something to say")
    callback: CallbackView | None = Field(description="null where the request gave no callback_url")


def run_fields(spec: RunSpec, stands: RunProgress) -> dict[str, Any]:
    """The members of :class:`RunView`."""
    summary = stands.summary
    return {
        "id": spec.run,
        "name": spec.name,
        "state": stands.state,
        "done": stands.done,
        "total": stands.total,
        "rate": stands.rate if stands.state is JobState.RUNNING else None,
        "seconds_left": stands.seconds_left,
        "doing": stands.note if not stands.state.ended else None,
        "created_at": spec.created_at,
        "finished_at": summary.finished_at if summary else None,
        "seconds": summary.seconds if summary else None,
        "reason": summary.reason if summary else None,
        "callback": callback_view(spec.run, spec.callback, stands.callback),
    }
