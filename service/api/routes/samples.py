"""``GET /jobs/{job}/samples``: the twins of a job, with signed links to image and mask."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated

from fastapi import APIRouter, Query

from service.api.auth import KeyedRoute
from service.api.openapi import answers
from service.api.own_jobs import OwnJob
from service.api.parameters import Cursor, numeric_cursor
from service.api.schemas.jobs import SampleFileView, SamplePage, SampleView
from service.api.services import Services, ServicesDep
from service.jobs.sample_files import SampleFile, sample_files_of
from service.jobs.sample_links import TwinLink
from service.jobs.spec import SampleRecord
from service.store.opening import link_secret

router = APIRouter(route_class=KeyedRoute, tags=["results"])


@router.get(
    "/jobs/{job}/samples", response_model=SamplePage, summary="List a job's twins", responses=answers(404, 422, 503)
)
def list_samples(
    spec: OwnJob,
    services: ServicesDep,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Maximum number of samples in the answer.")] = 50,
) -> SamplePage:
    """The twins made so far, by index, each with its seed, the classes in its mask, and signed links to both files."""
    views: list[SampleView] = []
    more = False
    expire_at = datetime.now(UTC) + timedelta(seconds=services.settings.link_expires_s)
    links = Links(services, spec.job, int(expire_at.timestamp()))
    with closing(services.repository.chunks.items(spec, after=numeric_cursor(cursor))) as items:
        for _, item in items:
            if len(views) == limit:
                more = True
                break
            views.append(sample_view(item, links))
    return SamplePage(samples=views, next_cursor=str(views[-1].index) if more else None, links_expire_at=expire_at)


def sample_view(item: SampleRecord, links: Links) -> SampleView:
    """The sample as answered."""
    found = {file.kind: links.view(item.index, file) for file in sample_files_of(item)}
    return SampleView(
        index=item.index,
        seed=item.seed,
        classes=item.classes,
        confident_share=item.confident_share,
        mean_confidence=item.mean_confidence,
        image=found.get("image"),
        mask=found.get("mask"),
        instances=found.get("instances"),
        error=item.error,
    )


@dataclass
class Links:
    """Signs links to the sample files of a job, until ``expires`` (seconds since 1970).

    They are the store's own links, or the API's where a file is part of a shard.
    """

    services: Services
    job: str
    expires: int

    def view(self, index: int, file: SampleFile) -> SampleFileView:
        """The file with its link. Raises :class:`SettingsError` if the API must sign the link and has no secret."""
        settings, sha256 = self.services.settings, file.sha256
        if file.offset is None:
            url = self.services.store.sign(
                file.key, expires_s=settings.link_expires_s, content_type="image/png", sha256=sha256
            )
        else:
            url = settings.public_url + TwinLink.to(self.job, index, file, self.expires).signed(self._secret)
        return SampleFileView(url=url, sha256=sha256, bytes=file.bytes)

    @cached_property
    def _secret(self) -> bytes:
        return link_secret(self.services.settings)
