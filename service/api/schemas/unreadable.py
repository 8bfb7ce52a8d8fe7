"""Resources in a list whose records cannot be read: each is named as such, and harms no other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from service.errors import RecordUnreadable

if TYPE_CHECKING:
    from service.api.services import Services
    from service.runs.spec import RunSpec

MAX_READ_PER_PAGE = 500
"""Entries of a list that one page reads at most, also where most of them are deleted or of another state."""
_log = logging.getLogger("twinset.api")
Seen = TypeVar("Seen")
Progress = TypeVar("Progress")


class UnreadableView(BaseModel):
    """A resource whose record is damaged, or was written by a newer version. It can be deleted."""

    model_config = ConfigDict(frozen=True)

    id: str
    detail: str = Field(description="the record, what is wrong with it, and the remedy")


class WithUnreadable(BaseModel):
    """The base of pages."""

    unreadable: list[UnreadableView] = Field(
        default_factory=list, description="those of the page's resources whose records cannot be read"
    )


def unreadable_view(id: str, path: str, error: RecordUnreadable) -> UnreadableView:
    """The resource of that id, which is deleted at ``path``."""
    return UnreadableView(id=id, detail=f"{error.detail} (DELETE {path})")


def reads_records(
    view: Callable[[Services, RunSpec, Progress], Seen],
) -> Callable[[Services, RunSpec, Progress], Seen]:
    """A view of a run that raises :class:`RecordUnreadable` where the run's records lack what it shows."""

    @wraps(view)
    def checked(services: Services, spec: RunSpec, progress: Progress) -> Seen:
        try:
            return view(services, spec, progress)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            _log.exception("%s %s cannot be shown", spec.kind.value, spec.run)
            reason = f"{type(error).__name__}: {error}"[:200]
            raise RecordUnreadable(f"the records of {spec.kind.value} {spec.run} are not whole ({reason})") from None

    return checked
