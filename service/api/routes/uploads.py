"""``/uploads``: mask files, to which requests refer by their ids: stored, listed and deleted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.auth import KeyedRoute, TenantDep
from service.api.content_type import PngRoute
from service.api.openapi import answers
from service.api.parameters import Cursor, bad_cursor
from service.api.schemas.jobs import UploadView
from service.api.schemas.uploads import StoredUploadView, UploadPage
from service.api.services import Services, ServicesDep
from service.errors import InvalidRequest, UnknownUpload
from service.kit.validation import truncated_repr
from service.masks.png_file import MaskRefused, check_png
from service.masks.uploads import is_upload_id

router = APIRouter(route_class=KeyedRoute, tags=["jobs"])
posting = APIRouter(route_class=PngRoute, tags=["jobs"])


@posting.post(
    "/uploads",
    status_code=201,
    response_model=UploadView,
    summary="Upload a mask or an instance map",
    responses={201: {"description": "The file is in the object store."}, **answers(413, 415, 422, 503)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_mask(request: Request, services: ServicesDep, tenant: TenantDep) -> UploadView:
    """Stores a PNG under the sha256 of its bytes; repeating it changes nothing. Whether the file is a valid mask
    for a model is checked when a request uses it."""
    data = await request.body()
    return await run_in_threadpool(_store, services, tenant, data)


def _store(services: Services, tenant: str, data: bytes) -> UploadView:
    services.limits.check_stored(tenant=tenant)
    try:
        file = check_png(data, max_side_px=services.settings.max_mask_px, deep=True)
    except MaskRefused as error:
        detail = f"the file {error}"
        raise InvalidRequest(detail, errors=[{"pointer": "", "detail": detail}]) from None
    upload = services.uploads.put(data, tenant=tenant)
    services.limits.stored(tenant=tenant, size=len(data))
    return UploadView(upload=upload, bytes=len(data), width=file.width, height=file.height)


@router.get("/uploads", response_model=UploadPage, summary="List uploads", responses=answers(422, 503))
def list_uploads(
    services: ServicesDep,
    tenant: TenantDep,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Maximum number of uploads in the answer.")] = 100,
) -> UploadPage:
    """Uploaded files by their ids."""
    if cursor is not None and not is_upload_id(cursor):
        raise bad_cursor(cursor)
    views: list[StoredUploadView] = []
    for info in services.uploads.list(tenant=tenant, start_after=cursor):
        if len(views) == limit:
            return UploadPage(uploads=views, next_cursor=views[-1].upload)
        upload = info.key.rpartition("/")[2].removesuffix(".png")
        views.append(StoredUploadView(upload=upload, bytes=info.size, uploaded_at=info.modified))
    return UploadPage(uploads=views, next_cursor=None)


@router.delete(
    "/uploads/{upload}",
    status_code=204,
    summary="Delete an upload",
    responses={204: {"description": "The file is deleted."}, **answers(404, 503)},
)
def delete_upload(
    upload: Annotated[str, Path(description="An upload's id.")], services: ServicesDep, tenant: TenantDep
) -> Response:
    """Deletes an uploaded file, which no longer counts as stored. Jobs keep the masks that they were given."""
    size = services.uploads.delete(upload, tenant=tenant)
    if size is None:
        raise UnknownUpload(f"upload {truncated_repr(upload)} does not exist; GET /uploads lists those that do")
    services.limits.stored(tenant=tenant, size=-size)
    return Response(status_code=204)
