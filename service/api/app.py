"""The FastAPI app: its parts, routes and middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from service import __version__
from service.api.bodies import BodyMemory
from service.api.body_limit import BodyLimitMiddleware
from service.api.docs import add_docs
from service.api.errors import install_problem_handlers
from service.api.fleet import FleetCollector, shared_fleet_work
from service.api.log_redaction import install_log_redaction
from service.api.lookups import Lookups
from service.api.metrics import Metrics, MetricsMiddleware
from service.api.openapi import install_openapi
from service.api.request_headers import GateMiddleware
from service.api.request_ids import RequestIdMiddleware
from service.api.routes import (
    archive,
    augmentations,
    autoscaling,
    dataset_upload,
    datasets,
    exports,
    generate,
    health,
    job_events,
    jobs,
    manifest,
    model_aliases,
    model_shares,
    model_upload,
    models,
    objects,
    repairs,
    run_events,
    samples,
    trainings,
    twins,
    uploads,
)
from service.api.services import Services, outcome
from service.api.shared_result import SharedResult
from service.api.slots import Slots
from service.api.watcher import Watcher
from service.api.wrong_keys import WrongKeys
from service.auth.authenticate import Authenticator
from service.auth.key_store import KeyStore
from service.broker.live_state import LiveState
from service.broker.queues import ChunkSender, JobQueue
from service.broker.run_queue import RunQueue, RunSender
from service.jobs.progress import ProgressReader
from service.jobs.quotas import Quotas
from service.jobs.repository import JobRepository
from service.jobs.submit import JobSubmitter
from service.masks.reader import MaskReader
from service.masks.uploads import Uploads
from service.registry.catalogue import Catalogue
from service.runs.repository import RunRepository
from service.runs.submit import RunSubmitter
from service.settings import Settings, get_settings
from service.store.base import ObjectStore
from service.store.opening import open_store
from service.trainings.quota import TrainingQuota, TrainingUsage

DESCRIPTION = """Twins, pairs of an image and its segmentation mask, on request.

`POST /generate` creates a job; `GET /jobs/{id}` or its events report its progress; its samples and archive are the
results. An API key stands for a tenant, and sees only that tenant's jobs, runs and uploads. Errors are
`application/problem+json` with the value, the limit and the remedy. Any request may be refused by its header: 400 (a
header came twice), 403 (sent by another site's page), 421 (another host's name), 431 (too large), 408 (too slow)."""


def create_app(
    settings: Settings | None = None,
    *,
    store: ObjectStore | None = None,
    queue: ChunkSender | None = None,
    run_queue: RunSender | None = None,
    live_state: LiveState | None = None,
    catalogue: Catalogue | None = None,
) -> FastAPI:
    """The API for ``settings`` (the environment's if None). The other parts are built from these unless given.

    The app starts also if neither store nor broker answers.
    """
    settings = settings or get_settings()
    install_log_redaction()
    store = store or open_store(settings)
    queue = queue or JobQueue(settings)
    run_queue = run_queue or RunQueue(settings)
    live_state = live_state or LiveState(settings.broker_url)
    catalogue = catalogue or Catalogue(store)
    repository = JobRepository(store)
    progress = ProgressReader(repository, live_state)
    limits = Quotas(
        repository.usage,
        live_state,
        queued_samples=settings.limit_queued_samples,
        stored_bytes=settings.limit_stored_bytes,
    )
    stored_uploads = Uploads(store)
    metrics = Metrics()
    services = Services(
        settings=settings,
        store=store,
        repository=repository,
        catalogue=catalogue,
        live_state=live_state,
        progress=progress,
        authenticator=Authenticator(KeyStore(store), settings.require_keys),
        limits=limits,
        training_quota=TrainingQuota(TrainingUsage(store), settings.limit_training_device_seconds),
        uploads=stored_uploads,
        submitter=JobSubmitter(
            settings, repository, catalogue, queue, stored_uploads, MaskReader(settings, stored_uploads), limits
        ),
        runs=RunRepository(store),
        run_submitter=RunSubmitter(RunRepository(store), run_queue),
        watcher=Watcher(settings.broker_url),
        metrics=metrics,
        metrics_text=SharedResult(metrics.text),
        readiness=SharedResult(lambda: {"store": outcome(store.check), "broker": outcome(live_state.ping)}),
        look_up=Lookups().run if settings.store_url.startswith("file:") else run_in_threadpool,
        bodies=BodyMemory(settings.max_body_memory_bytes, settings.max_body_bytes),
        streams=Slots(settings.limit_streams, "event streams and waiting requests", "TWINSET_LIMIT_STREAMS"),
        transfers=Slots(settings.limit_transfers, "downloads and uploads", "TWINSET_LIMIT_TRANSFERS"),
        wrong_keys=WrongKeys(),
        fleet=shared_fleet_work(repository, RunRepository(store), live_state),
    )
    services.metrics.registry.register(FleetCollector(services.fleet))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await services.watcher.close()
        await live_state.aclose()
        for producer in (queue, run_queue):
            if isinstance(producer, (JobQueue, RunQueue)):
                producer.close()

    app = FastAPI(
        title="Twinset",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.services = services
    for part in (
        generate,
        uploads,
        jobs,
        repairs,
        job_events,
        samples,
        manifest,
        archive,
        twins,
        dataset_upload,
        datasets,
        augmentations,
        exports,
        trainings,
        run_events,
        models,
        model_aliases,
        model_shares,
        model_upload,
        health,
        autoscaling,
    ):
        app.include_router(part.router)
    for part in (uploads, augmentations, exports, trainings, model_aliases, model_shares, model_upload):
        app.include_router(part.posting)
    if settings.store_url.startswith("file:"):
        app.include_router(objects.router)
    install_problem_handlers(app)
    add_docs(app, prefix=services.path(""))
    install_openapi(app, prefix=services.path(""))
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        timeout_s=settings.body_timeout_s,
        others={"/datasets": settings.max_dataset_bytes, "/models": settings.max_model_bytes},
    )
    app.add_middleware(GateMiddleware, settings=settings)
    app.add_middleware(MetricsMiddleware, metrics=services.metrics)
    app.add_middleware(RequestIdMiddleware)
    return app
