"""``GET /twins/{job}/{index}/{kind}.png``: signed links to images and masks in shards, for both kinds of store."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from service.api.openapi import answers
from service.api.query import LinkRoute
from service.api.routes.objects import SAFE_HEADERS, byte_range, is_unchanged
from service.api.services import ServicesDep
from service.errors import ObjectNotFound
from service.jobs.sample_files import read_sample_file
from service.jobs.sample_links import TwinLink
from service.store.opening import link_secret

router = APIRouter(route_class=LinkRoute, tags=["results"])
_BYTES: dict[str, Any] = {"image/png": {}}


@router.head("/twins/{job}/{index}/{kind}.png", include_in_schema=False)
@router.get(
    "/twins/{job}/{index}/{kind}.png",
    summary="Read an image or a mask by its signed link",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": _BYTES},
        206: {"description": "The part of it that `Range` asked for.", "content": _BYTES},
        304: {"description": "The file is still the one of `If-None-Match`."},
        **answers(403, 404, 416, 503),
    },
)
def read_twin(
    request: Request,
    services: ServicesDep,
    job: Annotated[str, Path(description="The job's id.")],
    index: Annotated[str, Path(description="The twin's index.")],
    kind: Annotated[str, Path(description="`image`, `mask` or `instances`.")],
    shard: Annotated[str, Query(description="The job's shard that has the file.")] = "",
    offset: Annotated[str, Query(description="Offset in the shard, in bytes.")] = "",
    bytes_: Annotated[str, Query(alias="bytes", description="Length of the file in bytes.")] = "",
    sha256: Annotated[str, Query(description="Hash of the file; other bytes are not served.")] = "",
    expires: Annotated[str, Query(description="Expiry time in seconds since 1970.")] = "",
    signature: Annotated[str, Query(description="The service's signature of the rest of the link.")] = "",
    range_: Annotated[str | None, Header(alias="Range", description="One range of bytes.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The file, if the link's signature is valid and the link has not expired."""
    parts = {"job": job, "index": index, "kind": kind, "shard": shard, "offset": offset, "size": bytes_}
    link = TwinLink.parse(**parts, sha256=sha256, expires=expires)
    link.check(link_secret(services.settings), signature)
    found = link.file
    headers = {"ETag": f'"{found.sha256}"', **SAFE_HEADERS}
    gone = ObjectNotFound(f"{found.key} is no longer in the store; get a new link from the job", key=found.key)
    unchanged = is_unchanged(headers["ETag"], if_none_match)
    if (unchanged or request.method == "HEAD") and services.store.head(found.key) is None:
        raise gone
    if unchanged:
        return Response(status_code=304, headers=headers)

    part = byte_range(range_, found.bytes)
    start, end = part or (0, found.bytes)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.bytes}"
    headers["Content-Length"] = str(end - start)
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="image/png")
    try:
        # read whole, whatever range is requested: only the whole can be compared with its hash
        data = read_sample_file(services.store, found)
    except ObjectNotFound:
        raise gone from None
    return Response(data[start:end], status, headers, "image/png")
