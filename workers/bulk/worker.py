"""Everything that one bulk worker process holds."""

from __future__ import annotations

import os
import platform
import threading
import uuid
from dataclasses import dataclass, field

from redis import Redis

from service.broker.live_state import Hints
from service.broker.queues import ChunkSender, JobQueue
from service.broker.run_queue import RunQueue, RunSender
from service.jobs.quotas import Limits
from service.jobs.repository import Ledger
from service.jobs.submit import Submissions
from service.kit.tenants import DEFAULT_TENANT
from service.masks.reader import MaskReader
from service.masks.uploads import Uploads
from service.registry.catalogue import Catalogue
from service.runs.repository import RunLedger
from service.settings import Settings
from service.store import open_store
from service.store.base import ObjectStore
from workers.runtime.lease_renewal import LeaseKeeper
from workers.runtime.leases import Leases
from workers.runtime.redis import connect
from workers.runtime.shutdown import Stopping


@dataclass(frozen=True)
class BulkWorker:
    """One a process. It makes no twins itself: augmentation sets have jobs made, by ``submissions``."""

    settings: Settings
    store: ObjectStore
    runs: RunLedger
    ledger: Ledger
    catalogue: Catalogue
    submissions: Submissions
    hints: Hints
    leases: Leases
    keeper: LeaseKeeper
    queue: RunSender
    redis: Redis
    name: str
    stopping: Stopping = field(default_factory=Stopping)
    closed: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        """Gives everything back. Call it when no task runs any more."""
        self.closed.set()
        self.keeper.close()
        self.hints.close()
        self.redis.close()
        for queue in (self.queue, self.submissions.queue):
            if isinstance(queue, (RunQueue, JobQueue)):
                queue.close()


def open_bulk_worker(
    settings: Settings,
    *,
    store: ObjectStore | None = None,
    queue: RunSender | None = None,
    chunks: ChunkSender | None = None,
    grace_s: float = 8.0,
) -> BulkWorker:
    """Builds a worker from settings. Touches no network."""
    store = store or open_store(settings)
    redis = connect(settings)
    hints = Hints(settings.broker_url)
    leases = Leases(redis, settings.lease_s)
    ledger = Ledger(store)
    catalogue = Catalogue(store)
    kept = Uploads(store, DEFAULT_TENANT)
    limits = Limits(
        ledger.holdings, hints, queued_samples=settings.limit_queued_samples, stored_bytes=settings.limit_stored_bytes
    )
    reader = MaskReader(settings, kept)
    return BulkWorker(
        settings=settings,
        store=store,
        runs=RunLedger(store),
        ledger=ledger,
        catalogue=catalogue,
        submissions=Submissions(settings, ledger, catalogue, chunks or JobQueue(settings), kept, reader, limits),
        hints=hints,
        leases=leases,
        keeper=LeaseKeeper(leases, settings.lease_s),
        queue=queue or RunQueue(settings),
        redis=redis,
        name=f"{platform.node() or 'bulk'}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
        stopping=Stopping(grace_s),
    )
