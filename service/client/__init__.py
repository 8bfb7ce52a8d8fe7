"""Twinset from Python: twins asked for, datasets sent, sets fetched, and opened for PyTorch.

    from service.client import Twinset

    with Twinset() as client:
        job = client.generate(model="cosimgen-dubai", classes=["water"], count=100)
        dataset = job.torch_dataset("twins")

:class:`AsyncTwinset` has the same methods, to be awaited. Importing this loads neither torch nor what a server is made
of.

    twinset, async_twinset     the clients, and what their calls return
    jobs, datasets, exports, augmentations, models     what the calls do, written once, as flows
    effects, blocking, cooperative     what a flow asks of the world, and those who do it
    sending, wire, config      requests repeated, answers taken apart, the key kept
    downloading, folder, unzipping     files into a folder, each whole or not at all
    torch_dataset, layouts     a downloaded set, pair by pair
"""

from __future__ import annotations

from service.client.async_twinset import AsyncAugmentation, AsyncDatasetRef, AsyncExport, AsyncJob, AsyncTwinset
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
from service.client.twinset import Augmentation, DatasetRef, Export, Job, Twinset
from service.client.views import Model, PlanInfo, Sample
from service.errors import TwinsetError

__all__ = [
    "ApiProblem",
    "AsyncAugmentation",
    "AsyncDatasetRef",
    "AsyncExport",
    "AsyncJob",
    "AsyncTwinset",
    "Augmentation",
    "DatasetRef",
    "Download",
    "DownloadFailed",
    "DownloadRefused",
    "Export",
    "FolderTaken",
    "Job",
    "Model",
    "PlanInfo",
    "RunFailed",
    "Sample",
    "ServerUnreachable",
    "StillRunning",
    "TorchMissing",
    "Twinset",
    "TwinsetError",
    "UnexpectedAnswer",
]
