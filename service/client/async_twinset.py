"""AsyncTwinset, the client for asyncio programs.

The operations are written once, as flows, in ``jobs``, ``datasets``, ``exports``, ``augmentations``, ``models`` and
``uploads``; here they are bound to a runner of asyncio.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import httpx

from service.client import augmentations as _augmentations
from service.client import datasets as _datasets
from service.client import exports as _exports
from service.client import jobs as _jobs
from service.client import model_transfers as _model_transfers
from service.client import models as _models
from service.client import runs as _runs
from service.client import trainings as _trainings
from service.client import uploads as _uploads
from service.client.async_runner import AsyncRunner, async_iterator, async_method
from service.client.client import BaseClient
from service.client.config import Config, install_signature_filter
from service.client.progress_bars import ProgressDisplay
from service.client.views import AugmentationInfo, PlanInfo


class _Cooperative:
    """Methods that all kinds of runs share."""

    refresh = async_method(_runs.refresh)
    wait = async_method(_runs.wait)
    cancel = async_method(_runs.cancel)
    delete = async_method(_runs.delete)


class AsyncJob(_jobs.BaseJob, _Cooperative):
    """A job: twins that are being generated, or have been."""

    samples = async_iterator(_jobs.samples_page)
    download = async_method(_jobs.download)
    torch_dataset = async_method(_jobs.torch_dataset)
    repair = async_method(_jobs.repair)

    async def retry(self) -> AsyncJob:
        """Starts a job that makes the missing twins of this one, which must have ended, and returns it.

        Indices and seeds are the same, so the twins are too.
        """
        return AsyncJob(self._client, await self._client.runner.run(_jobs.retry(self)))


class AsyncDatasetRef(_datasets.BaseDataset, _Cooperative):
    """One version of an uploaded dataset."""

    report = async_method(_datasets.report)
    statistics = async_method(_datasets.statistics)


class AsyncExport(_exports.BaseExport, _Cooperative):
    """An export: a set that is being written, or has been."""

    files = async_iterator(_exports.files_page)
    download = async_method(_exports.download)
    torch_dataset = async_method(_exports.torch_dataset)


class AsyncAugmentation(_augmentations.BaseAugmentation, _Cooperative):
    """An augmentation: a dataset that is being extended with twins, or has been."""

    samples = async_iterator(_jobs.samples_page)
    export = async_method(_augmentations.export, AsyncExport)


class AsyncTraining(_trainings.BaseTrainingRun, _Cooperative):
    """A training: a model, or a part of one, that is being trained, or has been."""

    checkpoints = async_iterator(_trainings.checkpoints_page)
    pause = async_method(_trainings.pause)
    resume = async_method(_trainings.resume)

    async def retry(self) -> AsyncTraining:
        """Starts a training that goes on from this one's last checkpoint, if it failed or was cancelled."""
        return AsyncTraining(self._client, await self._client.runner.run(_trainings.retry(self)))


class AsyncTwinset(BaseClient):
    """Client for asyncio, with the arguments and methods of :class:`~service.client.Twinset`. Example::

        async with AsyncTwinset() as client:
            job = await client.generate(model="cosimgen-dubai", classes=["water"], count=100)
            await job.download("twins")
            async for sample in job.samples():
                print(sample.index, sample.seed)

    All methods are awaited, and lists are iterated with ``async for``. A client belongs to one event loop. Close it
    with :meth:`aclose`, or use it as an async context manager.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry_timeout_s: float = 30.0,
        timeout_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        install_signature_filter()
        self.config = Config.read(url, api_key, retry_timeout_s=retry_timeout_s, timeout_s=timeout_s)
        self.progress_display = ProgressDisplay()
        self._http = httpx.AsyncClient(transport=transport, **self.config.http_options())
        self.runner = AsyncRunner(self.config, self._http)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncTwinset:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    models = async_method(_models.models)
    model = async_method(_models.model)
    promote_model = async_method(_models.promote_model)
    delete_model = async_method(_models.delete_model)
    aliases = async_method(_models.aliases)
    alias = async_method(_models.alias)
    set_alias = async_method(_models.set_alias)
    delete_alias = async_method(_models.delete_alias)
    shares = async_method(_models.shares)
    share_model = async_method(_models.share_model)
    unshare_model = async_method(_models.unshare_model)
    add_model = async_method(_model_transfers.add_model)
    download_model = async_method(_model_transfers.download_model)
    generate = async_method(_jobs.generate, AsyncJob)
    job = async_method(_jobs.job, AsyncJob)
    jobs = async_iterator(_jobs.jobs_page, AsyncJob)
    uploads = async_iterator(_uploads.uploads_page)
    delete_upload = async_method(_uploads.delete_upload)
    upload_dataset = async_method(_datasets.upload_dataset, AsyncDatasetRef)
    import_dataset = async_method(_datasets.import_dataset, AsyncDatasetRef)
    dataset = async_method(_datasets.dataset, AsyncDatasetRef)
    datasets = async_iterator(_datasets.datasets_page, AsyncDatasetRef)
    export = async_method(_exports.export, AsyncExport)
    get_export = async_method(_exports.get_export, AsyncExport)
    exports = async_iterator(_exports.exports_page, AsyncExport)
    augmentation = async_method(_augmentations.augmentation, AsyncAugmentation)
    augmentations = async_iterator(_augmentations.augmentations_page, AsyncAugmentation)
    train = async_method(_trainings.train, AsyncTraining)
    plan_training = async_method(_trainings.plan_training)
    training = async_method(_trainings.training, AsyncTraining)
    trainings = async_iterator(_trainings.trainings_page, AsyncTraining)

    if TYPE_CHECKING:  # the return type depends on dry_run, which takes overloads

        @overload
        async def augment(
            self,
            *,
            dataset: _datasets.BaseDataset | str,
            model: str,
            count: int | None = None,
            ratio: float | None = None,
            dry_run: Literal[True],
            **options: Any,
        ) -> PlanInfo: ...
        @overload
        async def augment(
            self,
            *,
            dataset: _datasets.BaseDataset | str,
            model: str,
            count: int | None = None,
            ratio: float | None = None,
            idempotency_key: str | None = None,
            wait: bool = False,
            progress: bool = True,
            dry_run: Literal[False] = False,
            **options: Any,
        ) -> AsyncAugmentation: ...
        async def augment(self, **given: Any) -> AsyncAugmentation | PlanInfo: ...

    else:
        augment = async_method(_augmentations.augment, lambda client, found: _augmented(client, found))


def _augmented(client: BaseClient, found: AugmentationInfo | PlanInfo) -> AsyncAugmentation | PlanInfo:
    return found if isinstance(found, PlanInfo) else AsyncAugmentation(client, found)
