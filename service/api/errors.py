"""Every error as ``application/problem+json`` (RFC 9457): ours, the framework's, and the ones nobody foresaw."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

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
    """A body of another kind than the endpoint reads."""

    status = 415
    slug = "wrong-content-type"
    title = "The body has the wrong content type"


class NoSuchPath(TwinsetError):
    """A path that is not served."""

    status = 404
    slug = "no-such-path"
    title = "Nothing is served here"


class MethodNotAllowed(TwinsetError):
    """A path that is served, but not by this method."""

    status = 405
    slug = "method-not-allowed"
    title = "The path does not know this method"


class RangeNotSatisfiable(TwinsetError):
    """A range that lies outside of the object."""

    status = 416
    slug = "range-not-satisfiable"
    title = "The range lies outside of the object"


class InternalError(TwinsetError):
    """A fault of ours; the log has the details."""


def problem_response(error: TwinsetError, *, instance: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer for ``error``. In ASCII, so that nothing a client sent can break its encoding."""
    body = json.dumps({**error.problem(), "instance": instance})
    return Response(body, status_code=error.status, media_type=PROBLEM_TYPE, headers=dict(headers or {}))


def every_problem(root: type[TwinsetError] = TwinsetError) -> Iterator[type[TwinsetError]]:
    """``root`` and every kind of error below it."""
    yield root
    for kind in root.__subclasses__():
        yield from every_problem(kind)


def install_problem_handlers(app: FastAPI) -> None:
    """Makes ``app`` answer every error as a problem."""

    def answer(request: Request, error: TwinsetError, headers: Mapping[str, str] | None = None) -> Response:
        request.app.state.services.metrics.refused.labels(error.slug).inc()
        return problem_response(error, instance=request.url.path, headers=headers)

    @app.exception_handler(TwinsetError)
    async def on_ours(request: Request, error: TwinsetError) -> Response:
        if error.status >= 500:
            _log.error("%s %s: %s", request.method, request.url.path, error.detail)
        return answer(request, error, error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, invalid_request(error.errors(), _body_of(request), error.body))

    @app.exception_handler(HTTPException)
    async def on_framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            detail = f"{request.method} {truncated_repr(request.url.path)} is not served here; /docs shows what is"
            return answer(request, NoSuchPath(detail))
        if error.status_code == 405:
            allowed = ", ".join(_methods_of(request))
            detail = f"{truncated_repr(request.url.path)} does not know {request.method}; it knows {allowed}"
            return answer(request, MethodNotAllowed(detail), {"Allow": allowed})
        if error.status_code == 400:
            return answer(request, MalformedBody(f"the body could not be read as JSON: {error.detail}; send an object"))
        other = TwinsetError(str(error.detail))
        body = json.dumps({**other.problem(), "status": error.status_code, "type": "about:blank"})
        return Response(body, error.status_code, headers=dict(error.headers or {}), media_type=PROBLEM_TYPE)

    @app.exception_handler(Exception)
    async def on_unforeseen(request: Request, error: Exception) -> Response:
        # The server logs the traceback itself; a client learns nothing of our insides.
        return answer(
            request, InternalError("this is a fault of ours, not of the request; the service's log tells more")
        )


def _methods_of(request: Request) -> list[str]:
    """The methods that the request's path knows, in whichever routes."""
    methods = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
    return [
        method
        for method in methods
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def _body_of(request: Request) -> type[BaseModel]:
    """The model of the request's body, whose members a message may name."""
    body = getattr(request.scope.get("route"), "body_field", None)
    found = None if body is None else getattr(body.field_info, "annotation", None)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else GenerateRequest


def invalid_request(faults: Any, body: type[BaseModel] = GenerateRequest, given: Any = None) -> InvalidRequest:
    """Pydantic's complaints about a ``body`` as one problem, each with where it is, the value, and what it should be.

    ``given`` is the body that came: of a member that may be of several kinds pydantic's places name the kind, too,
    which is no place in it.
    """
    errors = []
    for fault in faults:
        place, *path = fault["loc"]
        if fault["type"] == "json_invalid":
            where = f" at character {path[0]}" if path else ""
            reason = fault.get("ctx", {}).get("error", "")
            return MalformedBody(f"the body is not JSON{where} ({reason}); send one JSON object")
        if path[:1] == ["mask"]:
            path = path[:1]  # of any JSON, so what follows are pydantic's words and no place in the body
        if place == "body" and given is not None:
            path = _path_in(given, path, missing=fault["type"] in ("missing", "extra_forbidden"))
        detail = _explained(fault, path, body)
        if place == "body":
            pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
            errors.append({"pointer": pointer, "detail": detail})
        else:
            errors.append({"parameter": ".".join(map(str, path)), "in": place, "detail": detail})
    # of a member that may be of several kinds, what is wrong within one of them says more than that it is not of
    # another
    inner = {error["pointer"].rpartition("/")[0] for error in errors if error.get("pointer")}
    errors = listed_faults(
        [error for error in errors if error.get("pointer", "") not in inner or not error.get("pointer")]
    )
    return InvalidRequest("; ".join(error["detail"] for error in errors), errors=errors)


def _path_in(given: Any, path: list[Any], *, missing: bool) -> list[Any]:
    """The parts of a fault's ``path`` that lie in the body, and where a member is ``missing`` its last one, which does
    not."""
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
            return f"{truncated_repr(place)} is not known there; leave it out, or see /docs for what is"
        near = closest_match(member, body.model_fields)
        meant = f"did you mean {near!r}? " if near else ""
        return f"{truncated_repr(member)} is no member of the request; {meant}It has {', '.join(body.model_fields)}"
    if not path and fault["type"] in {"model_attributes_type", "model_type", "dict_type"}:
        return f"the body is {truncated_repr(fault['input'])}; send one JSON object"
    wanted = _WANTED.get(fault["type"], fault["msg"])
    return f"{place[:200]} is {truncated_repr(fault['input'])}: {wanted}"
