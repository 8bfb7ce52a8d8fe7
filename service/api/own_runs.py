"""Runs (datasets, augmentation sets, exports) for their own tenant alone, one by one and as pages."""

from __future__ import annotations

from contextlib import closing

from service.api.parameters import bad_cursor
from service.api.services import Services
from service.errors import UnknownRun
from service.kit.prefetch import prefetch
from service.kit.run_kinds import RunKind, kind_of
from service.runs.progress import RunProgress, run_progress
from service.runs.spec import RunSpec


def own_run(services: Services, tenant: str, run: str, kind: RunKind) -> RunSpec:
    """The tenant's run of that id and kind. A run of another tenant gives 404, like one that does not exist."""
    return services.runs.read_spec(run, tenant=tenant, kind=kind)


def progress_of(services: Services, spec: RunSpec) -> RunProgress:
    """The run's progress, from the object store and the live state."""
    return run_progress(services.runs, services.live_state, spec)


def runs_page(
    services: Services, tenant: str, kind: RunKind, *, cursor: str | None, limit: int
) -> tuple[list[tuple[RunSpec, RunProgress]], str | None]:
    """The tenant's runs of a kind after ``cursor``, newest first, each with its progress; and the next page's cursor.

    Raises :class:`InvalidRequest` for a cursor that no page has given.
    """
    if cursor is not None and kind_of(cursor) is not kind:
        raise bad_cursor(cursor)
    found: list[tuple[RunSpec, RunProgress]] = []
    last: str | None = None

    def read(run: str) -> tuple[RunSpec, RunProgress] | None:
        try:
            spec = own_run(services, tenant, run, kind)
        except UnknownRun:
            return None  # being deleted, or never accepted
        return spec, progress_of(services, spec)

    with closing(prefetch(read, services.runs.runs(tenant, kind, start_after=cursor))) as runs:
        for run, seen in runs:
            if len(found) == limit:
                return found, last
            last = run
            if seen is not None:
                found.append(seen)
    return found, None
