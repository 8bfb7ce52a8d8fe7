"""``GET /datasets`` and ``/datasets/{name}/{version}``: datasets by name and version, their reports and statistics."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from service.api.auth import KeyedRoute, TenantDep
from service.api.openapi import answers
from service.api.own_runs import progress_of
from service.api.parameters import Cursor, bad_cursor
from service.api.schemas.datasets import DatasetPage, DatasetView, dataset_view
from service.api.schemas.unreadable import MAX_READ_PER_PAGE, UnreadableView, unreadable_view
from service.api.services import Services, ServicesDep
from service.datasets.reading.report import ReadReport
from service.datasets.statistics_values import DatasetStatistics
from service.datasets.stored import layout
from service.errors import JobStateConflict, ObjectNotFound, RecordUnreadable
from service.runs.dataset_versions import (
    is_dataset_name,
)
from service.runs.spec import RunSpec

router = APIRouter(route_class=KeyedRoute, tags=["datasets"])
Name = Annotated[str, Path(description="A dataset's name.", examples=["nuclei"])]
Version = Annotated[str, Path(description="Its version: 1, 2, ...", examples=["1"])]


@router.get("/datasets", response_model=DatasetPage, summary="List datasets", responses=answers(422, 503))
def list_datasets(
    services: ServicesDep,
    tenant: TenantDep,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of datasets in the answer.")] = 20,
) -> DatasetPage:
    """Datasets by name, each with its newest version."""
    if cursor is not None and not is_dataset_name(cursor):
        raise bad_cursor(cursor)
    datasets = services.datasets(tenant)
    views: list[DatasetView] = []
    unreadable: list[UnreadableView] = []
    last: str | None = None
    for number, name in enumerate(datasets.names(start_after=cursor)):
        if len(views) + len(unreadable) == limit or number == MAX_READ_PER_PAGE:
            return DatasetPage(datasets=views, unreadable=unreadable, next_cursor=last)
        last = name
        spec: RunSpec | None = None
        try:
            spec = datasets.latest(name)
            if spec is not None:
                views.append(_view(services, spec))
        except RecordUnreadable as error:
            dataset = error.extra.get("dataset") or f"{name}@{(spec.work if spec else {}).get('version')}"
            path = services.path(f"/datasets/{dataset.replace('@', '/')}")
            unreadable.append(unreadable_view(dataset, path, error))
    return DatasetPage(datasets=views, unreadable=unreadable, next_cursor=None)


@router.get("/datasets/{name}", response_model=DatasetView, summary="Get a dataset", responses=answers(404, 503))
def show_dataset(name: Name, services: ServicesDep, tenant: TenantDep) -> DatasetView:
    """The newest version of the dataset."""
    return _view(services, services.datasets(tenant).find(name))


@router.get(
    "/datasets/{name}/{version}",
    response_model=DatasetView,
    summary="Get a dataset version",
    responses=answers(404, 503),
)
def show_version(name: Name, version: Version, services: ServicesDep, tenant: TenantDep) -> DatasetView:
    """A version of the dataset. Versions never change."""
    return _view(services, services.datasets(tenant).find(name, version))


@router.get(
    "/datasets/{name}/{version}/report",
    response_model=ReadReport,
    summary="Get a dataset's report",
    responses=answers(404, 409, 503),
)
def show_report(name: Name, version: Version, services: ServicesDep, tenant: TenantDep) -> Response:
    """Files that were skipped and why, and warnings about others; for each kind the count and the first files."""
    return _stored(services, services.datasets(tenant).find(name, version), "report")


@router.get(
    "/datasets/{name}/{version}/statistics",
    response_model=DatasetStatistics,
    summary="Get a dataset's statistics",
    responses=answers(404, 409, 503),
)
def show_statistics(name: Name, version: Version, services: ServicesDep, tenant: TenantDep) -> Response:
    """How often each class occurs, which classes occur together, how large and where."""
    return _stored(services, services.datasets(tenant).find(name, version), "statistics")


@router.post(
    "/datasets/{name}/{version}/cancel",
    response_model=DatasetView,
    summary="Cancel an import",
    responses=answers(404, 409, 503),
)
def cancel_dataset(name: Name, version: Version, services: ServicesDep, tenant: TenantDep) -> DatasetView:
    """Cancels the import of a version. Repeating it changes nothing; a version that has ended otherwise is refused."""
    spec = services.datasets(tenant).find(name, version)
    services.runs.cancel(spec)
    return _view(services, spec)


@router.delete(
    "/datasets/{name}/{version}",
    status_code=204,
    summary="Delete a version",
    responses={204: {"description": "It no longer exists, and its objects are being removed."}, **answers(404, 503)},
)
def delete_dataset(name: Name, version: Version, services: ServicesDep, tenant: TenantDep) -> Response:
    """Deletes a version with all its files; this cannot be undone, and its number is not used again."""
    services.datasets(tenant).delete(name, version)
    return Response(status_code=204)


def _view(services: Services, spec: RunSpec) -> DatasetView:
    return dataset_view(services, spec, progress_of(services, spec))


def _stored(services: Services, spec: RunSpec, what: Literal["report", "statistics"]) -> Response:
    """A JSON object of the dataset's. Raises :class:`JobStateConflict` while there is none."""
    progress = progress_of(services, spec)
    result = progress.summary.result if progress.summary else None
    try:
        data = services.store.get(layout.object_key(spec.run, result, what))
    except ObjectNotFound:
        state = progress.state
        detail = f"dataset {spec.name} has no {what}: it is {state.value}; it gets one when the import has ended"
        raise JobStateConflict(detail, state=state.value) from None
    return Response(data, media_type="application/json")
