"""The worker: everything that one process holds, from its engine and models to its store and Redis."""

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
from service.kit.cores import usable_cores
from service.settings import Settings
from service.store import open_store
from service.store.base import ObjectStore
from workers.engine import Engine
from workers.generation.claims import Claims
from workers.generation.completion import JobCompletion
from workers.generation.dispatch import ChunkDispatcher
from workers.generation.fleet import Fleet
from workers.generation.inputs import JobInputs
from workers.generation.isolation import Isolation
from workers.generation.metrics import watch
from workers.generation.pipeline import Pipeline
from workers.generation.progress import ProgressPublisher
from workers.generation.start_marks import StartMarks
from workers.models.cache import Load, ModelCache
from workers.runtime.lease_renewal import LeaseRenewer
from workers.runtime.leases import Leases
from workers.runtime.redis import connect
from workers.runtime.shutdown import Shutdown
from workers.runtime.slots import ProcessSlots


@dataclass(frozen=True)
class Worker:
    """The parts of one worker process. ``name`` is in the records that it writes."""

    settings: Settings
    repository: JobRepository
    live_state: LiveState
    leases: Leases
    dispatcher: ChunkDispatcher
    slots: ProcessSlots
    claims: Claims
    isolation: Isolation
    fleet: Fleet
    completion: JobCompletion
    inputs: JobInputs
    models: ModelCache
    engine: Engine
    pipeline: Pipeline
    redis: Redis
    name: str
    shutdown: Shutdown = field(default_factory=Shutdown)
    closed: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        """Stops the engine and the pipeline and closes connections. Call it when no task runs any more."""
        self.closed.set()
        self.fleet.leave()
        self.claims.close()
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
    """Builds a worker from settings, without touching network or models. ``load`` replaces the loading of models."""
    store = store or open_store(settings)
    redis = connect(settings)
    live_state = LiveState(settings.broker_url)
    name = f"{platform.node() or 'worker'}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    leases = Leases(redis, settings.lease_s, name)
    cpu_threads = settings.cpu_threads or available_cores()
    repository = JobRepository(store)
    dispatcher = ChunkDispatcher(redis, queue or JobQueue(settings), settings.chunks_in_flight)
    progress = ProgressPublisher(redis, live_state)
    shutdown = Shutdown(grace_s)
    name = f"{platform.node() or 'worker'}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    engine = Engine(cpu_threads=cpu_threads, on_device_lost=_end_process)
    return Worker(
        settings=settings,
        repository=repository,
        live_state=live_state,
        leases=leases,
        dispatcher=dispatcher,
        slots=ProcessSlots(dispatcher.fair_queue, settings.worker_threads),
        claims=Claims(
            repository=repository,
            live_state=live_state,
            leases=leases,
            renewer=LeaseRenewer(leases, settings.lease_s),
            dispatcher=dispatcher,
            start_marks=StartMarks(repository),
            progress=progress,
            shutdown=shutdown,
        ),
        isolation=Isolation(redis, leases, shutdown),
        fleet=Fleet(redis, name, settings.sweep_interval_s),
        completion=JobCompletion(repository, leases, dispatcher, progress),
        inputs=JobInputs(store),
        models=ModelCache(settings, store, cpu_threads=cpu_threads, load=load, on_loaded=watch),
        engine=engine,
        pipeline=Pipeline(engine, store),
        redis=redis,
        name=name,
        shutdown=shutdown,
    )


def _end_process() -> None:
    """Sends SIGTERM to this process, so that it shuts down; its supervisor starts a new one."""
    os.kill(os.getpid(), signal.SIGTERM)


def available_cores() -> int:
    """The number of cores that this process may use, without hyper-threads if torch knows them."""
    return max(1, min(usable_cores(), torch.get_num_threads()))
