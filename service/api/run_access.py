"""What endpoints learn of runs: a run of the tenant's own and of the path's kind, or nothing."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from fastapi import Header

from service.api.services import Services
from service.errors import InvalidRequest, UnknownRun
from service.jobs.faults import shown
from service.jobs.prefetch import prefetch
from service.jobs.submission import MAX_KEY_CHARS
from service.runs.kinds import Kind, kind_of
from service.runs.record import RunSpec
from service.runs.standing import Standing, standing

IdempotencyKey = Annotated[
    str | None,
    Header(
        json_schema_extra={"minLength": 1, "maxLength": MAX_KEY_CHARS, "pattern": "^[!-~]+$"},
        description="1 to 255 visible ASCII characters, a UUID say. The same key with the same body always stands for the same "
        "answer; with another body it is refused.",
    ),
]


def own_run(services: Services, tenant: str, run: str, kind: Kind) -> RunSpec:
    """The tenant's run of that id and kind. One of another tenant is answered 404, as one that does not exist is."""
    return services.runs.read_spec(run, tenant=tenant, kind=kind)


def stand(services: Services, spec: RunSpec) -> Standing:
    """Where the run stands."""
    return standing(services.runs, services.hints, spec)


def runs_page(
    services: Services, tenant: str, kind: Kind, *, cursor: str | None, limit: int
) -> tuple[list[tuple[RunSpec, Standing]], str | None]:
    """The tenant's runs of a kind after ``cursor``, newest first, each with where it stands; and the next page's cursor.

    Raises :class:`InvalidRequest` for a cursor that is none.
    """
    if cursor is not None and kind_of(cursor) is not kind:
        raise bad_cursor(cursor)
    found: list[tuple[RunSpec, Standing]] = []
    last: str | None = None

    def look(run: str) -> tuple[RunSpec, Standing] | None:
        try:
            spec = own_run(services, tenant, run, kind)
        except UnknownRun:
            return None  # being deleted, or never accepted
        return spec, stand(services, spec)

    with closing(prefetch(look, services.runs.runs(tenant, kind, start_after=cursor))) as looked_at:
        for run, seen in looked_at:
            if len(found) == limit:
                return found, last
            last = run
            if seen is not None:
                found.append(seen)
    return found, None


def bad_cursor(cursor: str) -> InvalidRequest:
    """The error for a cursor that is none."""
    return InvalidRequest(
        f"cursor is {shown(cursor)}; take it from next_cursor of the page before, or leave it out",
        errors=[{"parameter": "cursor", "in": "query", "detail": "not a cursor"}],
    )
