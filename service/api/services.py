"""The services that endpoints use: one of each per app, injected as a dependency."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, Request

from service.api.bodies import BodyMemory
from service.api.fleet import FleetWork
from service.api.metrics import Metrics
from service.api.shared_result import SharedResult
from service.api.slots import Slots
from service.api.watcher import Watcher
from service.api.wrong_keys import WrongKeys
from service.auth.authenticate import Authenticator
from service.broker.live_state import LiveState
from service.errors import TwinsetError
from service.jobs.progress import ProgressReader
from service.jobs.quotas import Quotas
from service.jobs.repository import JobRepository
from service.jobs.submit import JobSubmitter
from service.masks.uploads import Uploads
from service.registry.catalogue import Catalogue
from service.runs.dataset_versions import Datasets
from service.runs.repository import RunRepository
from service.runs.submit import RunSubmitter
from service.settings import Settings
from service.store.base import ObjectStore
from service.trainings.quota import TrainingQuota

Found = TypeVar("Found")


class LookUp(Protocol):
    """Calls a function that waits for the store or Redis, off the event loop."""

    def __call__(self, read: Callable[[], Found], /) -> Awaitable[Found]:
        """What ``read`` returns or raises."""


def outcome(check: Callable[[], None]) -> str:
    """``ok``, or what the check of a part raised."""
    try:
        check()
    except TwinsetError as error:
        return error.detail
    return "ok"


@dataclass(frozen=True)
class Services:
    """The parts of one running API."""

    settings: Settings
    store: ObjectStore
    repository: JobRepository
    catalogue: Catalogue
    live_state: LiveState
    progress: ProgressReader
    authenticator: Authenticator
    limits: Quotas
    training_quota: TrainingQuota
    uploads: Uploads
    submitter: JobSubmitter
    runs: RunRepository
    run_submitter: RunSubmitter
    watcher: Watcher
    metrics: Metrics
    metrics_text: SharedResult[bytes]
    readiness: SharedResult[dict[str, str]]
    look_up: LookUp
    bodies: BodyMemory
    streams: Slots
    transfers: Slots
    wrong_keys: WrongKeys
    fleet: SharedResult[FleetWork]

    def datasets(self, tenant: str) -> Datasets:
        """The tenant's datasets."""
        return Datasets(self.runs, tenant)

    def path(self, path: str) -> str:
        """``path`` as clients see it: prefixed with the path of ``public_url``, which a proxy may add."""
        return urlsplit(self.settings.public_url).path + path


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
