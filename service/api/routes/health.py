"""``/healthz``, ``/readyz``, ``/metrics`` and ``/problems``: health, metrics and error types."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service import __version__
from service.api.errors import NoSuchPath, every_problem
from service.api.openapi import answers
from service.api.services import ServicesDep
from service.errors import NotReady

router = APIRouter(tags=["operation"])
_MAX_CHECK_S = 10.0


@router.get("/healthz", summary="Liveness")
async def health() -> dict[str, str]:
    """Answers as long as the process runs; checks nothing else."""
    return {"status": "ok", "version": __version__}


@router.get("/readyz", summary="Readiness", responses=answers(503))
async def readiness(services: ServicesDep) -> dict[str, Any]:
    """Checks the object store and the broker. 503 names what fails, and why. An answer may be a second old."""
    try:
        checks = await services.readiness.get(_MAX_CHECK_S)
    except TimeoutError:
        raise NotReady(f"the store or the broker has not answered for {_MAX_CHECK_S:g} s") from None
    failing = [f"{part}: {outcome}" for part, outcome in checks.items() if outcome != "ok"]
    if failing:
        raise NotReady("; ".join(failing), checks=checks)
    return {"status": "ready", "checks": checks}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(services: ServicesDep) -> Response:
    """Prometheus' text format. An answer may be a second old."""
    return Response(await services.metrics_text.get(_MAX_CHECK_S), media_type=CONTENT_TYPE_LATEST)


@router.get("/problems/{slug}", summary="Get a problem type", responses=answers(404))
async def problem_type(slug: str) -> dict[str, Any]:
    """The meaning of the ``type`` of an error."""
    for kind in every_problem():
        if kind.slug == slug:
            return {"slug": slug, "title": kind.title, "status": kind.status, "description": kind.__doc__}
    raise NoSuchPath(f"there is no problem type {slug[:80]!r}; the type member of an error names one")
