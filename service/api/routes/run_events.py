"""``GET .../events`` of exports, augmentation sets and datasets: their progress as server-sent events."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from service.api.auth import KeyedRoute, TenantDep
from service.api.own_runs import own_run, progress_of
from service.api.routes.augmentations import AugmentationId
from service.api.routes.datasets import Name, Version
from service.api.routes.exports import ExportId, export_view
from service.api.schemas.augmentations import augmentation_view
from service.api.schemas.datasets import dataset_view
from service.api.services import Services, ServicesDep
from service.api.sse import (
    EventSource,
    LastEventId,
    events_operation,
    events_response,
)
from service.kit.run_kinds import RunKind
from service.runs.progress import RunProgress
from service.runs.spec import RunSpec

router = APIRouter(route_class=KeyedRoute)
Show = Callable[[Services, RunSpec, RunProgress], BaseModel]


def _described(what: str, view: str, path: str, run: str) -> dict[str, Any]:
    example = f'id: 48.100.running.9f2c01ab\nevent: progress\ndata: {{"id":"{run}","state":"running",...}}\n\n'
    return events_operation(what, view, path, example)


@router.get(
    "/exports/{export}/events",
    tags=["exports"],
    summary="Follow an export",
    **_described("export", "ExportView", "/exports/{export}", "e7ybr17pesw6kn47yb0"),
)
async def follow_export(
    export: ExportId, services: ServicesDep, tenant: TenantDep, last_event_id: LastEventId = None
) -> Response:
    """The export's progress now, then at each change, a few times a second at most, until it has ended; a comment at
    least every 15 s. A stream whose export is deleted meanwhile ends without `ended`."""
    spec = await run_in_threadpool(own_run, services, tenant, export, RunKind.EXPORT)
    return await events_response(services, tenant, run_events_source(services, spec, export_view), last_event_id)


@router.get(
    "/augmentations/{augmentation}/events",
    tags=["augmentations"],
    summary="Follow an augmentation set",
    **_described("augmentation set", "AugmentationView", "/augmentations/{augmentation}", "a7ybr17pesw6kn47yb0"),
)
async def follow_augmentation(
    augmentation: AugmentationId, services: ServicesDep, tenant: TenantDep, last_event_id: LastEventId = None
) -> Response:
    """The set's progress now, then at each change, a few times a second at most, until it has ended; a comment at least
    every 15 s. A stream whose set is deleted meanwhile ends without `ended`."""
    spec = await run_in_threadpool(own_run, services, tenant, augmentation, RunKind.AUGMENTATION)
    return await events_response(services, tenant, run_events_source(services, spec, augmentation_view), last_event_id)


@router.get(
    "/datasets/{name}/{version}/events",
    tags=["datasets"],
    summary="Follow a dataset version",
    **_described("version", "DatasetView", "/datasets/{name}/{version}", "nuclei@1"),
)
async def follow_dataset(
    name: Name, version: Version, services: ServicesDep, tenant: TenantDep, last_event_id: LastEventId = None
) -> Response:
    """The version's progress now, then at each change, a few times a second at most, until it has ended; a comment at
    least every 15 s. A stream whose version is deleted meanwhile ends without `ended`."""
    spec = await run_in_threadpool(lambda: services.datasets(tenant).find(name, version))
    return await events_response(services, tenant, run_events_source(services, spec, dataset_view), last_event_id)


def run_events_source(services: Services, spec: RunSpec, show: Show) -> EventSource[RunProgress]:
    """The source of a run's events, with data as ``show`` gives it."""
    return EventSource(spec.run, _Reader(services, spec), event_id, lambda progress: show(services, spec, progress))


class _Reader:
    """Reads a run's progress for its events. If Redis stops answering, the last known live state is kept."""

    def __init__(self, services: Services, spec: RunSpec) -> None:
        self._services = services
        self._spec = spec
        self._last: RunProgress | None = None

    def __call__(self) -> RunProgress:
        """The current progress. Raises UnknownRun once the run is deleted: its state would never be final."""
        now, last = progress_of(self._services, self._spec), self._last
        if not now.state.ended:
            own_run(self._services, self._spec.tenant, self._spec.run, self._spec.kind)
        if last is not None and last.known and not now.known and last.state is now.state:
            return last
        self._last = now
        return now


def event_id(progress: RunProgress) -> str:
    """The id of a snapshot: its counts, state, and a hash of its activity. The rate alone makes no event."""
    total = "-" if progress.total is None else progress.total
    doing = (
        f".{blake2s(progress.note.encode(), digest_size=4).hexdigest()}"
        if progress.note and not progress.state.ended
        else ""
    )
    return f"{progress.done}.{total}.{progress.state.value}{doing}"
