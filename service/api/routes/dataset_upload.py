"""``POST /datasets``: imports a new version of a dataset, from an archive in the body or from the object store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from service.api.auth import KeyedRoute, TenantDep
from service.api.content_type import JSON, media_type
from service.api.errors import MalformedBody, WrongContentType, invalid_request
from service.api.openapi import answers
from service.api.own_runs import progress_of
from service.api.parameters import IdempotencyKey
from service.api.schemas.datasets import DatasetView, dataset_view
from service.api.schemas.jobs import as_json
from service.api.services import Services, ServicesDep
from service.datasets.splits import parse_split_map
from service.datasets.stored import layout
from service.datasets.stored.scratch import scratch_folder
from service.errors import InvalidKey, InvalidRequest, ObjectExists
from service.jobs import idempotency
from service.jobs.quotas import Room
from service.kit.run_kinds import RunKind
from service.kit.validation import truncated_repr
from service.runs.dataset_request import DatasetFromStore
from service.runs.dataset_versions import DATASET_NAME_FORM, DatasetWork, ReadFormat, is_dataset_name
from service.runs.spec import RunSpec
from service.store.keys import check_key

ARCHIVES = (
    "application/zip",
    "application/x-tar",
    "application/gzip",
    "application/x-bzip2",
    "application/x-xz",
)
_ALSO_ARCHIVES = frozenset(
    {*ARCHIVES, "application/x-zip-compressed", "application/x-gzip", "application/octet-stream"}
)
_WRITE_BYTES = 1 << 20
_HOW = f"send the archive itself as {', '.join(ARCHIVES[:-1])} or {ARCHIVES[-1]}, or JSON with name and prefix"


class DatasetRoute(KeyedRoute):
    """A route for an archive or JSON."""

    def check(self, request: Request) -> None:
        """Raises :class:`WrongContentType`."""
        if media_type(request.scope) not in {*_ALSO_ARCHIVES, JSON}:
            given = request.headers.get("content-type")
            raise WrongContentType(f"Content-Type is {truncated_repr(given) if given else 'missing'}; {_HOW}")

    def body_type(self, request: Request) -> str | None:
        """JSON is held in memory, an archive is not."""
        return JSON if media_type(request.scope) == JSON else None


router = APIRouter(route_class=DatasetRoute, tags=["datasets"])
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in ARCHIVES},
            "application/json": {
                "schema": DatasetFromStore.model_json_schema(),
                "example": {"name": "nuclei", "prefix": "stage1_train", "format": "folders"},
            },
        },
    }
}


@router.post(
    "/datasets",
    status_code=202,
    response_model=DatasetView,
    summary="Import a dataset",
    responses={
        202: {
            "description": "The new version; or that of an earlier request with the same key.",
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
    format: Annotated[ReadFormat | None, Query(description="With an archive: its format; detected if absent.")] = None,
    split_map: Annotated[
        str | None,
        Query(max_length=4000, description="With an archive: new names of its splits, as OLD=NEW,OLD=NEW."),
    ] = None,
) -> Response:
    """Imports a new version of a dataset: a zip, or a tar (also packed by gzip, bzip2 or xz), as the body, or the
    files under a prefix of the object store.

    Images with masks in folders (class indices, palette or colours with a class list), COCO, Pascal VOC, Cityscapes,
    YOLO-seg, WebDataset, Hugging Face, or twins. Every file is checked; what cannot be read is skipped and reported.

    With an `Idempotency-Key`, repeated requests create one version. An archive is the same request if the sha256 of its
    bytes, its name and its format are the same; a prefix if the body is the same, whatever lies under it by then.
    Another request under the same key is refused."""
    if idempotency_key is not None:
        # before gigabytes are read for a malformed key
        idempotency.check_key(idempotency_key)
    if media_type(request.scope) == JSON:
        _check_no_query({"name": name, "format": format, "split_map": split_map})
        asked = _read_json(await request.body())
        _check_name(asked.name, "body")
        files = _Files(
            asked.model_dump(mode="json", exclude_unset=True),
            split_map=asked.split_map,
            prefix=_import_key(tenant, asked.prefix),
        )
        spec = await run_in_threadpool(_accept, services, tenant, asked.name, asked.format, files, idempotency_key)
    else:
        _check_name(name, "query")
        renamed = _read_split_map(split_map)
        room = await run_in_threadpool(_room, services, tenant, idempotency_key)
        with services.transfers.hold(tenant), scratch_folder(services.settings.data_dir) as scratch:
            archive = scratch / "archive"
            given = {
                "name": name,
                "archive": await _write(request.stream(), archive, room),
                **({"format": format} if format else {}),
                **({"split_map": renamed} if renamed else {}),
            }
            spec = await run_in_threadpool(
                _accept, services, tenant, name or "", format, _Files(given, archive, renamed), idempotency_key
            )
    view = await run_in_threadpool(lambda: dataset_view(services, spec, progress_of(services, spec)))
    return Response(
        as_json(view), status_code=202, headers={"Location": view.links["self"]}, media_type="application/json"
    )


def _check_name(name: str | None, where: str) -> None:
    if name is None or not is_dataset_name(name):
        detail = f"name is {truncated_repr(name)}; it must be {DATASET_NAME_FORM}"
        fault = {"parameter": "name", "in": "query"} if where == "query" else {"pointer": "/name"}
        raise InvalidRequest(detail, errors=[{**fault, "detail": detail}])


def _check_no_query(given: dict[str, object]) -> None:
    errors = [
        {
            "parameter": each,
            "in": "query",
            "detail": f"{each} is given in the query; with JSON it is a member of the body",
        }
        for each, value in given.items()
        if value is not None
    ]
    if errors:
        raise InvalidRequest("; ".join(error["detail"] for error in errors), errors=errors)


def _read_split_map(text: str | None) -> dict[str, str]:
    try:
        return parse_split_map([] if text is None else text.split(","))
    except ValueError as error:
        detail = f"split_map: {error}"
        raise InvalidRequest(detail, errors=[{"parameter": "split_map", "in": "query", "detail": detail}]) from None


def _read_json(text: bytes) -> DatasetFromStore:
    """The body as JSON. Raises :class:`MalformedBody`, or InvalidRequest with all that is wrong with it.

    It is read here, not by FastAPI: a body that the endpoint declares is read into memory whole, an archive too.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise MalformedBody(f"the body is not JSON{where} ({str(error)[:100]}); send one JSON object") from None
    try:
        return DatasetFromStore.model_validate(given)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise invalid_request(faults, DatasetFromStore, given) from None


async def _write(pieces: AsyncIterator[bytes], path: Path, room: Room | None) -> str:
    """Writes the body to disk as it comes, a megabyte at a time; its sha256. Raises what ``room`` does."""
    waiting = bytearray()
    digest = hashlib.sha256()
    with open(path, "wb") as out:

        def write(data: bytes) -> None:
            if room is not None:
                room.take(len(data))
            digest.update(data)
            out.write(data)

        async for piece in pieces:
            waiting += piece
            if len(waiting) >= _WRITE_BYTES:
                await run_in_threadpool(write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(write, bytes(waiting))
    if not path.stat().st_size:
        raise InvalidRequest(f"the body is empty; {_HOW}", errors=[{"pointer": "", "detail": "empty"}])
    return digest.hexdigest()


@dataclass(frozen=True)
class _Files:
    """A dataset's files: under ``prefix`` in the store, or in ``archive`` on this disk; and the request as given."""

    given: dict[str, Any]
    archive: Path | None = None
    split_map: dict[str, str] = field(default_factory=dict)
    prefix: str | None = None


def _room(services: Services, tenant: str, idempotency_key: str | None) -> Room | None:
    """Room for the archive. Raises :class:`LimitReached` for a tenant over its limit, before the archive is read.

    None for a repeated request under the same key: it stores nothing more, so it is not limited.
    """
    if idempotency_key is not None and services.run_submitter.knows(
        RunKind.DATASET, tenant=tenant, key=idempotency_key
    ):
        return None
    services.limits.check_stored(tenant=tenant)
    return services.limits.room(tenant=tenant)


def _accept(
    services: Services, tenant: str, name: str, read_as: ReadFormat | None, files: _Files, idempotency_key: str | None
) -> RunSpec:
    """The run that takes the dataset in: first its files are in the store, then its version is given, then it
    exists."""
    submitter = services.run_submitter
    reservation = submitter.reserve(RunKind.DATASET, tenant=tenant, key=idempotency_key, body=files.given)
    spec, made = submitter.find(reservation), False
    if spec is None:
        services.limits.check_stored(tenant=tenant)
        reservation = reservation.bind()
        spec = submitter.find(reservation)
    if spec is None:
        if files.archive is not None:
            # Counted before it is there: an API that dies before the spec is written leaves nothing that no one counts.
            services.runs.announce(reservation.id, tenant, files.archive.stat().st_size)
            # If the archive is there already, it is the same: the key says so.
            with suppress(ObjectExists):
                services.store.put_file(layout.archive(reservation.id), files.archive, if_absent=True)
        version = services.datasets(tenant).take_version(name, reservation.id)
        work = DatasetWork(name=name, version=version, prefix=files.prefix, read_as=read_as, split_map=files.split_map)
        spec, made = submitter.submit(
            RunSpec(
                run=reservation.id,
                tenant=tenant,
                name=work.id,
                created_at=datetime.now(UTC),
                work=work.model_dump(mode="json"),
                idempotency=reservation.record,
            )
        )
    if not made and services.runs.read_summary(spec.run) is not None:
        # Two requests had one key, and the slower one stored the archive after the run had read the other's.
        services.store.delete(layout.archive(spec.run))
    return spec


def _import_key(tenant: str, prefix: str) -> str:
    """The prefix of the files' keys, always below the tenant's own folder."""
    try:
        return check_key(f"imports/{tenant}/{prefix.rstrip('/')}") + "/"
    except InvalidKey as error:
        detail = f"prefix is {truncated_repr(prefix)}: {error.detail}"
        raise InvalidRequest(detail, errors=[{"pointer": "/prefix", "detail": detail}]) from None
