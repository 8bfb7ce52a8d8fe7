"""The resources of one bulk worker process: settings, store, repositories, Redis, leases and queues."""

from __future__ import annotations

import os
import platform
import threading
import uuid
from dataclasses import dataclass, field

from redis import Redis

from service.broker.fair_queue import QueueGroup, TenantQueues
from service.broker.live_state import LiveState
from service.broker.queues import ChunkSender, JobQueue
from service.broker.run_queue import RUN_QUEUES, RunQueue, RunSender
from service.jobs.quotas import Quotas
from service.jobs.repository import JobRepository
from service.jobs.submit import JobSubmitter
from service.masks.reader import MaskReader
from service.masks.uploads import Uploads
from service.registry.catalogue import Catalogue
from service.runs.repository import RunRepository
from service.settings import Settings
from service.store import open_store
from service.store.base import ObjectStore
from workers.runtime.lease_renewal import LeaseRenewer
from workers.runtime.leases import Leases
from workers.runtime.redis import connect
from workers.runtime.shutdown import Shutdown
from workers.runtime.slots import ProcessSlots


@dataclass(frozen=True)
class BulkWorker:
    """One per process. It makes no twins itself: augmentation sets submit jobs through ``submitter``."""

    settings: Settings
    store: ObjectStore
    runs: RunRepository
    repository: JobRepository
    catalogue: Catalogue
    submitter: JobSubmitter
    live_state: LiveState
    leases: Leases
    renewer: LeaseRenewer
    queue: RunSender
    slots: ProcessSlots
    redis: Redis
    name: str
    shutdown: Shutdown = field(default_factory=Shutdown)
    closed: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        """Closes all connections and threads. Call it when no task runs any more."""
        self.closed.set()
        self.renewer.close()
        self.live_state.close()
        self.redis.close()
        for queue in (self.queue, self.submitter.queue):
            if isinstance(queue, (RunQueue, JobQueue)):
                queue.close()


def open_bulk_worker(
    settings: Settings,
    *,
    store: ObjectStore | None = None,
    queue: RunSender | None = None,
    chunks: ChunkSender | None = None,
    grace_s: float = 8.0,
    queues: QueueGroup = RUN_QUEUES,
    slots: int | None = None,
) -> BulkWorker:
    """Builds a worker from settings, without any network access. It takes ``slots`` runs of ``queues`` at once."""
    store = store or open_store(settings)
    redis = connect(settings)
    live_state = LiveState(settings.broker_url)
    name = f"{platform.node() or 'bulk'}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    leases = Leases(redis, settings.lease_s, name)
    repository = JobRepository(store)
    catalogue = Catalogue(store)
    uploads = Uploads(store)
    quotas = Quotas(
        repository.usage,
        live_state,
        queued_samples=settings.limit_queued_samples,
        stored_bytes=settings.limit_stored_bytes,
    )
    reader = MaskReader(settings, uploads)
    return BulkWorker(
        settings=settings,
        store=store,
        runs=RunRepository(store),
        repository=repository,
        catalogue=catalogue,
        submitter=JobSubmitter(settings, repository, catalogue, chunks or JobQueue(settings), uploads, reader, quotas),
        live_state=live_state,
        leases=leases,
        renewer=LeaseRenewer(leases, settings.lease_s),
        queue=queue or RunQueue(settings),
        slots=ProcessSlots(TenantQueues(redis, queues), slots or settings.bulk_threads),
        redis=redis,
        name=name,
        shutdown=Shutdown(grace_s),
    )
