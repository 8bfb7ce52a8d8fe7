"""``GET /objects/{key}``: signed links of a folder store. S3 serves its own links."""

from __future__ import annotations

import re
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from service.api.errors import RangeNotSatisfiable
from service.api.openapi import answers
from service.api.query import LinkRoute
from service.api.services import ServicesDep
from service.errors import ObjectNotFound
from service.store.checked import read_checked
from service.store.keys import content_type
from service.store.opening import link_secret
from service.store.signing import check_signature

router = APIRouter(route_class=LinkRoute, tags=["results"])
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_BYTES: dict[str, Any] = {"image/png": {}, "application/octet-stream": {}}
SAFE_HEADERS = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, max-age=3600",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
"""Headers of objects: ranges are allowed, and browsers never treat an object as a page or a script."""


@router.head("/objects/{key:path}", include_in_schema=False)
@router.get(
    "/objects/{key:path}",
    summary="Read an object by its signed link",
    response_class=Response,
    responses={
        200: {"description": "The object.", "content": _BYTES},
        206: {"description": "The part of it that `Range` asked for.", "content": _BYTES},
        304: {"description": "The object is still the one of `If-None-Match`."},
        **answers(403, 404, 416, 503),
    },
)
def read_object(
    request: Request,
    key: str,
    services: ServicesDep,
    expires: Annotated[str, Query(description="Expiry time in seconds since 1970.")] = "",
    signature: Annotated[str, Query(description="The service's signature of key, expires and sha256.")] = "",
    sha256: Annotated[str, Query(description="Hash of the object; other bytes are not served.")] = "",
    range_: Annotated[str | None, Header(alias="Range", description="One range of bytes.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The object, if the link's signature is valid and the link has not expired."""
    check_signature(link_secret(services.settings), key, expires, signature, sha256=sha256 or None)
    info = services.store.head(key)
    if info is None:
        raise ObjectNotFound(f"{key} is no longer in the store; get a new link from the job", key=key)
    etag = f'"{info.etag.strip(chr(34))}"'
    headers = {"ETag": etag, "Last-Modified": format_datetime(info.modified, usegmt=True), **SAFE_HEADERS}
    if is_unchanged(etag, if_none_match):
        return Response(status_code=304, headers=headers)

    part = byte_range(range_, info.size)
    start, end = part or (0, info.size)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.size}"
    headers["Content-Length"] = str(end - start)
    status, kind = (206 if part else 200), content_type(key)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)
    if sha256:
        # read whole before the first byte is sent: a twin's files are small, and a damaged one must give an error, not
        # half an image
        return Response(read_checked(services.store, key, sha256)[start:end], status, headers, kind)
    if part is not None:
        return Response(services.store.get(key, start=start, end=end), status, headers, kind)
    return StreamingResponse(services.store.stream(key), status, headers, kind)


def is_unchanged(etag: str, if_none_match: str | None) -> bool:
    """Whether ``etag`` is among those of an If-None-Match header."""
    return if_none_match is not None and etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The part ``[start, end)`` of ``size`` bytes that a Range header asks for; None for the whole.

    A header that is not understood, or has several ranges, gives the whole object, as RFC 9110 allows. Raises
    :class:`RangeNotSatisfiable` for a range outside of the object.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None
    else:
        start, end = max(0, size - int(last)), size
    if start >= end:
        raise RangeNotSatisfiable(
            f"{header} is outside of the object's {size} bytes; request a range inside", size=size
        )
    return start, end
