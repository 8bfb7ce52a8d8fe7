"""``GET /twins/{job}/{index}/{picture}.png``: signed links to pictures that lie in a shard, whatever the store."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from service.api.openapi import answers
from service.api.routes.objects import SERVED_AS_IT_IS, byte_range, is_unchanged
from service.api.services import ServicesDep
from service.errors import ObjectNotFound
from service.jobs.sample_files import read_sample_file
from service.jobs.sample_links import TwinLink
from service.store.opening import link_secret

router = APIRouter(tags=["results"])
_BYTES: dict[str, Any] = {"image/png": {}}


@router.head("/twins/{job}/{index}/{picture}.png", include_in_schema=False)
@router.get(
    "/twins/{job}/{index}/{picture}.png",
    summary="Read an image or a mask by its signed link",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": _BYTES},
        206: {"description": "The part of it that `Range` asked for.", "content": _BYTES},
        304: {"description": "The picture is still the one of `If-None-Match`."},
        **answers(403, 404, 416, 503),
    },
)
def read_twin(
    request: Request,
    services: ServicesDep,
    job: Annotated[str, Path(description="The job's id.")],
    index: Annotated[str, Path(description="The twin's.")],
    picture: Annotated[str, Path(description="`image` or `mask`.")],
    shard: Annotated[str, Query(description="Which of the job's shards it lies in.")] = "",
    offset: Annotated[str, Query(description="Where in it, in bytes.")] = "",
    bytes_: Annotated[str, Query(alias="bytes", description="The picture's length.")] = "",
    sha256: Annotated[str, Query(description="Of the picture; other bytes are not served.")] = "",
    expires: Annotated[str, Query(description="Seconds since 1970 until which the link holds.")] = "",
    signature: Annotated[str, Query(description="Ours, of all the rest of the link.")] = "",
    range_: Annotated[str | None, Header(alias="Range", description="One range of bytes.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The picture, if the link is one that we signed and still holds."""
    parts = {"job": job, "index": index, "kind": picture, "shard": shard, "offset": offset, "size": bytes_}
    link = TwinLink.parse(**parts, sha256=sha256, expires=expires)
    link.check(link_secret(services.settings), signature)
    found = link.file
    headers = {"ETag": f'"{found.sha256}"', **SERVED_AS_IT_IS}
    gone = ObjectNotFound(f"{found.key} is no longer in the store; ask the job for what it has", key=found.key)
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
        # whole, whatever part is asked for, since only the whole can be compared with its hash
        data = read_sample_file(services.store, found)
    except ObjectNotFound:
        raise gone from None
    return Response(data[start:end], status, headers, "image/png")
