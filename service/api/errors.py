"""Every error as ``application/problem+json`` (RFC 9457): Twinset's, the framework's, and unexpected ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from service.errors import InvalidRequest, TwinsetError
from service.jobs.request import GenerateRequest
from service.kit.validation import closest_match, listed_faults, truncated_repr

PROBLEM_TYPE = "application/problem+json"
_log = logging.getLogger("twinset.api")


class MalformedBody(InvalidRequest):
    """A body that is not JSON."""

    status = 400
    slug = "malformed-body"
    title = "The body is not JSON"


class WrongContentType(TwinsetError):
    """A body of another type than the endpoint reads."""

    status = 415
    slug = "wrong-content-type"
    title = "The body has the wrong content type"


class NoSuchPath(TwinsetError):
    """A path without an endpoint."""

    status = 404
    slug = "no-such-path"
    title = "Nothing is served here"


class MethodNotAllowed(TwinsetError):
    """A path without an endpoint for this method."""

    status = 405
    slug = "method-not-allowed"
    title = "The path does not allow this method"


class RangeNotSatisfiable(TwinsetError):
    """A range outside of the object."""

    status = 416
    slug = "range-not-satisfiable"
    title = "The range lies outside of the object"


class RepeatedHeader(TwinsetError):
    """A header that came more than once and may come once: the next reader might take the other value."""

    status = 400
    slug = "repeated-header"
    title = "A header came more than once"


class ForeignOrigin(TwinsetError):
    """A request that changes something, sent by a browser for a page of another site."""

    status = 403
    slug = "foreign-origin"
    title = "A page of another site may not do this"


class UnknownHost(TwinsetError):
    """A request for a host that is not this service's, as a page sends it that had its name point here."""

    status = 421
    slug = "unknown-host"
    title = "This service does not have that name"


class BodyTimeout(TwinsetError):
    """A body that did not arrive in time."""

    status = 408
    slug = "body-timeout"
    title = "The body did not arrive in time"


class HeaderTooLarge(TwinsetError):
    """A header, or a path with its query, that is too large."""

    status = 431
    slug = "header-too-large"
    title = "The header is too large"


class TooBusy(TwinsetError):
    """A service that has as many connections, or holds as many bodies, as it can."""

    status = 503
    slug = "too-busy"
    title = "The service is too busy"
    headers = MappingProxyType({"Retry-After": "1"})


class InternalError(TwinsetError):
    """A fault of the service; the log has the details."""


def problem_response(error: TwinsetError, *, instance: str, headers: Mapping[str, str] | None = None) -> Response:
    """The response for ``error``. In ASCII, so that nothing a client sent can break its encoding."""
    body = json.dumps({**error.problem(), "instance": instance})
    return Response(body, status_code=error.status, media_type=PROBLEM_TYPE, headers=dict(headers or {}))


async def refuse(error: TwinsetError, scope: Scope, receive: Receive, send: Send, *, hang_up: bool = False) -> None:
    """Answers with ``error``, for a middleware. ``hang_up`` closes the connection, with the rest of the body unread."""
    scope["app"].state.services.metrics.refused.labels(error.slug).inc()
    close = {"Connection": "close"} if hang_up else {}
    response = problem_response(error, instance=scope["path"], headers={**error.headers, **close})
    await response(scope, receive, send)


def every_problem(root: type[TwinsetError] = TwinsetError) -> Iterator[type[TwinsetError]]:
    """``root`` and all its subclasses."""
    yield root
    for kind in root.__subclasses__():
        yield from every_problem(kind)


def install_problem_handlers(app: FastAPI) -> None:
    """Makes ``app`` answer every error with a problem document."""

    def answer(request: Request, error: TwinsetError, headers: Mapping[str, str] | None = None) -> Response:
        request.app.state.services.metrics.refused.labels(error.slug).inc()
        return problem_response(error, instance=request.url.path, headers=headers)

    @app.exception_handler(TwinsetError)
    async def on_twinset_error(request: Request, error: TwinsetError) -> Response:
        if error.status >= 500:
            _log.error("%s %s: %s", request.method, request.url.path, error.detail)
        return answer(request, error, error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, invalid_request(error.errors(), _body_of(request), error.body))

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            detail = f"{request.method} {truncated_repr(request.url.path)} is not served here; /docs lists what is"
            return answer(request, NoSuchPath(detail))
        if error.status_code == 405:
            allowed = ", ".join(_methods_of(request))
            detail = f"{truncated_repr(request.url.path)} does not allow {request.method}; it allows {allowed}"
            return answer(request, MethodNotAllowed(detail), {"Allow": allowed})
        if error.status_code == 400:
            return answer(request, MalformedBody(f"the body could not be read as JSON: {error.detail}; send an object"))
        other = TwinsetError(str(error.detail))
        body = json.dumps({**other.problem(), "status": error.status_code, "type": "about:blank"})
        return Response(body, error.status_code, headers=dict(error.headers or {}), media_type=PROBLEM_TYPE)

    @app.exception_handler(Exception)
    async def on_unexpected(request: Request, error: Exception) -> Response:
        # The server logs the traceback; the client learns nothing about the internals.
        return answer(
            request,
            InternalError("this is a fault of the service, not of the request; the service's log has the details"),
        )


def _methods_of(request: Request) -> list[str]:
    """The methods that any route allows for the request's path."""
    methods = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
    return [
        method
        for method in methods
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def _body_of(request: Request) -> type[BaseModel]:
    """The model of the request's body, whose members an error message may name."""
    body = getattr(request.scope.get("route"), "body_field", None)
    found = None if body is None else getattr(body.field_info, "annotation", None)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else GenerateRequest


def invalid_request(faults: Any, body: type[BaseModel] = GenerateRequest, given: Any = None) -> InvalidRequest:
    """Pydantic's ``faults`` of a body as one problem, each with its place, the value, and what it should be.

    ``given`` is the body as sent. For a member of a union type, pydantic's places contain the name of the type, which
    is not a place in the body.
    """
    errors = []
    for fault in faults:
        place, *path = fault["loc"]
        if fault["type"] == "json_invalid":
            where = f" at character {path[0]}" if path else ""
            reason = fault.get("ctx", {}).get("error", "")
            return MalformedBody(f"the body is not JSON{where} ({reason}); send one JSON object")
        if path[:1] in (["mask"], ["instances"]):
            path = path[:1]  # it may be any JSON, so the rest of pydantic's path is not a place in the body
        if place == "body" and given is not None:
            path = _path_in(given, path, missing=fault["type"] in ("missing", "extra_forbidden"))
        detail = _explained(fault, path, body)
        if place == "body":
            pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
            errors.append({"pointer": pointer, "detail": detail})
        else:
            errors.append({"parameter": ".".join(map(str, path)), "in": place, "detail": detail})
    # for a union type, a fault inside one of its types says more than "not of the other type"
    inner = {error["pointer"].rpartition("/")[0] for error in errors if error.get("pointer")}
    errors = listed_faults(
        [error for error in errors if error.get("pointer", "") not in inner or not error.get("pointer")]
    )
    return InvalidRequest("; ".join(error["detail"] for error in errors), errors=errors)


def _path_in(given: Any, path: list[Any], *, missing: bool) -> list[Any]:
    """The parts of a fault's ``path`` that are in the body; and the last part if that member is ``missing``."""
    found = []
    for number, part in enumerate(path):
        known = (
            part in given
            if isinstance(given, dict)
            else isinstance(given, list) and isinstance(part, int) and part < len(given)
        )
        if known:
            given = given[part]
        if known or (missing and number == len(path) - 1):
            found.append(part)
    return found


_WANTED = {
    "string_type": "give a string",
    "int_type": "give an integer",
    "int_parsing": "give an integer",
    "int_from_float": "give an integer",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "list_type": "give a list",
    "bool_type": "give true or false",
    "dict_type": "give an object",
    "model_type": "give an object",
    "model_attributes_type": "give an object",
}


def _explained(fault: Any, path: list[Any], body: type[BaseModel]) -> str:
    member = str(path[0]) if path else "the body"
    place = member + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path[1:])
    if fault["type"] == "missing":
        field = body.model_fields.get(member) if len(path) == 1 else None
        if not path:
            return "the body is empty; send one JSON object"
        return f"{place} is missing. {field.description if field else ''}".strip()
    if fault["type"] == "extra_forbidden":
        if len(path) > 1:
            return f"{truncated_repr(place)} is not allowed there; leave it out, or see /docs"
        near = closest_match(member, body.model_fields)
        meant = f"did you mean {near!r}? " if near else ""
        return f"{truncated_repr(member)} is not a member of the request; {meant}It has {', '.join(body.model_fields)}"
    if not path and fault["type"] in {"model_attributes_type", "model_type", "dict_type"}:
        return f"the body is {truncated_repr(fault['input'])}; send one JSON object"
    wanted = _WANTED.get(fault["type"], fault["msg"])
    return f"{place[:200]} is {truncated_repr(fault['input'])}: {wanted}"
