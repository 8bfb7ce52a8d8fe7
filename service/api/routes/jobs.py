"""``/jobs`` and ``/jobs/{job}``: jobs listed, shown, cancelled, deleted and retried."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from service.api.auth import KeyedRoute, TenantDep
from service.api.openapi import answers
from service.api.own_jobs import JobId, LazyOwnJob, OwnJob, delete_unreadable_job, own_job
from service.api.parameters import Cursor, bad_cursor
from service.api.schemas.jobs import (
    JobPage,
    JobView,
    as_json,
    job_view,
)
from service.api.schemas.unreadable import MAX_READ_PER_PAGE, UnreadableView, unreadable_view
from service.api.services import Services, ServicesDep
from service.errors import RecordUnreadable, UnknownJob
from service.jobs.cancel import cancel
from service.jobs.retry import Retries
from service.jobs.spec import JobSpec
from service.kit.ids import is_job_id
from service.kit.prefetch import prefetch
from service.kit.states import JobState

router = APIRouter(route_class=KeyedRoute, tags=["jobs"])


@router.get("/jobs", response_model=JobPage, summary="List jobs", responses=answers(422, 503))
def list_jobs(
    services: ServicesDep,
    tenant: TenantDep,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of jobs in the answer.")] = 20,
) -> JobPage:
    """Jobs, newest first. With `state` a page may be short, since only so many jobs are read: follow the cursor. Jobs
    whose records cannot be read are listed in `unreadable`, without `state` alone."""
    if cursor is not None and not is_job_id(cursor):
        raise bad_cursor(cursor)
    views: list[JobView] = []
    unreadable: list[UnreadableView] = []
    last: str | None = None
    read_count = 0
    more = False
    jobs = services.repository.usage.jobs(tenant, start_after=cursor)
    with closing(prefetch(lambda job: _view_if_own(services, job, tenant), jobs)) as found:
        for job, view in found:
            if len(views) + len(unreadable) == limit or read_count == MAX_READ_PER_PAGE:
                more = True
                break
            last = job
            read_count += 1
            if isinstance(view, UnreadableView):
                if state is None:
                    unreadable.append(view)
            elif view is not None and state in (None, view.state):
                views.append(view)
    return JobPage(jobs=views, unreadable=unreadable, next_cursor=last if more else None)


@router.get("/jobs/{job}", response_model=JobView, summary="Get a job", responses=answers(404, 503))
async def show_job(job: LazyOwnJob) -> Response:
    """The job's progress, computed from the object store, and its parameters."""
    spec, progress = await job.read(lambda services, spec: (spec, services.progress.look(spec)))
    if not progress.state.ended:
        progress = progress.with_live_state(*await job.services.live_state.read_job_async(spec.job))
    return Response(as_json(job_view(spec, progress, prefix=job.services.path(""))), media_type="application/json")


_CANCELLED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The job is cancelled."},
    202: {"model": JobView, "description": "The job is being cancelled; samples in progress will be dropped."},
}


@router.post(
    "/jobs/{job}/cancel",
    response_model=JobView,
    summary="Cancel a job",
    responses={**_CANCELLED, **answers(404, 409, 503)},
)
def cancel_job(spec: OwnJob, response: Response, services: ServicesDep) -> JobView:
    """Cancels the job. Twins made before stay. Repeating it changes nothing; a job that has ended otherwise is
    refused."""
    cancel(spec, services.repository, services.live_state)
    view = _view(services, spec)
    response.status_code = 200 if view.state.ended else 202
    return view


@router.delete(
    "/jobs/{job}",
    response_model=JobView,
    summary="Delete a job, or cancel it",
    responses={
        **_CANCELLED,
        204: {
            "description": "The job had ended, and is deleted: it no longer exists, and its objects are being removed."
        },
        **answers(404, 409, 503),
    },
)
def delete_job(job: JobId, tenant: TenantDep, response: Response, services: ServicesDep) -> JobView | Response:
    """Deletes a job that has ended, with its twins, masks and records; this cannot be undone. From the answer on it is
    unknown (404); its objects, and its links with them, are removed in the background. A job that has not ended is
    cancelled instead, and stays until it is deleted again; one whose records cannot be read is deleted at once. To
    cancel only, use `POST /jobs/{job}/cancel`."""
    try:
        spec = own_job(job, tenant, services)
        if services.repository.read_summary(job) is None:
            return cancel_job(spec, response, services)
        services.repository.deletions.enqueue(spec, "asked for")
    except RecordUnreadable:
        delete_unreadable_job(services, job, tenant)
    return Response(status_code=204)


@router.post(
    "/jobs/{job}/retry",
    status_code=202,
    response_model=JobView,
    summary="Retry a job's missing twins",
    responses={
        202: {
            "description": "The new job, accepted now or at the first such request; `retry_of` is the old one.",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "The new job's path."}},
        },
        **answers(404, 409, 422, 503),
    },
)
def retry_job(spec: OwnJob, response: Response, services: ServicesDep) -> JobView:
    """Creates a job for the samples that an ended one did not make: failed, or not reached before its cancel. They
    keep their indices and seeds, so the twins are those that the first job would have made. A repeated request gives
    the same new job; what that job leaves missing can be retried from it. Refused while the job has not ended, or if
    nothing is missing."""
    retry, made = Retries(services.submitter).retry(spec)
    if made:
        services.metrics.jobs.labels(retry.model).inc()
        services.metrics.twins.labels(retry.model).inc(retry.count)
    view = job_view(retry, services.progress.read(retry), prefix=services.path(""))
    response.headers["Location"] = view.links["self"]
    return view


def _view(services: Services, spec: JobSpec) -> JobView:
    return job_view(spec, services.progress.read(spec), prefix=services.path(""))


def _view_if_own(services: Services, job: str, tenant: str) -> JobView | UnreadableView | None:
    try:
        return _view(services, own_job(job, tenant, services))
    except UnknownJob:
        return None  # being deleted, or without a spec: no job was accepted under this id
    except RecordUnreadable as error:
        return unreadable_view(job, services.path(f"/jobs/{job}"), error)
