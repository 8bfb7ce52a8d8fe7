"""The OpenAPI description: what each endpoint may answer, with errors in the form they really have."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.schemas.jobs import Problem

_PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}

KEY_NEEDED: dict[str, Any] = {"security": [{"api_key": []}]}
"""The description of an operation that needs an API key."""

_KEY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "tws_{id}_{secret}",
    "description": "An API key, created by 'twinset keys create'. It stands for a tenant, and sees only "
    "that tenant's jobs, runs and uploads. A server that listens on loopback and has no key in its store needs none. "
    "Signed links work without a key until they expire.",
}

_ERRORS: dict[int, tuple[str, str, str]] = {
    400: ("malformed-body", "The body is not JSON", "the body is not JSON at character 10 (Expecting value); ..."),
    401: (
        "unauthorized",
        "A valid API key is needed",
        "the request has no API key; send one as 'Authorization: Bearer tws_...'",
    ),
    403: ("link-expired", "The link has expired", "the link has expired; ask the job for a new one"),
    404: ("unknown-job", "No such job", "job 'j7ybr17pesw6kn47yb0' does not exist; GET /jobs lists those that do"),
    409: (
        "job-state-conflict",
        "The job's state does not allow this",
        "job j7ybr17pesw6kn47yb0 has ended as succeeded",
    ),
    413: (
        "body-too-large",
        "The request body is too large",
        "the body has 20000000 bytes; at most 16777216 are allowed",
    ),
    415: ("wrong-content-type", "The body has the wrong content type", 'Content-Type is "text/plain"; send JSON'),
    416: ("range-not-satisfiable", "The range lies outside of the object", "bytes=900- of 800 bytes; ask for less"),
    422: (
        "unknown-class",
        "The model knows no such class",
        "classes is \"watr\": cosimgen-dubai@1.2.0 has no such class; did you mean 'water'? It has building, water",
    ),
    429: (
        "limit-reached",
        "A limit of the tenant is reached",
        "tenant 'acme' has 960 samples in unfinished jobs, and 100 more are over its limit of 1000; ...",
    ),
    503: (
        "store-unavailable",
        "The object store is not available",
        "the object store does not answer; try again later",
    ),
}


_DESCRIPTIONS = {
    404: "A resource that the request names does not exist",
    409: "The state of the resource does not allow this",
    422: "The request is not valid; `detail` says why, and `errors` where",
}
"""Descriptions of statuses that several problems have; the example is one of them."""

_ERROR_HEADERS: dict[int, dict[str, Any]] = {
    401: {"headers": {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "`Bearer`."}}},
    429: {
        "headers": {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait before the next try."}
        }
    },
}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of an endpoint that may answer with these statuses."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        slug, title, detail = _ERRORS[status]
        example = {"type": f"/problems/{slug}", "title": title, "status": status, "detail": detail, "instance": "/..."}
        content = {"application/problem+json": {"schema": _PROBLEM_SCHEMA, "example": example}}
        described[status] = {
            "description": _DESCRIPTIONS.get(status, title),
            "content": content,
            **_ERROR_HEADERS.get(status, {}),
        }
    return described


def install_openapi(app: FastAPI, *, prefix: str = "") -> None:
    """Gives ``app`` its OpenAPI description, built at the first request for it.

    ``prefix`` is the path at which clients find the API, where a proxy adds one.
    """

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                servers=[{"url": prefix}] if prefix else None,
            )
            components = description.setdefault("components", {})
            components["securitySchemes"] = {"api_key": _KEY_SCHEME}
            schemas = components.setdefault("schemas", {})
            _drop_framework_errors(description["paths"], schemas)
            schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _drop_framework_errors(paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Removes the 422 that FastAPI adds to endpoints with parameters: no endpoint answers in that form."""
    for methods in paths.values():
        for operation in methods.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
