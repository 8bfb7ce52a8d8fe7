"""Routes that look at the API key before anything else, and what endpoints learn by it: the tenant, and its jobs alone.

An endpoint gets a job's spec by ``OwnJob`` or ``LookAtOwnJob`` and has no other way to one; so none can forget whose it
is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from service.api.openapi import KEY_NEEDED, answers
from service.api.services import Services, ServicesDep
from service.auth.rate_limit import check_rate
from service.errors import InvalidRequest, UnknownRun
from service.jobs.spec import JobSpec
from service.jobs.submit import MAX_KEY_CHARS
from service.kit.prefetch import prefetch
from service.kit.run_kinds import RunKind, kind_of
from service.kit.validation import truncated_repr
from service.runs.progress import RunProgress, run_progress
from service.runs.spec import RunSpec

Seen = TypeVar("Seen")


class KeyedRoute(APIRoute):
    """A route for those with an API key, where keys are needed, and for each tenant no more often than it may."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["responses"] = {**answers(401, 429), **(options.get("responses") or {})}
        options["openapi_extra"] = {**KEY_NEEDED, **(options.get("openapi_extra") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler behind that look. It raises :class:`Unauthorized` or :class:`LimitReached`.

        Before the body is read, so that nobody without a key can make us read one.
        """
        handle = super().get_route_handler()

        async def handle_keyed(request: Request) -> Response:
            services = request.app.state.services
            authorization = request.headers.get("authorization")
            if services.settings.limit_requests_per_s <= 0 and services.authenticator.knows(authorization):
                request.state.tenant = services.authenticator.tenant(authorization)
            else:
                request.state.tenant = await run_in_threadpool(_admitted, services, authorization)
            self.check(request)
            return await handle(request)

        return handle_keyed

    def check(self, request: Request) -> None:
        """What a kind of route asks besides of the request's headers."""


def _admitted(services: Services, authorization: str | None) -> str:
    tenant = services.authenticator.tenant(authorization)
    check_rate(services.live_state, tenant, services.settings.limit_requests_per_s)
    return tenant


async def _tenant(request: Request) -> str:
    # Set by KeyedRoute; on another route this fails rather than let somebody in.
    return request.state.tenant


TenantDep = Annotated[str, Depends(_tenant)]


JobId = Annotated[str, Path(description="A job's id.", examples=["j7ybr17pesw6kn47yb0"])]


def _own_job(job: JobId, tenant: TenantDep, services: ServicesDep) -> JobSpec:
    return services.repository.read_spec(job, tenant=tenant)


OwnJob = Annotated[JobSpec, Depends(_own_job)]
"""The spec of the path's ``job``. A job of another tenant is answered 404, as one that does not exist is."""


@dataclass(frozen=True)
class JobLook:
    """A look at the path's ``job``, for an endpoint that does nothing else."""

    job: str
    tenant: str
    services: Services

    async def at(self, see: Callable[[Services, JobSpec], Seen]) -> Seen:
        """What ``see`` makes of the job's spec, which is read in the same go. Raises what :data:`OwnJob` does."""
        return await self.services.look_up(lambda: see(self.services, _own_job(self.job, self.tenant, self.services)))


async def _job_look(job: JobId, request: Request) -> JobLook:
    return JobLook(job, await _tenant(request), request.app.state.services)


LookAtOwnJob = Annotated[JobLook, Depends(_job_look)]
"""As :data:`OwnJob`, but looked at only when the endpoint says what it wants of it, away from the event loop."""


IdempotencyKey = Annotated[
    str | None,
    Header(
        json_schema_extra={"minLength": 1, "maxLength": MAX_KEY_CHARS, "pattern": "^[!-~]+$"},
        description="1 to 255 visible ASCII characters, a UUID say. The same key with the same body always stands for the same "
        "answer; with another body it is refused.",
    ),
]


def own_run(services: Services, tenant: str, run: str, kind: RunKind) -> RunSpec:
    """The tenant's run of that id and kind. One of another tenant is answered 404, as one that does not exist is."""
    return services.runs.read_spec(run, tenant=tenant, kind=kind)


def stand(services: Services, spec: RunSpec) -> RunProgress:
    """Where the run stands."""
    return run_progress(services.runs, services.live_state, spec)


def runs_page(
    services: Services, tenant: str, kind: RunKind, *, cursor: str | None, limit: int
) -> tuple[list[tuple[RunSpec, RunProgress]], str | None]:
    """The tenant's runs of a kind after ``cursor``, newest first, each with where it stands; and the next page's
    cursor.

    Raises :class:`InvalidRequest` for a cursor that is none.
    """
    if cursor is not None and kind_of(cursor) is not kind:
        raise bad_cursor(cursor)
    found: list[tuple[RunSpec, RunProgress]] = []
    last: str | None = None

    def look(run: str) -> tuple[RunSpec, RunProgress] | None:
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
        f"cursor is {truncated_repr(cursor)}; take it from next_cursor of the page before, or leave it out",
        errors=[{"parameter": "cursor", "in": "query", "detail": "not a cursor"}],
    )
