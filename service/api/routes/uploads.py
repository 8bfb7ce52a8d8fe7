"""``POST /uploads``: stores a mask file; requests may then refer to it by its id."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from service.api.auth import TenantDep
from service.api.content_type import PngRoute
from service.api.openapi import answers
from service.api.schemas.jobs import UploadView
from service.api.services import Services, ServicesDep
from service.errors import InvalidRequest
from service.masks.png_file import MaskRefused, check_png

router = APIRouter(route_class=PngRoute, tags=["jobs"])


@router.post(
    "/uploads",
    status_code=201,
    response_model=UploadView,
    summary="Upload a mask",
    responses={201: {"description": "The file is in the object store."}, **answers(413, 415, 422, 503)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_mask(request: Request, services: ServicesDep, tenant: TenantDep) -> UploadView:
    """Stores a square PNG under the sha256 of its bytes; repeating it changes nothing. Whether the file is a valid mask
    for a model is checked when a request uses it."""
    data = await request.body()
    return await run_in_threadpool(_store, services, tenant, data)


def _store(services: Services, tenant: str, data: bytes) -> UploadView:
    services.limits.check_stored(tenant=tenant)
    try:
        file = check_png(data, max_side_px=services.settings.max_mask_px)
    except MaskRefused as error:
        detail = f"the file {error}"
        raise InvalidRequest(detail, errors=[{"pointer": "", "detail": detail}]) from None
    upload = services.uploads.put(data, tenant=tenant)
    return UploadView(upload=upload, bytes=len(data), width=file.side_px, height=file.side_px)
