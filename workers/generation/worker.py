"""Everything that one worker process holds: its engine, its models, its ways to the store and to Redis."""

from __future__ import annotations

import os
import platform
import signal
import threading
import uuid
from dataclasses import dataclass, field

import torch
from redis import Redis

from service.broker.live_state import LiveState
from service.broker.queues import ChunkSender, JobQueue
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.store import open_store
from service.store.base import ObjectStore
from workers.engine import Engine
from workers.generation.dispatch import ChunkDispatcher
from workers.generation.inputs import JobInputs
from workers.generation.metrics import watch
from workers.generation.pipeline import Pipeline
from workers.generation.progress import ProgressPublisher
from workers.generation.start_marks import StartMarks
from workers.models.cache import Load, ModelCache
from workers.runtime.lease_renewal import LeaseRenewer
from workers.runtime.leases import Leases
from workers.runtime.redis import connect
from workers.runtime.shutdown import Shutdown


@dataclass(frozen=True)
class Worker:
    """One a process. ``name`` stands in the records that it writes."""

    settings: Settings
    repository: JobRepository
    live_state: LiveState
    leases: Leases
    renewer: LeaseRenewer
    dispatcher: ChunkDispatcher
    start_marks: StartMarks
    progress: ProgressPublisher
    inputs: JobInputs
    models: ModelCache
    engine: Engine
    pipeline: Pipeline
    redis: Redis
    name: str
    shutdown: Shutdown = field(default_factory=Shutdown)
    closed: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        """Stops the engine and ends the stages. Call it when no task runs any more."""
        self.closed.set()
        self.renewer.close()
        self.engine.stop()
        self.pipeline.close()
        self.live_state.close()
        self.redis.close()


def open_worker(
    settings: Settings,
    *,
    store: ObjectStore | None = None,
    queue: ChunkSender | None = None,
    load: Load | None = None,
    grace_s: float = 8.0,
) -> Worker:
    """Builds a worker from settings. Touches neither network nor models; ``load`` replaces the loading of models."""
    store = store or open_store(settings)
    redis = connect(settings)
    live_state = LiveState(settings.broker_url)
    leases = Leases(redis, settings.lease_s)
    cpu_threads = settings.cpu_threads or available_cores()
    repository = JobRepository(store)
    engine = Engine(cpu_threads=cpu_threads, on_device_lost=_end_process)
    return Worker(
        settings=settings,
        repository=repository,
        live_state=live_state,
        leases=leases,
        renewer=LeaseRenewer(leases, settings.lease_s),
        dispatcher=ChunkDispatcher(redis, queue or JobQueue(settings), settings.chunks_in_flight),
        start_marks=StartMarks(repository),
        progress=ProgressPublisher(redis, live_state),
        inputs=JobInputs(store),
        models=ModelCache(settings, store, cpu_threads=cpu_threads, load=load, on_loaded=watch),
        engine=engine,
        pipeline=Pipeline(engine, store),
        redis=redis,
        name=f"{platform.node() or 'worker'}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
        shutdown=Shutdown(grace_s),
    )


def _end_process() -> None:
    """Asks this process to end in good order; whoever runs it starts it afresh."""
    os.kill(os.getpid(), signal.SIGTERM)


def available_cores() -> int:
    """The cores that this process may use, hyper-threads left out where torch knows."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, torch.get_num_threads()))
