"""The OpenAPI description: what each endpoint may answer, errors included, as it really answers them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.schemas.jobs import Problem

_PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}

KEY_NEEDED: dict[str, Any] = {"security": [{"api_key": []}]}
"""What an operation says of itself that an API key opens."""

_KEY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "tws_{id}_{secret}",
    "description": "An API key, as 'twinset keys create' makes it. It stands for a tenant, and jobs and uploads are a "
    "tenant's own. A server without any key in its store, which listens on loopback only, asks for none. Signed links work "
    "without a key, for whoever has them, until they expire.",
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
    413: ("body-too-large", "The request body is too large", "the body has 20000000 bytes; at most 16777216 are read"),
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
        "tenant 'acme' has 960 samples in jobs that have not ended, and 100 more are over the 1000 it may have at once; ...",
    ),
    503: (
        "store-unavailable",
        "The object store is not available",
        "the object store does not answer; try again later",
    ),
}


_WORDS = {
    404: "Something that the request names does not exist",
    409: "The state of what the request names does not allow this",
    422: "The request is not valid; `detail` says why, and `errors` where",
}
"""What is said of a status that several problems have; its example is one of them."""

_ERROR_HEADERS: dict[int, dict[str, Any]] = {
    401: {"headers": {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "`Bearer`."}}},
    429: {
        "headers": {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds until it is worth another try."}
        }
    },
}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of an endpoint that may answer with these errors."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        slug, title, detail = _ERRORS[status]
        example = {"type": f"/problems/{slug}", "title": title, "status": status, "detail": detail, "instance": "/..."}
        content = {"application/problem+json": {"schema": _PROBLEM_SCHEMA, "example": example}}
        described[status] = {
            "description": _WORDS.get(status, title),
            "content": content,
            **_ERROR_HEADERS.get(status, {}),
        }
    return described


def install_openapi(app: FastAPI) -> None:
    """Gives ``app`` its description, made at the first request for it."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
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
    """Takes out the 422 that FastAPI adds wherever an endpoint has a parameter: none answers in that form."""
    for methods in paths.values():
        for operation in methods.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
