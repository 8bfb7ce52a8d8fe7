"""Routes that look at the API key before anything else, and what endpoints learn by it: the tenant, and its jobs alone.

An endpoint gets a job's spec by ``OwnJob`` and has no other way to one; so none can forget whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from service.access.rates import check_rate
from service.api.openapi import KEY_NEEDED, answers
from service.api.services import ServicesDep
from service.jobs.spec import JobSpec

if TYPE_CHECKING:
    from service.api.services import Services


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
            request.state.tenant = await run_in_threadpool(_admitted, services, request.headers.get("authorization"))
            self.check(request)
            return await handle(request)

        return handle_keyed

    def check(self, request: Request) -> None:
        """What a kind of route asks besides of the request's headers."""


def _admitted(services: Services, authorization: str | None) -> str:
    tenant = services.gate.tenant(authorization)
    check_rate(services.hints, tenant, services.settings.limit_requests_per_s)
    return tenant


def _tenant(request: Request) -> str:
    # Set by KeyedRoute; on another route this fails rather than let somebody in.
    return request.state.tenant


TenantDep = Annotated[str, Depends(_tenant)]


def _own_job(
    job: Annotated[str, Path(description="A job's id.", examples=["j7ybr17pesw6kn47yb0"])],
    tenant: TenantDep,
    services: ServicesDep,
) -> JobSpec:
    return services.ledger.read_spec(job, tenant=tenant)


OwnJob = Annotated[JobSpec, Depends(_own_job)]
"""The spec of the path's ``job``. A job of another tenant is answered 404, as one that does not exist is."""
