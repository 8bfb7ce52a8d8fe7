"""``POST /generate``: creates a job."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Response
from starlette.concurrency import run_in_threadpool

from service.api.auth import TenantDep
from service.api.content_type import JsonRoute
from service.api.openapi import answers
from service.api.parameters import IdempotencyKey
from service.api.routes import callbacks
from service.api.schemas.jobs import JobView, as_json, job_view
from service.api.services import ServicesDep
from service.jobs.progress import Progress, accepted
from service.jobs.request import GenerateRequest
from service.jobs.spec import JobSpec

router = APIRouter(route_class=JsonRoute, tags=["jobs"])


@router.post(
    "/generate",
    status_code=202,
    response_model=JobView,
    summary="Generate twins",
    callbacks=callbacks.router.routes,
    responses={
        200: {"model": JobView, "description": "With `Prefer: wait`: the job, ended."},
        202: {
            "description": "The job, accepted: its spec is in the object store, and no failure of queue or workers "
            "loses it.",
            "headers": {
                "Location": {"schema": {"type": "string"}, "description": "The job's path."},
                "Preference-Applied": {"schema": {"type": "string"}, "description": "`wait=N`, if it was applied."},
            },
        },
        **answers(400, 404, 409, 413, 415, 422, 503),
    },
)
async def generate(
    body: GenerateRequest,
    services: ServicesDep,
    tenant: TenantDep,
    idempotency_key: IdempotencyKey = None,
    prefer: Annotated[
        str | None, Header(description="`wait=N` delays the answer up to N seconds until the job has ended.")
    ] = None,
) -> Response:
    """Checks the request against the model's card, stores its masks and the job's spec, and sends the first chunks to
    the workers."""
    given = body.model_dump(mode="json", exclude_unset=True)

    def submit() -> tuple[JobSpec, Progress]:
        spec, made = services.submitter.submit(body, tenant=tenant, body=given, idempotency_key=idempotency_key)
        if not made:
            return spec, services.progress.read(spec)
        services.metrics.jobs.labels(spec.model_key).inc()
        services.metrics.twins.labels(spec.model_key).inc(spec.count)
        return spec, accepted(spec)

    spec, progress = await run_in_threadpool(submit)
    headers = {}
    wait_s = preferred_wait_s(prefer, max_s=services.settings.max_wait_s)
    if wait_s is not None and services.streams.full(tenant):
        wait_s = None  # the job is accepted all the same; a preference need not be followed
    if wait_s is not None:
        with services.streams.hold(tenant):
            progress = await services.watcher.until_ended(
                spec.job, lambda: services.progress.read(spec), timeout_s=wait_s
            )
        headers["Preference-Applied"] = f"wait={wait_s:g}"
    view = job_view(spec, progress, prefix=services.path(""))
    headers["Location"] = view.links["self"]
    status = 200 if wait_s is not None and progress.state.ended else 202
    return Response(as_json(view), status_code=status, headers=headers, media_type="application/json")


_WAIT = re.compile(r"""^\s*wait\s*=\s*"?(\d{1,9})"?\s*(;.*)?$""", re.IGNORECASE)


def preferred_wait_s(header: str | None, *, max_s: float) -> float | None:
    """The seconds to delay the answer, at most ``max_s``; None if the header has no valid ``wait``.

    A preference that is not understood is ignored, as RFC 7240 requires.
    """
    for preference in (header or "").split(","):
        match = _WAIT.match(preference)
        if match:
            return min(float(match.group(1)), max_s)
    return None
