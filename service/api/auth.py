"""API keys: a route class that checks the key before the body is read, and the tenant that the key stands for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Message

from service.api.bodies import announced_bytes, read_json
from service.api.openapi import KEY_NEEDED, answers
from service.api.query import CheckedRoute
from service.api.services import Services
from service.auth.rate_limit import check_rate
from service.errors import Unauthorized


class KeyedRoute(CheckedRoute):
    """A route that needs an API key, where the service needs keys at all, and that obeys the tenant's rate limit."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["responses"] = {**answers(401, 429), **(options.get("responses") or {})}
        options["openapi_extra"] = {**KEY_NEEDED, **(options.get("openapi_extra") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler behind these checks. Raises :class:`Unauthorized` or :class:`LimitReached`.

        They come before the body is read: a client without a key cannot make the service read one.
        """
        handle = super().get_route_handler()

        async def handle_keyed(request: Request) -> Response:
            services: Services = request.app.state.services
            authorization = request.headers.get("authorization")
            try:
                if services.settings.limit_requests_per_s <= 0 and services.authenticator.knows(authorization):
                    request.state.tenant = services.authenticator.tenant(authorization)
                else:
                    request.state.tenant = await run_in_threadpool(_admitted, services, authorization)
            except Unauthorized:
                await services.wrong_keys.wait()
                raise
            self.check(request)
            kind = self.body_type(request)
            if kind is None:
                return await handle(request)
            async with services.bodies.reserve(request.state.tenant, announced_bytes(request)):
                return await self._handle_body(request, kind, handle)

        return handle_keyed

    async def _handle_body(
        self, request: Request, kind: str, handle: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if kind != "application/json":
            return await handle(request)
        body = await read_json(request)

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        return await handle(Request(request.scope, receive))

    def check(self, request: Request) -> None:
        """A hook for further checks of the request's headers, before the body is read."""

    def body_type(self, request: Request) -> str | None:
        """The content type of a body that this route holds in memory; None if it holds none."""
        return None


def _admitted(services: Services, authorization: str | None) -> str:
    tenant = services.authenticator.tenant(authorization)
    check_rate(services.live_state, tenant, services.settings.limit_requests_per_s)
    return tenant


async def _tenant(request: Request) -> str:
    # Set by KeyedRoute; on another route this fails rather than let a request in without a tenant.
    tenant: str = request.state.tenant
    return tenant


def _key_id(request: Request) -> str | None:
    services: Services = request.app.state.services
    return services.authenticator.key_id(request.headers.get("authorization"))


TenantDep = Annotated[str, Depends(_tenant)]
KeyIdDep = Annotated[str | None, Depends(_key_id)]
"""The id of the API key that an admitted request came with; None where none is needed."""
