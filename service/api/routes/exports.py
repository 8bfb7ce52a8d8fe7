"""``/exports``: jobs, augmentation sets and datasets written as one dataset, in a format for training."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from service.api.auth import KeyedRoute, TenantDep
from service.api.content_type import JsonRoute
from service.api.openapi import answers
from service.api.own_runs import delete_run, own_run, progress_of, runs_page
from service.api.parameters import Cursor, IdempotencyKey, numeric_cursor
from service.api.routes import callbacks
from service.api.schemas.jobs import as_json
from service.api.schemas.runs import RunView, View, run_fields
from service.api.schemas.unreadable import WithUnreadable, reads_records
from service.api.services import Services, ServicesDep
from service.datasets.writing.skipped import SkippedGroup
from service.errors import JobStateConflict
from service.exports.location import ExportLocation
from service.exports.request import ExportRequest
from service.kit.run_kinds import RunKind
from service.kit.states import JobState
from service.kit.validation import Faults
from service.runs.progress import RunProgress
from service.runs.spec import RunSpec
from service.store.run_keys import run_prefix
from service.webhooks.validate import admit_callback

router = APIRouter(route_class=KeyedRoute, tags=["exports"])
ExportId = Annotated[str, Path(description="An export's id.", examples=["e7ybr17pesw6kn47yb0"])]


class ExportView(RunView):
    """An export; complete once its state is ``succeeded``."""

    format: str
    items: dict[str, int] | None = Field(description="items written, real and synthetic; null until it is complete")
    splits: dict[str, int] | None = Field(description="items by split")
    skipped: dict[str, int] | None = Field(description="items that were left out, by reason")
    skipped_details: tuple[SkippedGroup, ...] | None = Field(
        description="each reason with its meaning and the first items left out for it"
    )
    notes: tuple[str, ...] | None = Field(description="what to know besides: renamed items, splits that trainers miss")
    files: int | None
    bytes: int | None
    request: dict[str, Any] = Field(description="the request as sent")
    links: dict[str, str] = Field(description="self, events, cancel; files once it is complete")


class ExportPage(View, WithUnreadable):
    """Exports, newest first."""

    exports: list[ExportView]
    next_cursor: str | None


class ExportFileView(View):
    """A file of an export. Unpack zip files into one folder; store other files under their paths."""

    path: str
    bytes: int
    sha256: str
    url: str = Field(description="a signed link; no API key needed")


class ExportFilePage(View):
    """Files of an export, in the order of writing."""

    files: list[ExportFileView]
    next_cursor: str | None
    links_expire_at: datetime


posting = APIRouter(route_class=JsonRoute, tags=["exports"])


@posting.post(
    "/exports",
    status_code=202,
    response_model=ExportView,
    summary="Create an export",
    callbacks=callbacks.export_router.routes,
    responses={
        202: {
            "description": "The export, accepted.",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "Its path."}},
        },
        **answers(400, 404, 409, 413, 415, 422, 503),
    },
)
def create_export(
    body: ExportRequest, services: ServicesDep, tenant: TenantDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Checks that the sources exist and are compatible, and starts an export: folders, COCO, Pascal VOC, Cityscapes,
    YOLO-seg, Hugging Face or WebDataset, with a manifest and a dataset card that record the origin of every item."""
    spec = _accept(services, tenant, body, idempotency_key)
    view = export_view(services, spec, progress_of(services, spec))
    return Response(
        as_json(view), status_code=202, headers={"Location": view.links["self"]}, media_type="application/json"
    )


def _accept(services: Services, tenant: str, body: ExportRequest, idempotency_key: str | None) -> RunSpec:
    """The run of the export: made now, or by an earlier request with the same key."""
    # loads numpy, so not at the start of the API
    from service.exports.resolve import SourceLookup, resolve

    services.limits.check_stored(tenant=tenant)
    given = body.model_dump(mode="json", exclude_unset=True)
    submitter = services.run_submitter
    reservation = submitter.reserve(RunKind.EXPORT, tenant=tenant, key=idempotency_key, body=given)
    if (existing := submitter.find(reservation)) is not None:
        return existing
    faults = Faults()
    callback = admit_callback(body.callback_url, services.settings, faults)
    work, total = resolve(SourceLookup(services.repository, services.runs, services.catalogue), tenant, body, faults)
    reservation = reservation.bind()
    if (existing := submitter.find(reservation)) is not None:
        return existing
    spec, _ = submitter.submit(
        RunSpec(
            run=reservation.id,
            tenant=tenant,
            name=(body.name or "").strip() or None,
            created_at=datetime.now(UTC),
            total=total,
            work=work.model_dump(mode="json"),
            request=given,
            idempotency=reservation.record,
            callback=callback,
        )
    )
    return spec


@router.get("/exports", response_model=ExportPage, summary="List exports", responses=answers(422, 503))
def list_exports(
    services: ServicesDep,
    tenant: TenantDep,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of exports in the answer.")] = 20,
) -> ExportPage:
    """Exports, newest first."""
    page = runs_page(services, tenant, RunKind.EXPORT, export_view, cursor=cursor, limit=limit)
    return ExportPage(exports=page.views, unreadable=page.unreadable, next_cursor=page.next_cursor)


@router.get("/exports/{export}", response_model=ExportView, summary="Get an export", responses=answers(404, 503))
def show_export(export: ExportId, services: ServicesDep, tenant: TenantDep) -> ExportView:
    """The export's progress, and its contents once it is complete."""
    spec = own_run(services, tenant, export, RunKind.EXPORT)
    return export_view(services, spec, progress_of(services, spec))


@router.get(
    "/exports/{export}/files",
    response_model=ExportFilePage,
    summary="List an export's files",
    responses=answers(404, 409, 422, 503),
)
def list_files(
    export: ExportId,
    services: ServicesDep,
    tenant: TenantDep,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Maximum number of files in the answer.")] = 100,
) -> ExportFilePage:
    """The files with their sizes, checksums and signed links. Unpack zip files into one folder."""
    spec = own_run(services, tenant, export, RunKind.EXPORT)
    first = numeric_cursor(cursor) or 0
    progress = progress_of(services, spec)
    if progress.state is not JobState.SUCCEEDED:
        state = progress.state.value
        when = (
            "it has no files; create a new one"
            if progress.state.ended
            else "its files are available once it has succeeded"
        )
        raise JobStateConflict(f"export {spec.run} is {state}; {when}", state=state)
    expires_s = services.settings.link_expires_s
    expire_at = datetime.now(UTC) + timedelta(seconds=expires_s)
    place = ExportLocation(services.store, run_prefix(spec.run))
    found = list(islice(place.read_files(), first, first + limit + 1))
    views = [
        ExportFileView(
            path=file.path,
            bytes=file.bytes,
            sha256=file.sha256,
            url=services.store.sign(place.key_of(file), expires_s=expires_s),
        )
        for file in found[:limit]
    ]
    return ExportFilePage(
        files=views, next_cursor=str(first + limit) if len(found) > limit else None, links_expire_at=expire_at
    )


@router.post(
    "/exports/{export}/cancel", response_model=ExportView, summary="Cancel an export", responses=answers(404, 409, 503)
)
def cancel_export(export: ExportId, services: ServicesDep, tenant: TenantDep) -> ExportView:
    """Stops the export and removes its files. Repeating it changes nothing; an export that has ended otherwise is
    refused."""
    spec = own_run(services, tenant, export, RunKind.EXPORT)
    services.runs.cancel(spec)
    return export_view(services, spec, progress_of(services, spec))


@router.delete(
    "/exports/{export}",
    status_code=204,
    summary="Delete an export",
    responses={204: {"description": "It no longer exists, and its files are being removed."}, **answers(404, 503)},
)
def delete_export(export: ExportId, services: ServicesDep, tenant: TenantDep) -> Response:
    """Deletes an export with its files; a running one is cancelled first. Its sources stay."""
    delete_run(services, tenant, export, RunKind.EXPORT)
    return Response(status_code=204)


@reads_records
def export_view(services: Services, spec: RunSpec, progress: RunProgress) -> ExportView:
    """The export as answered."""
    result = progress.summary.result if progress.summary and progress.state is JobState.SUCCEEDED else {}
    own = services.path(f"/exports/{spec.run}")
    links = {
        "self": own,
        "events": f"{own}/events",
        "cancel": f"{own}/cancel",
        **({"files": f"{own}/files"} if result else {}),
    }
    return ExportView(
        **run_fields(spec, progress),
        format=spec.work["options"]["format"],
        items=result.get("items"),
        splits=result.get("splits"),
        skipped=result.get("skipped"),
        skipped_details=result.get("skipped_details"),
        notes=result.get("notes"),
        files=result.get("files"),
        bytes=result.get("bytes"),
        request=spec.request,
        links=links,
    )
