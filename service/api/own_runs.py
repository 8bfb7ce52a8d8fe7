"""Runs (datasets, augmentation sets, exports) for their own tenant alone, one by one and as pages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.api.parameters import bad_cursor
from service.api.schemas.unreadable import MAX_READ_PER_PAGE, UnreadableView, unreadable_view
from service.api.services import Services
from service.errors import RecordUnreadable, UnknownRun
from service.kit.prefetch import prefetch
from service.kit.run_kinds import RunKind, kind_of
from service.runs.progress import RunProgress, run_progress
from service.runs.spec import RunSpec

Seen = TypeVar("Seen")


def own_run(services: Services, tenant: str, run: str, kind: RunKind) -> RunSpec:
    """The tenant's run of that id and kind. A run of another tenant gives 404, like one that does not exist."""
    return services.runs.read_spec(run, tenant=tenant, kind=kind)


def progress_of(services: Services, spec: RunSpec) -> RunProgress:
    """The run's progress, from the object store and the live state."""
    return run_progress(services.runs, services.live_state, spec)


def delete_run(services: Services, tenant: str, run: str, kind: RunKind) -> None:
    """Deletes the tenant's run of that id and kind, also one whose records cannot be read."""
    try:
        services.runs.delete(own_run(services, tenant, run, kind))
    except RecordUnreadable:
        services.runs.delete_unreadable(run, tenant)


@dataclass(frozen=True)
class RunsPage(Generic[Seen]):
    """Views of runs, newest first, and those that cannot be shown."""

    views: list[Seen]
    unreadable: list[UnreadableView]
    next_cursor: str | None


def runs_page(
    services: Services,
    tenant: str,
    kind: RunKind,
    view: Callable[[Services, RunSpec, RunProgress], Seen],
    *,
    cursor: str | None,
    limit: int,
) -> RunsPage[Seen]:
    """The tenant's runs of a kind after ``cursor``.

    Raises :class:`InvalidRequest` for a cursor that no page has given.
    """
    if cursor is not None and kind_of(cursor) is not kind:
        raise bad_cursor(cursor)

    def read(run: str) -> Seen | UnreadableView | None:
        try:
            spec = own_run(services, tenant, run, kind)
            return view(services, spec, progress_of(services, spec))
        except UnknownRun:
            return None  # being deleted, or never accepted
        except RecordUnreadable as error:
            return unreadable_view(run, services.path(f"/{kind.plural}/{run}"), error)

    views: list[Seen] = []
    unreadable: list[UnreadableView] = []
    last: str | None = None
    with closing(prefetch(read, services.runs.runs(tenant, kind, start_after=cursor))) as runs:
        for number, (run, seen) in enumerate(runs):
            if len(views) + len(unreadable) == limit or number == MAX_READ_PER_PAGE:
                return RunsPage(views, unreadable, last)
            last = run
            if isinstance(seen, UnreadableView):
                unreadable.append(seen)
            elif seen is not None:
                views.append(seen)
    return RunsPage(views, unreadable, None)
