"""The app, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from service import __version__
from service.access.gate import Gate
from service.access.limits import Limits
from service.access.ring import KeyRing
from service.api import (
    archive,
    augmentations,
    datasets,
    events,
    exports,
    generate,
    health,
    jobs,
    manifest,
    models,
    objects,
    retry,
    run_events,
    samples,
    twins,
    uploads,
)
from service.api.body_limit import BodyLimitMiddleware
from service.api.logs import keep_secrets_out_of_logs
from service.api.lookups import Lookups
from service.api.metrics import Metrics, MetricsMiddleware
from service.api.openapi import install_openapi
from service.api.problems import install_problem_handlers
from service.api.services import Services
from service.api.watching import Watcher
from service.catalogue import Catalogue
from service.jobs.hints import Hints
from service.jobs.ledger import Ledger
from service.jobs.progress import ProgressReader
from service.jobs.submission import Submissions
from service.jobs.tenants import DEFAULT_TENANT
from service.masks.reader import MaskReader
from service.masks.uploads import Uploads
from service.queue import ChunkSender, JobQueue
from service.runs.acceptance import Acceptance
from service.runs.ledger import RunLedger
from service.runs.queue import RunQueue, RunSender
from service.settings import Settings, get_settings
from service.store.base import ObjectStore
from service.store.opening import open_store

DESCRIPTION = """Twins, an image and its segmentation mask, in any number, on request.

`POST /generate` makes a job; `GET /jobs/{id}` or its events tell when it has ended; samples and archive are what it
made. Where the service has API keys, each stands for a tenant, whose jobs and uploads are its own. Errors are
`application/problem+json`: the value, the limit and the remedy."""


def create_app(
    settings: Settings | None = None,
    *,
    store: ObjectStore | None = None,
    queue: ChunkSender | None = None,
    run_queue: RunSender | None = None,
    hints: Hints | None = None,
    catalogue: Catalogue | None = None,
) -> FastAPI:
    """The API for ``settings`` (the environment's if None). The other parts are made from these unless given.

    Neither store nor broker need answer for the app to start.
    """
    settings = settings or get_settings()
    keep_secrets_out_of_logs()
    store = store or open_store(settings)
    queue = queue or JobQueue(settings)
    run_queue = run_queue or RunQueue(settings)
    hints = hints or Hints(settings.broker_url)
    catalogue = catalogue or Catalogue(store)
    ledger = Ledger(store)
    progress = ProgressReader(ledger, hints)
    limits = Limits(
        ledger.holdings, hints, queued_samples=settings.limit_queued_samples, stored_bytes=settings.limit_stored_bytes
    )
    kept = Uploads(store, DEFAULT_TENANT)
    services = Services(
        settings=settings,
        store=store,
        ledger=ledger,
        catalogue=catalogue,
        hints=hints,
        progress=progress,
        gate=Gate(KeyRing(store), settings.require_keys),
        limits=limits,
        uploads=kept,
        submissions=Submissions(settings, ledger, catalogue, queue, kept, MaskReader(settings, kept), limits),
        runs=RunLedger(store),
        acceptance=Acceptance(RunLedger(store), run_queue),
        watcher=Watcher(settings.broker_url),
        metrics=Metrics(),
        look_up=Lookups().run if settings.store_url.startswith("file:") else run_in_threadpool,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await services.watcher.close()
        await hints.aclose()
        for producer in (queue, run_queue):
            if isinstance(producer, (JobQueue, RunQueue)):
                producer.close()

    # FastAPI with the assets of its documentation page served from here: an internal network may have no way out.
    app = FastAPIOffline(
        title="Twinset",
        version=__version__,
        description=DESCRIPTION,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.services = services
    results = (retry, samples, events, manifest, archive, twins)
    for part in (generate, uploads, jobs, *results, datasets, augmentations, exports, run_events, models, health):
        app.include_router(part.router)
    for part in (augmentations, exports):
        app.include_router(part.posting)
    if settings.store_url.startswith("file:"):
        app.include_router(objects.router)
    install_problem_handlers(app)
    install_openapi(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes, others={"/datasets": settings.max_dataset_bytes})
    app.add_middleware(MetricsMiddleware, metrics=services.metrics)
    return app
