"""Python client of a Twinset server: generate twins, upload datasets, download sets, open them in PyTorch.

    from twinset import Twinset

    with Twinset() as client:
        job = client.generate(model="cosimgen-dubai", classes=["water"], count=100)
        dataset = job.torch_dataset("twins")

:class:`AsyncTwinset` has the same methods for asyncio. ``twinset`` is the import name of this package. Importing it
loads neither torch nor numpy, Pillow or any part of the server. See README.md for more examples.

    twinset, async_twinset         the two clients, and the runs that their methods return
    views, errors                  value classes of the API's answers, and all errors
    jobs, datasets, exports, augmentations, trainings, models, uploads, runs, masks    the operations, once as flows
    effects, sync_runner, async_runner, client    what a flow can ask for, and the runners that perform it
    retries, requests, wire, paging, config       retries, idempotency keys, HTTP, pages of lists, settings
    model_transfers                models as one tar, or as a folder
    downloading, job_files, folder, unzipping, packing    files: fetched, compared, unpacked, packed for upload
    progress_bars                  progress bars in terminals and notebooks
    torch_dataset, layouts         a downloaded set as a PyTorch dataset
"""

from __future__ import annotations

from service.client.async_twinset import (
    AsyncAugmentation,
    AsyncDatasetRef,
    AsyncExport,
    AsyncJob,
    AsyncTraining,
    AsyncTwinset,
)
from service.client.downloading import Download
from service.client.errors import (
    ApiProblem,
    DownloadFailed,
    DownloadRefused,
    FolderTaken,
    RunFailed,
    ServerUnreachable,
    StillRunning,
    TorchMissing,
    UnexpectedAnswer,
)
from service.client.twinset import Augmentation, DatasetRef, Export, Job, Training, Twinset
from service.client.views import (
    AliasInfo,
    AugmentationInfo,
    DatasetInfo,
    ExportInfo,
    JobInfo,
    Model,
    PlanInfo,
    Sample,
    ShareInfo,
    TrainingInfo,
    UploadInfo,
)
from service.errors import InvalidDataset, InvalidRequest, SettingsError, TwinsetError
from service.trainings.plan_values import TrainingPlan

__all__ = [
    "AliasInfo",
    "ApiProblem",
    "AsyncAugmentation",
    "AsyncDatasetRef",
    "AsyncExport",
    "AsyncJob",
    "AsyncTraining",
    "AsyncTwinset",
    "Augmentation",
    "AugmentationInfo",
    "DatasetInfo",
    "DatasetRef",
    "Download",
    "DownloadFailed",
    "DownloadRefused",
    "Export",
    "ExportInfo",
    "FolderTaken",
    "InvalidDataset",
    "InvalidRequest",
    "Job",
    "JobInfo",
    "Model",
    "PlanInfo",
    "RunFailed",
    "Sample",
    "ServerUnreachable",
    "SettingsError",
    "ShareInfo",
    "StillRunning",
    "TorchMissing",
    "Training",
    "TrainingInfo",
    "TrainingPlan",
    "Twinset",
    "TwinsetError",
    "UnexpectedAnswer",
    "UploadInfo",
]
