"""Routes that look at the API key before anything else, and what endpoints learn by it: the tenant, and its jobs alone.

An endpoint gets a job's spec by ``OwnJob`` or ``LookAtOwnJob`` and has no other way to one; so none can forget whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from service.access.rates import check_rate
from service.api.openapi import KEY_NEEDED, answers
from service.api.services import Services, ServicesDep
from service.jobs.spec import JobSpec

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
            if services.settings.limit_requests_per_s <= 0 and services.gate.knows(authorization):
                request.state.tenant = services.gate.tenant(authorization)
            else:
                request.state.tenant = await run_in_threadpool(_admitted, services, authorization)
            self.check(request)
            return await handle(request)

        return handle_keyed

    def check(self, request: Request) -> None:
        """What a kind of route asks besides of the request's headers."""


def _admitted(services: Services, authorization: str | None) -> str:
    tenant = services.gate.tenant(authorization)
    check_rate(services.hints, tenant, services.settings.limit_requests_per_s)
    return tenant


async def _tenant(request: Request) -> str:
    # Set by KeyedRoute; on another route this fails rather than let somebody in.
    return request.state.tenant


TenantDep = Annotated[str, Depends(_tenant)]


JobId = Annotated[str, Path(description="A job's id.", examples=["j7ybr17pesw6kn47yb0"])]


def _own_job(job: JobId, tenant: TenantDep, services: ServicesDep) -> JobSpec:
    return services.ledger.read_spec(job, tenant=tenant)


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
