"""The client for programs with an event loop: every call is to be awaited.

What the methods do is written once, as flows, in ``jobs``, ``datasets``, ``exports``, ``augmentations`` and ``models``;
here they are bound to a runner of asyncio.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import httpx

from service.client import augmentations as _augmentations
from service.client import datasets as _datasets
from service.client import exports as _exports
from service.client import jobs as _jobs
from service.client import models as _models
from service.client import runs as _runs
from service.client.client import BaseClient
from service.client.config import Config, keep_signatures_out_of_logs
from service.client.cooperative import CooperativeRunner, cooperative, cooperative_pages
from service.client.progress_bars import Board
from service.client.views import AugmentationInfo, PlanInfo


class _Cooperative:
    """What every kind of run can do."""

    refresh = cooperative(_runs.refresh)
    wait = cooperative(_runs.wait)
    cancel = cooperative(_runs.cancel)
    delete = cooperative(_runs.delete)


class AsyncJob(_jobs.JobRun, _Cooperative):
    """A job: twins in the making, or made."""

    samples = cooperative_pages(_jobs.samples_page)
    download = cooperative(_jobs.download)
    torch_dataset = cooperative(_jobs.torch_dataset)

    async def retry(self) -> AsyncJob:
        """A new job with what is missing of this one, which must have ended: the same indices and seeds, so the same
        twins."""
        return AsyncJob(self._client, await self._client.runner.run(_jobs.retry(self)))


class AsyncDatasetRef(_datasets.DatasetRun, _Cooperative):
    """One version of an uploaded dataset."""

    report = cooperative(_datasets.report)
    statistics = cooperative(_datasets.statistics)


class AsyncExport(_exports.ExportRun, _Cooperative):
    """An export: a set in the making, or written."""

    files = cooperative_pages(_exports.files_page)
    download = cooperative(_exports.download)
    torch_dataset = cooperative(_exports.torch_dataset)


class AsyncAugmentation(_augmentations.AugmentationRun, _Cooperative):
    """An augmentation: a dataset being extended, or extended."""

    samples = cooperative_pages(_jobs.samples_page)
    export = cooperative(_augmentations.export, AsyncExport)


class AsyncTwinset(BaseClient):
    """As :class:`~service.client.Twinset`, with the same arguments and methods, for asyncio. Use it in one event
    loop."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        patience_s: float = 30.0,
        timeout_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        keep_signatures_out_of_logs()
        self.config = Config.read(url, api_key, patience_s=patience_s, timeout_s=timeout_s)
        self.board = Board()
        self._http = httpx.AsyncClient(transport=transport, **self.config.http_options())
        self.runner = CooperativeRunner(self.config, self._http)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncTwinset:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    models = cooperative(_models.models)
    model = cooperative(_models.model)
    generate = cooperative(_jobs.generate, AsyncJob)
    job = cooperative(_jobs.job, AsyncJob)
    jobs = cooperative_pages(_jobs.jobs_page, AsyncJob)
    upload_dataset = cooperative(_datasets.upload_dataset, AsyncDatasetRef)
    import_dataset = cooperative(_datasets.import_dataset, AsyncDatasetRef)
    dataset = cooperative(_datasets.dataset, AsyncDatasetRef)
    datasets = cooperative_pages(_datasets.datasets_page, AsyncDatasetRef)
    export = cooperative(_exports.export, AsyncExport)
    find_export = cooperative(_exports.find_export, AsyncExport)
    exports = cooperative_pages(_exports.exports_page, AsyncExport)
    augmentation = cooperative(_augmentations.augmentation, AsyncAugmentation)
    augmentations = cooperative_pages(_augmentations.augmentations_page, AsyncAugmentation)

    if TYPE_CHECKING:  # what comes back depends on dry_run, which no one signature says

        @overload
        async def augment(
            self, *, dataset: _datasets.DatasetRun | str, model: str, count: int | None = None, ratio: float | None = None,
            dry_run: Literal[True], **options: Any,
        ) -> PlanInfo: ...  # fmt: skip
        @overload
        async def augment(
            self, *, dataset: _datasets.DatasetRun | str, model: str, count: int | None = None, ratio: float | None = None,
            idempotency_key: str | None = None, wait: bool = False, progress: bool = True, dry_run: Literal[False] = False, **options: Any,
        ) -> AsyncAugmentation: ...  # fmt: skip
        async def augment(self, **given: Any) -> AsyncAugmentation | PlanInfo: ...

    else:
        augment = cooperative(_augmentations.augment, lambda client, found: _augmented(client, found))


def _augmented(client: BaseClient, found: AugmentationInfo | PlanInfo) -> AsyncAugmentation | PlanInfo:
    return found if isinstance(found, PlanInfo) else AsyncAugmentation(client, found)
