"""``/jobs/{job}/repair``: damaged and missing twins of an ended job made again, by a worker."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from service.api.auth import KeyedRoute
from service.api.openapi import answers
from service.api.own_jobs import OwnJob
from service.api.schemas.repairs import RepairView, repair_view
from service.api.services import Services, ServicesDep
from service.errors import JobStateConflict
from service.jobs.spec import JobSpec
from service.registry.uses import add_use

router = APIRouter(route_class=KeyedRoute, tags=["jobs"])


@router.post(
    "/jobs/{job}/repair",
    status_code=202,
    response_model=RepairView,
    summary="Repair a job's stored twins",
    responses={
        202: {
            "description": "The repair, requested now, or before and not done yet.",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "Its path."}},
        },
        **answers(404, 409, 503),
    },
)
def repair_job(spec: OwnJob, response: Response, services: ServicesDep) -> RepairView:
    """Has a worker compare every stored file of an ended job with its recorded sha256, and make damaged and missing
    twins again, with the same indices and seeds. Links, archive, manifest and exports of the job then work again. On a
    machine that gives other bytes, records and manifest say so for each twin. Twins that were never made are left to
    `POST /jobs/{job}/retry`. A repeated request returns the same repair until it is done, and then starts another."""
    if services.repository.read_summary(spec.job) is None:
        raise JobStateConflict(
            f"job {spec.job} has not ended, and its twins are still being stored; wait until it has ended, or cancel it"
        )
    services.catalogue.pinned(spec.model_key)
    add_use(services.store, spec.model_key, spec.job)
    request = services.repository.repairs.request(spec.job, datetime.now(UTC))
    response.headers["Location"] = services.path(f"/jobs/{spec.job}/repair")
    return repair_view(request)


@router.get(
    "/jobs/{job}/repair", response_model=RepairView, summary="Get a job's last repair", responses=answers(404, 409, 503)
)
def show_repair(spec: OwnJob, services: ServicesDep) -> RepairView:
    """The job's repair that is requested, or the last one that is done: how many twins were damaged or missing, and
    what became of them. Refused for a job that has had none."""
    return _last(services, spec)


def _last(services: Services, spec: JobSpec) -> RepairView:
    repairs = services.repository.repairs
    request, done = repairs.pending(spec.job), repairs.of_job(spec.job)
    if request is not None and not (done and done[-1].requested_at == request.requested_at):
        return repair_view(request)
    if not done:
        raise JobStateConflict(f"job {spec.job} has had no repair; request one with POST /jobs/{spec.job}/repair")
    return repair_view(done[-1])
