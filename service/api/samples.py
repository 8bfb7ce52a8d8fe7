"""``GET /jobs/{id}/samples``: the twins of a job, with links to their pictures."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Annotated

from fastapi import APIRouter, Query

from service.api.access import KeyedRoute, OwnJob
from service.api.openapi import answers
from service.api.services import Services, ServicesDep
from service.api.views import PictureView, SamplePage, SampleView
from service.errors import InvalidRequest
from service.jobs.faults import shown
from service.jobs.spec import Item

router = APIRouter(route_class=KeyedRoute, tags=["results"])


@router.get(
    "/jobs/{job}/samples", response_model=SamplePage, summary="List a job's twins", responses=answers(404, 422, 503)
)
def list_samples(
    spec: OwnJob,
    services: ServicesDep,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most samples in the answer.")] = 50,
) -> SamplePage:
    """The twins made so far, by index, each with its seed, what is in its mask, and signed links to both pictures."""
    views: list[SampleView] = []
    more = False
    expire_at = datetime.now(timezone.utc) + timedelta(seconds=services.settings.link_expires_s)
    with closing(services.ledger.iterate_items(spec, after=_index(cursor))) as items:
        for _, item in items:
            if len(views) == limit:
                more = True
                break
            views.append(_sample_view(services, item))
    return SamplePage(
        samples=views, next_cursor=str(views[-1].index) if more else None, links_expire_at=expire_at
    )


def _index(cursor: str | None) -> int | None:
    """The index that a cursor stands for."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 9):
        raise InvalidRequest(
            f"cursor is {shown(cursor)}; take it from next_cursor of the page before, or leave it out",
            errors=[{"parameter": "cursor", "in": "query", "detail": "not a cursor"}],
        )
    return int(cursor)


def _sample_view(services: Services, item: Item) -> SampleView:
    return SampleView(
        index=item.index,
        seed=item.seed,
        classes=item.classes,
        confident_share=item.confident_share,
        mean_confidence=item.mean_confidence,
        image=_picture(services, item.image_key, item.image_sha256, item.image_bytes),
        mask=_picture(services, item.mask_key, item.mask_sha256, item.mask_bytes),
        error=item.error,
    )


def _picture(services: Services, key: str | None, sha256: str | None, size: int | None) -> PictureView | None:
    if key is None or sha256 is None or size is None:
        return None
    url = services.store.sign(key, expires_s=services.settings.link_expires_s, content_type="image/png", sha256=sha256)
    return PictureView(url=url, sha256=sha256, bytes=size)
