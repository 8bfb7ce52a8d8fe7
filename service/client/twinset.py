"""The client for scripts and notebooks: every call returns when it is done.

What the methods do is written once, as flows, in ``jobs``, ``datasets``, ``exports``, ``augmentations`` and ``models``;
here they are bound to a runner that blocks.
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
from service.client.blocking import BlockingRunner, blocking, blocking_pages
from service.client.client import BaseClient
from service.client.config import Config, keep_signatures_out_of_logs
from service.client.progress_bars import Board
from service.client.views import AugmentationInfo, PlanInfo


class _Blocking:
    """What every kind of run can do."""

    refresh = blocking(_runs.refresh)
    wait = blocking(_runs.wait)
    cancel = blocking(_runs.cancel)
    delete = blocking(_runs.delete)


class Job(_jobs.JobRun, _Blocking):
    """A job: twins in the making, or made."""

    samples = blocking_pages(_jobs.samples_page)
    download = blocking(_jobs.download)
    torch_dataset = blocking(_jobs.torch_dataset)

    def retry(self) -> Job:
        """A new job with what is missing of this one, which must have ended: the same indices and seeds, so the same
        twins."""
        return Job(self._client, self._client.runner.run(_jobs.retry(self)))


class DatasetRef(_datasets.DatasetRun, _Blocking):
    """One version of an uploaded dataset."""

    report = blocking(_datasets.report)
    statistics = blocking(_datasets.statistics)


class Export(_exports.ExportRun, _Blocking):
    """An export: a set in the making, or written."""

    files = blocking_pages(_exports.files_page)
    download = blocking(_exports.download)
    torch_dataset = blocking(_exports.torch_dataset)


class Augmentation(_augmentations.AugmentationRun, _Blocking):
    """An augmentation: a dataset being extended, or extended."""

    samples = blocking_pages(_jobs.samples_page)
    export = blocking(_augmentations.export, Export)


class Twinset(BaseClient):
    """A client of the Twinset server at ``url``, else at the environment's ``TWINSET_PUBLIC_URL``, else on this
    machine.

    ``api_key``, else the environment's ``TWINSET_API_KEY``, goes to the server and nowhere else. Requests that may be
    repeated are, for ``patience_s`` seconds, while the server cannot be reached or asks to wait; ``timeout_s`` is how
    long one answer may take to begin, or to go on. May be used from many threads; close it, or use it as a context.
    Raises SettingsError for an address or a key that is none.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        patience_s: float = 30.0,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        keep_signatures_out_of_logs()
        self.config = Config.read(url, api_key, patience_s=patience_s, timeout_s=timeout_s)
        self.board = Board()
        self._http = httpx.Client(transport=transport, **self.config.http_options())
        self.runner = BlockingRunner(self.config, self._http)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Twinset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    models = blocking(_models.models)
    model = blocking(_models.model)
    generate = blocking(_jobs.generate, Job)
    job = blocking(_jobs.job, Job)
    jobs = blocking_pages(_jobs.jobs_page, Job)
    upload_dataset = blocking(_datasets.upload_dataset, DatasetRef)
    import_dataset = blocking(_datasets.import_dataset, DatasetRef)
    dataset = blocking(_datasets.dataset, DatasetRef)
    datasets = blocking_pages(_datasets.datasets_page, DatasetRef)
    export = blocking(_exports.export, Export)
    find_export = blocking(_exports.find_export, Export)
    exports = blocking_pages(_exports.exports_page, Export)
    augmentation = blocking(_augmentations.augmentation, Augmentation)
    augmentations = blocking_pages(_augmentations.augmentations_page, Augmentation)

    if TYPE_CHECKING:  # what comes back depends on dry_run, which no one signature says

        @overload
        def augment(
            self, *, dataset: _datasets.DatasetRun | str, model: str, count: int | None = None, ratio: float | None = None,
            dry_run: Literal[True], **options: Any,
        ) -> PlanInfo: ...  # fmt: skip
        @overload
        def augment(
            self, *, dataset: _datasets.DatasetRun | str, model: str, count: int | None = None, ratio: float | None = None,
            idempotency_key: str | None = None, wait: bool = False, progress: bool = True, dry_run: Literal[False] = False, **options: Any,
        ) -> Augmentation: ...  # fmt: skip
        def augment(self, **given: Any) -> Augmentation | PlanInfo: ...

    else:
        augment = blocking(_augmentations.augment, lambda client, found: _augmented(client, found))


def _augmented(client: BaseClient, found: AugmentationInfo | PlanInfo) -> Augmentation | PlanInfo:
    return found if isinstance(found, PlanInfo) else Augmentation(client, found)
