"""Twinset, the blocking client for scripts and notebooks.

The operations are written once, as flows, in ``jobs``, ``datasets``, ``exports``, ``augmentations``, ``trainings``,
``models`` and ``uploads``; here they are bound to a runner of threads.
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
from service.client.client import BaseClient
from service.client.config import Config, install_signature_filter
from service.client.progress_bars import ProgressDisplay
from service.client.sync_runner import SyncRunner, sync_iterator, sync_method
from service.client.views import AugmentationInfo, PlanInfo


class _Blocking:
    """Methods that all kinds of runs share."""

    refresh = sync_method(_runs.refresh)
    wait = sync_method(_runs.wait)
    cancel = sync_method(_runs.cancel)
    delete = sync_method(_runs.delete)


class Job(_jobs.BaseJob, _Blocking):
    """A job: twins that are being generated, or have been."""

    samples = sync_iterator(_jobs.samples_page)
    download = sync_method(_jobs.download)
    torch_dataset = sync_method(_jobs.torch_dataset)
    repair = sync_method(_jobs.repair)

    def retry(self) -> Job:
        """Starts a job that makes the missing twins of this one, which must have ended, and returns it.

        Indices and seeds are the same, so the twins are too.
        """
        return Job(self._client, self._client.runner.run(_jobs.retry(self)))


class DatasetRef(_datasets.BaseDataset, _Blocking):
    """One version of an uploaded dataset."""

    report = sync_method(_datasets.report)
    statistics = sync_method(_datasets.statistics)


class Export(_exports.BaseExport, _Blocking):
    """An export: a set that is being written, or has been."""

    files = sync_iterator(_exports.files_page)
    download = sync_method(_exports.download)
    torch_dataset = sync_method(_exports.torch_dataset)


class Augmentation(_augmentations.BaseAugmentation, _Blocking):
    """An augmentation: a dataset that is being extended with twins, or has been."""

    samples = sync_iterator(_jobs.samples_page)
    export = sync_method(_augmentations.export, Export)


class Training(_trainings.BaseTrainingRun, _Blocking):
    """A training: a model, or a part of one, that is being trained, or has been."""

    checkpoints = sync_iterator(_trainings.checkpoints_page)
    pause = sync_method(_trainings.pause)
    resume = sync_method(_trainings.resume)

    def retry(self) -> Training:
        """Starts a training that goes on from this one's last checkpoint, if it failed or was cancelled."""
        return Training(self._client, self._client.runner.run(_trainings.retry(self)))


class Twinset(BaseClient):
    """Client of a Twinset server, for scripts and notebooks; every call blocks until it is done. Example::

        with Twinset() as client:
            job = client.generate(model="cosimgen-dubai", classes=["water"], count=100, seed=7)
            job.download("twins")

    ``url``: the server's address; by default ``TWINSET_PUBLIC_URL`` of the environment, else this machine's port 8000.
    ``api_key``: by default ``TWINSET_API_KEY`` of the environment; it is sent to the server only, never to a link.
    ``retry_timeout_s``: for how long requests are retried while the server cannot be reached or asks to wait; requests
    that create something carry an idempotency key, so a retry creates nothing twice. ``timeout_s``: how long one
    response may take to begin, or to continue. ``transport``: an httpx transport, for tests.

    Thread-safe. Close it with :meth:`close`, or use it as a context manager. Raises SettingsError for an invalid
    argument.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry_timeout_s: float = 30.0,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        install_signature_filter()
        self.config = Config.read(url, api_key, retry_timeout_s=retry_timeout_s, timeout_s=timeout_s)
        self.progress_display = ProgressDisplay()
        self._http = httpx.Client(transport=transport, **self.config.http_options())
        self.runner = SyncRunner(self.config, self._http)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Twinset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    models = sync_method(_models.models)
    model = sync_method(_models.model)
    promote_model = sync_method(_models.promote_model)
    delete_model = sync_method(_models.delete_model)
    aliases = sync_method(_models.aliases)
    alias = sync_method(_models.alias)
    set_alias = sync_method(_models.set_alias)
    delete_alias = sync_method(_models.delete_alias)
    shares = sync_method(_models.shares)
    share_model = sync_method(_models.share_model)
    unshare_model = sync_method(_models.unshare_model)
    add_model = sync_method(_model_transfers.add_model)
    download_model = sync_method(_model_transfers.download_model)
    generate = sync_method(_jobs.generate, Job)
    job = sync_method(_jobs.job, Job)
    jobs = sync_iterator(_jobs.jobs_page, Job)
    uploads = sync_iterator(_uploads.uploads_page)
    delete_upload = sync_method(_uploads.delete_upload)
    upload_dataset = sync_method(_datasets.upload_dataset, DatasetRef)
    import_dataset = sync_method(_datasets.import_dataset, DatasetRef)
    dataset = sync_method(_datasets.dataset, DatasetRef)
    datasets = sync_iterator(_datasets.datasets_page, DatasetRef)
    export = sync_method(_exports.export, Export)
    get_export = sync_method(_exports.get_export, Export)
    exports = sync_iterator(_exports.exports_page, Export)
    augmentation = sync_method(_augmentations.augmentation, Augmentation)
    augmentations = sync_iterator(_augmentations.augmentations_page, Augmentation)
    train = sync_method(_trainings.train, Training)
    plan_training = sync_method(_trainings.plan_training)
    training = sync_method(_trainings.training, Training)
    trainings = sync_iterator(_trainings.trainings_page, Training)

    if TYPE_CHECKING:  # the return type depends on dry_run, which takes overloads

        @overload
        def augment(
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
        def augment(
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
        ) -> Augmentation: ...
        def augment(self, **given: Any) -> Augmentation | PlanInfo: ...

    else:
        augment = sync_method(_augmentations.augment, lambda client, found: _augmented(client, found))


def _augmented(client: BaseClient, found: AugmentationInfo | PlanInfo) -> Augmentation | PlanInfo:
    return found if isinstance(found, PlanInfo) else Augmentation(client, found)
