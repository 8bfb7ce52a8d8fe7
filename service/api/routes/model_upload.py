"""``POST /models`` and ``GET /models/{model}/archive``: a model as one tar, received and sent piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from service.api.auth import KeyedRoute, KeyIdDep, TenantDep
from service.api.content_type import media_type
from service.api.errors import WrongContentType
from service.api.openapi import answers
from service.api.routes.models import ModelRef
from service.api.schemas.jobs import as_json
from service.api.schemas.models import ModelView, model_view
from service.api.services import Services, ServicesDep
from service.api.slots import HeldStream
from service.datasets.stored.scratch import scratch_folder
from service.jobs.quotas import Room
from service.kit.validation import truncated_repr
from service.registry.archive_reading import ArchiveReader, ReceivedModel
from service.registry.model_files import model_archive
from service.registry.register import register
from service.registry.registration import Registration

TAR = "application/x-tar"
_TYPES = frozenset({TAR, "application/octet-stream"})
_WRITE_BYTES = 1 << 20


class ModelRoute(KeyedRoute):
    """A route for a tar, which is not held in memory."""

    def check(self, request: Request) -> None:
        """Raises :class:`WrongContentType`."""
        if media_type(request.scope) not in _TYPES:
            given = request.headers.get("content-type")
            raise WrongContentType(
                f"Content-Type is {truncated_repr(given) if given else 'missing'}; send the model's tar as {TAR}"
            )


router = APIRouter(route_class=KeyedRoute, tags=["models"])
posting = APIRouter(route_class=ModelRoute, tags=["models"])
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {TAR: {"schema": {"type": "string", "format": "binary"}}}}
}


@posting.post(
    "/models",
    status_code=201,
    response_model=ModelView,
    summary="Register a model",
    responses={
        200: {"model": ModelView, "description": "The version was registered before, with the same card and files."},
        201: {
            "description": "The model, registered.",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "Its path."}},
        },
        **answers(409, 413, 415, 422, 503),
    },
    openapi_extra=_BODY,
)
async def send_model(
    request: Request,
    services: ServicesDep,
    tenant: TenantDep,
    key_id: KeyIdDep,
    candidate: Annotated[
        bool, Query(description="Register a candidate, which the name alone does not choose until it is promoted.")
    ] = False,
) -> Response:
    """Registers a version of a model of yours from a tar of `card.json` and the `*.safetensors` that it names: what
    `GET /models/{model}/archive` gives, or `tar cf model.tar card.json model.safetensors`. Every file is checked by
    the card's sha256. A version never changes: sent again, the same model answers 200, another one 409. Anything but
    safetensors is refused, as are links, folders and compressed archives."""
    room = await run_in_threadpool(_room, services, tenant)
    with services.transfers.hold(tenant), scratch_folder(services.settings.data_dir) as scratch:
        reader = ArchiveReader(scratch, max_bytes=services.settings.max_model_bytes)
        with closing(reader):
            await _receive(request.stream(), reader, room)
            received = await run_in_threadpool(reader.finish)
        record, is_new = await run_in_threadpool(_register, services, tenant, received, candidate, key_id)
    view = await run_in_threadpool(_view, services, tenant, record)
    return Response(
        as_json(view),
        status_code=201 if is_new else 200,
        headers={"Location": services.path(f"/models/{view.id}")},
        media_type="application/json",
    )


@router.get(
    "/models/{model}/archive",
    summary="Download a model",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A tar of card.json, the weights and SHA256SUMS, which `POST /models` takes.",
            "content": {TAR: {"schema": {"type": "string", "format": "binary"}}},
        },
        **answers(404, 422, 503),
    },
)
def download_model(model: ModelRef, services: ServicesDep, tenant: TenantDep) -> StreamingResponse:
    """The model's card and weights. A damaged file aborts the download before its last bytes."""
    archive = model_archive(services.store, services.catalogue.find(model, tenant=tenant))
    return HeldStream(
        archive.pieces(),
        slots=services.transfers,
        tenant=tenant,
        media_type=TAR,
        headers={
            "Content-Disposition": f'attachment; filename="{archive.name}"',
            "Content-Length": str(archive.size),
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _receive(pieces: AsyncIterator[bytes], reader: ArchiveReader, room: Room) -> None:
    """Gives the body to the reader as it comes, a megabyte at a time. Raises what the reader and ``room`` do."""
    waiting = bytearray()

    def read(data: bytes) -> None:
        room.take(len(data))
        reader.feed(data)

    async for piece in pieces:
        waiting += piece
        if len(waiting) >= _WRITE_BYTES:
            await run_in_threadpool(read, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(read, bytes(waiting))


def _room(services: Services, tenant: str) -> Room:
    """Room for the model. Raises :class:`LimitReached` for a tenant over its limit, before the archive is read."""
    services.limits.check_stored(tenant=tenant)
    return services.limits.room(tenant=tenant)


def _register(
    services: Services, tenant: str, received: ReceivedModel, candidate: bool, key_id: str | None
) -> tuple[Registration, bool]:
    record, is_new = register(
        services.store, received.card, received.files, tenant=tenant, candidate=candidate, by=key_id
    )
    services.catalogue.expire(tenant)
    if is_new:
        services.limits.stored(tenant=tenant, size=record.bytes)
    return record, is_new


def _view(services: Services, tenant: str, record: Registration) -> ModelView:
    entry = services.catalogue.find(record.model, tenant=tenant)
    return model_view(entry, services.catalogue.versions(entry, tenant=tenant), tenant=tenant)
