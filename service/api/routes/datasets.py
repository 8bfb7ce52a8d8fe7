"""``/datasets``: datasets taken in, checked, counted and kept by name and version."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.auth import IdempotencyKey, KeyedRoute, TenantDep, bad_cursor, stand
from service.api.errors import WrongContentType
from service.api.openapi import answers, read_body
from service.api.schemas.datasets import DatasetPage, DatasetView, dataset_view
from service.api.schemas.jobs import as_json
from service.api.services import Services, ServicesDep
from service.datasets.reading.report import ReadReport
from service.datasets.statistics_values import DatasetStatistics
from service.datasets.stored import layout
from service.datasets.stored.scratch import scratch_folder
from service.errors import InvalidKey, InvalidRequest, JobStateConflict, ObjectExists, ObjectNotFound
from service.jobs.submit import check_idempotency_key
from service.kit.run_kinds import RunKind
from service.kit.validation import truncated_repr
from service.runs.dataset_request import DatasetFromStore
from service.runs.dataset_versions import (
    DATASET_NAME_FORM,
    DatasetWork,
    ReadFormat,
    is_dataset_name,
)
from service.runs.spec import RunSpec
from service.store.keys import check_key

ARCHIVES = ("application/zip", "application/x-tar", "application/gzip")
_ALSO_ARCHIVES = frozenset(
    {*ARCHIVES, "application/x-zip-compressed", "application/x-gzip", "application/octet-stream"}
)
_WRITTEN_AT_ONCE = 1 << 20
_HOW = "send the archive itself as application/zip, application/x-tar or application/gzip, or JSON with name and prefix"


class DatasetRoute(KeyedRoute):
    """Takes an archive or JSON."""

    def check(self, request: Request) -> None:
        """Raises :class:`WrongContentType`."""
        sends = request.method == "POST" and request.url.path.endswith("/datasets")
        if sends and _kind(request) not in {*_ALSO_ARCHIVES, "application/json"}:
            given = request.headers.get("content-type")
            raise WrongContentType(f"Content-Type is {truncated_repr(given) if given else 'missing'}; {_HOW}")


router = APIRouter(route_class=DatasetRoute, tags=["datasets"])
Name = Annotated[str, Path(description="A dataset's name.", examples=["nuclei"])]
Version = Annotated[str, Path(description="Its version: 1, 2, ...", examples=["1"])]
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in ARCHIVES},
            "application/json": {
                "schema": {"$ref": "#/components/schemas/DatasetFromStore"},
                "example": {"name": "nuclei", "prefix": "stage1_train", "format": "folders"},
            },
        },
    }
}


@router.post(
    "/datasets",
    status_code=202,
    response_model=DatasetView,
    summary="Send a dataset",
    responses={
        202: {
            "description": "The dataset's new version, being taken in; or the one that its key stands for, as it is by now.",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "Its path."}},
        },
        **answers(400, 409, 413, 415, 422, 503),
    },
    openapi_extra=_BODY,
)
async def send_dataset(
    request: Request,
    services: ServicesDep,
    tenant: TenantDep,
    idempotency_key: IdempotencyKey = None,
    name: Annotated[str | None, Query(description=f"With an archive: the dataset's name, {DATASET_NAME_FORM}.")] = None,
    format: Annotated[
        ReadFormat | None, Query(description="With an archive: how it is laid out; found out where left out.")
    ] = None,
) -> Response:
    """Takes a new version of a dataset in: a zip, tar or tar.gz as the body, or the files under a prefix of the object
    store.

    Images with masks in folders (class indices, palette or colours with a class list), COCO, Pascal VOC, Cityscapes,
    YOLO-seg, WebDataset, Hugging Face, or twins. Every file is checked; what cannot be read is left out and reported.

    With an `Idempotency-Key`, however often it is sent, one version is made. An archive is the same request again if
    its bytes, compared by their sha256, its name and its format are; a prefix if the body is, whatever lies below it by
    then. Anything else is refused."""
    if idempotency_key is not None:
        # before gigabytes are read for one that is none
        check_idempotency_key(idempotency_key)
    if _kind(request) == "application/json":
        asked = read_body(DatasetFromStore, await request.body())
        _check_name(asked.name, "body")
        files = _Files(asked.model_dump(mode="json", exclude_unset=True), prefix=_import_key(tenant, asked.prefix))
        spec = await run_in_threadpool(_accept, services, tenant, asked.name, asked.format, files, idempotency_key)
    else:
        _check_name(name, "query")
        await run_in_threadpool(_check_room, services, tenant, idempotency_key)
        with scratch_folder(services.settings.data_dir) as scratch:
            archive = scratch / "archive"
            given = {
                "name": name,
                "archive": await _write(request.stream(), archive),
                **({"format": format} if format else {}),
            }
            spec = await run_in_threadpool(
                _accept, services, tenant, name or "", format, _Files(given, archive=archive), idempotency_key
            )
    view = await run_in_threadpool(_view, services, spec)
    return Response(
        as_json(view), status_code=202, headers={"Location": view.links["self"]}, media_type="application/json"
    )


@router.get("/datasets", response_model=DatasetPage, summary="List datasets", responses=answers(422, 503))
def list_datasets(
    services: ServicesDep,
    tenant: TenantDep,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Most datasets in the answer.")] = 20,
) -> DatasetPage:
    """Datasets by name, each with its newest version."""
    if cursor is not None and not is_dataset_name(cursor):
        raise bad_cursor(cursor)
    datasets = services.datasets(tenant)
    views: list[DatasetView] = []
    last: str | None = None
    for name in datasets.names(start_after=cursor):
        if len(views) == limit:
            return DatasetPage(datasets=views, next_cursor=last)
        last = name
        spec = datasets.latest(name)
        if spec is not None:
            views.append(_view(services, spec))
    return DatasetPage(datasets=views, next_cursor=None)


@router.get("/datasets/{name}", response_model=DatasetView, summary="Look at a dataset", responses=answers(404, 503))
def show_dataset(name: Name, services: ServicesDep, tenant: TenantDep) -> DatasetView:
    """Its newest version."""
    return _view(services, services.datasets(tenant).find(name))


@router.get(
    "/datasets/{name}/{version}", response_model=DatasetView, summary="Look at a version", responses=answers(404, 503)
)
def show_version(name: Name, version: Version, services: ServicesDep, tenant: TenantDep) -> DatasetView:
    """A version of it: these never change."""
    return _view(services, services.datasets(tenant).find(name, version))


@router.get(
    "/datasets/{name}/{version}/report",
    response_model=ReadReport,
    summary="What was wrong with it",
    responses=answers(404, 409, 503),
)
def show_report(name: Name, version: Version, services: ServicesDep, tenant: TenantDep) -> Response:
    """Files that were left out and why, and what is odd about others; of each fault the count and the first files."""
    return _stored(services, services.datasets(tenant).find(name, version), "report")


@router.get(
    "/datasets/{name}/{version}/statistics",
    response_model=DatasetStatistics,
    summary="What is in it",
    responses=answers(404, 409, 503),
)
def show_statistics(name: Name, version: Version, services: ServicesDep, tenant: TenantDep) -> Response:
    """How often each class occurs, which ones together, how large and where."""
    return _stored(services, services.datasets(tenant).find(name, version), "statistics")


@router.post(
    "/datasets/{name}/{version}/cancel",
    response_model=DatasetView,
    summary="Stop taking it in",
    responses=answers(404, 409, 503),
)
def cancel_dataset(name: Name, version: Version, services: ServicesDep, tenant: TenantDep) -> DatasetView:
    """Asking again changes nothing; a version that has ended otherwise is refused."""
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
    """Deletes a version with all its files; nothing brings it back, and its number is not given again."""
    services.runs.delete(services.datasets(tenant).find(name, version))
    return Response(status_code=204)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_name(name: str | None, where: str) -> None:
    if name is None or not is_dataset_name(name):
        detail = f"name is {truncated_repr(name)}; it must be {DATASET_NAME_FORM}"
        fault = {"parameter": "name", "in": "query"} if where == "query" else {"pointer": "/name"}
        raise InvalidRequest(detail, errors=[{**fault, "detail": detail}])


async def _write(pieces: AsyncIterator[bytes], path: FilePath) -> str:
    """Writes the body to disk as it comes, a megabyte at a time; its sha256."""
    waiting = bytearray()
    digest = hashlib.sha256()
    with open(path, "wb") as out:

        def write(data: bytes) -> None:
            digest.update(data)
            out.write(data)

        async for piece in pieces:
            waiting += piece
            if len(waiting) >= _WRITTEN_AT_ONCE:
                await run_in_threadpool(write, bytes(waiting))
                waiting.clear()
        write(bytes(waiting))
    if not path.stat().st_size:
        raise InvalidRequest(f"the body is empty; {_HOW}", errors=[{"pointer": "", "detail": "empty"}])
    return digest.hexdigest()


@dataclass(frozen=True)
class _Files:
    """Where a dataset's files are, below ``prefix`` in the store or in ``archive`` on this disk, and the request that
    gave them."""

    given: dict[str, Any]
    prefix: str | None = None
    archive: FilePath | None = None


def _check_room(services: Services, tenant: str, idempotency_key: str | None) -> None:
    """Raises :class:`LimitReached` for a tenant that may store no more, before an archive is read; one that came before
    takes no more."""
    if idempotency_key is None or not services.acceptance.knows(RunKind.DATASET, tenant, idempotency_key):
        services.limits.check_stored(tenant)


def _accept(
    services: Services, tenant: str, name: str, read_as: ReadFormat | None, files: _Files, idempotency_key: str | None
) -> RunSpec:
    """The run that takes the dataset in: first its files are in the store, then its version is given, then it
    exists."""

    def make(run: str, idempotency: str | None) -> RunSpec:
        services.limits.check_stored(tenant)
        return RunSpec(run=run, tenant=tenant, created_at=datetime.now(UTC), work={}, idempotency=idempotency)

    def keep(run: str) -> None:
        if files.archive is not None:
            # there already, it is the same: the key says so
            with suppress(ObjectExists):
                services.store.put_file(layout.archive(run), files.archive, if_absent=True)

    def numbered(spec: RunSpec) -> RunSpec:
        version = services.datasets(tenant).take_version(name, spec.run)
        work = DatasetWork(name=name, version=version, prefix=files.prefix, read_as=read_as)
        return spec.model_copy(update={"name": work.id, "work": work.model_dump(mode="json")})

    spec, made = services.acceptance.accept(
        RunKind.DATASET, tenant, files.given, make, before=keep, complete=numbered, idempotency_key=idempotency_key
    )
    if not made and services.runs.read_summary(spec.run) is not None:
        # put there by the slower of two with one key, when the other's had been read already
        services.store.delete(layout.archive(spec.run))
    return spec


def _import_key(tenant: str, prefix: str) -> str:
    """What the keys of the files begin with: always below the tenant's own folder."""
    try:
        return check_key(f"imports/{tenant}/{prefix.rstrip('/')}") + "/"
    except InvalidKey as error:
        detail = f"prefix is {truncated_repr(prefix)}: {error.detail}"
        raise InvalidRequest(detail, errors=[{"pointer": "/prefix", "detail": detail}]) from None


def _view(services: Services, spec: RunSpec) -> DatasetView:
    return dataset_view(services, spec, stand(services, spec))


def _stored(services: Services, spec: RunSpec, what: str) -> Response:
    """A JSON object of the dataset's. Raises :class:`JobStateConflict` while there is none."""
    key = layout.report(spec.run) if what == "report" else layout.statistics(spec.run)
    try:
        data = services.store.get(key)
    except ObjectNotFound:
        state = stand(services, spec).state
        detail = f"dataset {spec.name} has no {what}: it is {state.value}; it gets one when it has been read to its end"
        raise JobStateConflict(detail, state=state.value) from None
    return Response(data, media_type="application/json")
