"""The FastAPI app: its parts, routes and middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from service import __version__
from service.api.body_limit import BodyLimitMiddleware
from service.api.errors import install_problem_handlers
from service.api.log_redaction import install_log_redaction
from service.api.lookups import Lookups
from service.api.metrics import Metrics, MetricsMiddleware
from service.api.openapi import install_openapi
from service.api.routes import (
    archive,
    augmentations,
    dataset_upload,
    datasets,
    exports,
    generate,
    health,
    job_events,
    jobs,
    manifest,
    models,
    objects,
    run_events,
    samples,
    twins,
    uploads,
)
from service.api.services import Services
from service.api.watcher import Watcher
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

DESCRIPTION = """Twins, pairs of an image and its segmentation mask, on request.

`POST /generate` creates a job; `GET /jobs/{id}` or its events report its progress; its samples and archive are the
results. An API key stands for a tenant, and sees only that tenant's jobs, runs and uploads. Errors are
`application/problem+json` with the value, the limit and the remedy."""


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
    services = Services(
        settings=settings,
        store=store,
        repository=repository,
        catalogue=catalogue,
        live_state=live_state,
        progress=progress,
        authenticator=Authenticator(KeyStore(store), settings.require_keys),
        limits=limits,
        uploads=stored_uploads,
        submitter=JobSubmitter(
            settings, repository, catalogue, queue, stored_uploads, MaskReader(settings, stored_uploads), limits
        ),
        runs=RunRepository(store),
        run_submitter=RunSubmitter(RunRepository(store), run_queue),
        watcher=Watcher(settings.broker_url),
        metrics=Metrics(),
        look_up=Lookups().run if settings.store_url.startswith("file:") else run_in_threadpool,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await services.watcher.close()
        await live_state.aclose()
        for producer in (queue, run_queue):
            if isinstance(producer, (JobQueue, RunQueue)):
                producer.close()

    # FastAPI that serves the assets of its documentation page itself: an internal network may have no internet access.
    app = FastAPIOffline(
        title="Twinset",
        version=__version__,
        description=DESCRIPTION,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.services = services
    for part in (
        generate,
        uploads,
        jobs,
        job_events,
        samples,
        manifest,
        archive,
        twins,
        dataset_upload,
        datasets,
        augmentations,
        exports,
        run_events,
        models,
        health,
    ):
        app.include_router(part.router)
    for part in (augmentations, exports):
        app.include_router(part.posting)
    if settings.store_url.startswith("file:"):
        app.include_router(objects.router)
    install_problem_handlers(app)
    install_openapi(app)
    app.add_middleware(
        BodyLimitMiddleware, max_bytes=settings.max_body_bytes, others={"/datasets": settings.max_dataset_bytes}
    )
    app.add_middleware(MetricsMiddleware, metrics=services.metrics)
    return app
