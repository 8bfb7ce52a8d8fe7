"""``POST /jobs/{id}/retry``: what is missing of a job, made in a new one."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.access import KeyedRoute, OwnJob, TenantDep
from service.api.openapi import answers
from service.api.services import ServicesDep
from service.api.views import JobView, job_view
from service.jobs.retry import Retries

router = APIRouter(route_class=KeyedRoute, tags=["jobs"])


@router.post(
    "/jobs/{job}/retry",
    status_code=202,
    response_model=JobView,
    summary="Make a job's missing twins again",
    responses={
        202: {
            "description": "The new job, accepted now or when this was first asked; `retry_of` is the old one.",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "The new job's path."}},
        },
        **answers(404, 409, 422, 503),
    },
)
def retry_job(spec: OwnJob, response: Response, services: ServicesDep, tenant: TenantDep) -> JobView:
    """A new job with the samples that an ended one did not make: given up, or not come to before it was cancelled. They
    keep their indices and seeds, so the twins are those that the first job would have made. Asked again, the answer is the
    same new job; what that leaves missing too is for a retry of its own. Refused while the job has not ended, or if nothing
    is missing of it."""
    retry, made = Retries(services.submissions.of(tenant)).retry(spec)
    if made:
        services.metrics.jobs.labels(retry.model).inc()
        services.metrics.twins.labels(retry.model).inc(retry.count)
    view = job_view(retry, services.progress.read(retry), prefix=services.path(""))
    response.headers["Location"] = view.links["self"]
    return view
