"""``/trainings``: models and their parts, trained on stored datasets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from starlette.concurrency import run_in_threadpool

from service.api.auth import KeyedRoute, TenantDep
from service.api.content_type import JsonRoute
from service.api.openapi import answers
from service.api.own_runs import delete_run, own_run, runs_page
from service.api.parameters import Cursor, IdempotencyKey, numeric_cursor
from service.api.routes import callbacks
from service.api.schemas.jobs import as_json
from service.api.schemas.trainings import (
    CheckpointPage,
    TrainingPage,
    TrainingView,
    checkpoint_views,
    training_view,
)
from service.api.services import Services, ServicesDep
from service.api.sse import EventSource, LastEventId, events_operation, events_response
from service.errors import JobStateConflict
from service.jobs.idempotency import check_key
from service.kit.run_kinds import RunKind
from service.kit.states import JobState
from service.kit.validation import Faults
from service.runs.progress import RunProgress
from service.runs.spec import RunSpec
from service.trainings import control
from service.trainings.plan_values import TrainingPlan
from service.trainings.progress import TrainingProgress, training_progress
from service.trainings.records import TrainingRecords
from service.trainings.request import TrainingRequest
from service.trainings.resolve import TrainingResolver
from service.trainings.work import TrainingWork
from service.webhooks.spec import Callback
from service.webhooks.validate import admit_callback

router = APIRouter(route_class=KeyedRoute, tags=["trainings"])
posting = APIRouter(route_class=JsonRoute, tags=["trainings"])
TrainingId = Annotated[str, Path(description="A training's id.", examples=["t7ybr17pesw6kn47yb0"])]
_EVENT = 'id: 480.running.2-400\nevent: progress\ndata: {"id":"t7ybr17pesw6kn47yb0","state":"running",...}\n\n'


@posting.post(
    "/trainings",
    status_code=202,
    response_model=TrainingView,
    summary="Create a training",
    callbacks=callbacks.training_router.routes,
    responses={
        200: {"model": TrainingPlan, "description": "With `dry_run`: the plan. Nothing is trained or stored."},
        202: {
            "description": "The training, accepted.",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "Its path."}},
        },
        **answers(400, 404, 409, 413, 415, 422, 429, 503),
    },
)
def create_training(
    body: TrainingRequest, services: ServicesDep, tenant: TenantDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Trains a model, or a part of one, on stored datasets. A model whose base is not given is trained from nothing:
    autoencoder, base, then the model. The result is registered as the next version of the model's name."""
    if body.dry_run:
        if idempotency_key is not None:
            check_key(idempotency_key)
        return Response(as_json(_plan(services, tenant, body)), media_type="application/json")
    spec = _accept(services, tenant, body, idempotency_key)
    view = _view(services, spec)
    return Response(
        as_json(view), status_code=202, headers={"Location": str(view.links["self"])}, media_type="application/json"
    )


def _accept(services: Services, tenant: str, body: TrainingRequest, idempotency_key: str | None) -> RunSpec:
    """The run of the training: made now, or by an earlier request with the same key."""
    services.limits.check_stored(tenant=tenant)
    given = body.model_dump(mode="json", exclude_unset=True)
    submitter = services.run_submitter
    reservation = submitter.reserve(RunKind.TRAINING, tenant=tenant, key=idempotency_key, body=given)
    if (existing := submitter.find(reservation)) is not None:
        return existing
    work, callback = _resolve(services, tenant, body)
    reservation = reservation.bind()
    if (existing := submitter.find(reservation)) is not None:
        return existing
    with services.training_quota.admit(work, reservation.id, tenant=tenant) as admitted:
        spec, _ = submitter.submit(
            RunSpec(
                run=reservation.id,
                tenant=tenant,
                name=admitted.model,
                created_at=datetime.now(UTC),
                work=admitted.model_dump(mode="json"),
                request=given,
                idempotency=reservation.record,
                callback=callback,
            )
        )
    return spec


def _plan(services: Services, tenant: str, body: TrainingRequest) -> TrainingPlan:
    """The plan of the training, which a request without ``dry_run`` would be accepted for."""
    services.limits.check_stored(tenant=tenant)
    work, _ = _resolve(services, tenant, body)
    # loads numpy, so not at the start of the API
    from service.trainings.estimate import Planner

    return Planner(services.runs, tenant).plan(services.training_quota.check(work, tenant=tenant))


def _resolve(services: Services, tenant: str, body: TrainingRequest) -> tuple[TrainingWork, Callback | None]:
    """The training as decided, and its callback. Raises all faults of the request together."""
    faults = Faults()
    callback = admit_callback(body.callback_url, services.settings, faults)
    return TrainingResolver(services.runs, tenant).resolve(body, faults), callback


@router.get("/trainings", response_model=TrainingPage, summary="List trainings", responses=answers(422, 503))
def list_trainings(
    services: ServicesDep,
    tenant: TenantDep,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of trainings in the answer.")] = 20,
) -> TrainingPage:
    """Trainings, newest first."""

    def view(services: Services, spec: RunSpec, progress: RunProgress) -> TrainingView:
        return _view(services, spec)

    page = runs_page(services, tenant, RunKind.TRAINING, view, cursor=cursor, limit=limit)
    return TrainingPage(trainings=page.views, unreadable=page.unreadable, next_cursor=page.next_cursor)


@router.get("/trainings/{training}", response_model=TrainingView, summary="Get a training", responses=answers(404, 503))
def show_training(training: TrainingId, services: ServicesDep, tenant: TenantDep) -> TrainingView:
    """The training's progress: its stages with their loss curves, what it has used, and the model it made."""
    return _view(services, own_run(services, tenant, training, RunKind.TRAINING))


@router.get(
    "/trainings/{training}/events",
    summary="Follow a training",
    **events_operation("training", "TrainingView", "/trainings/{training}", _EVENT),
)
async def follow_training(
    training: TrainingId, services: ServicesDep, tenant: TenantDep, last_event_id: LastEventId = None
) -> Response:
    """The training's progress now, then at each change, a few times a second at most, until it has ended; a comment at
    least every 15 s. A stream whose training is deleted meanwhile ends without `ended`."""
    spec = await run_in_threadpool(own_run, services, tenant, training, RunKind.TRAINING)

    def read() -> TrainingProgress:
        now = _progress(services, spec)
        if not now.state.ended:
            own_run(services, tenant, spec.run, RunKind.TRAINING)
        return now

    source = EventSource(spec.run, read, _event_id, lambda progress: training_view(services, spec, progress))
    return await events_response(services, tenant, source, last_event_id)


@router.get(
    "/trainings/{training}/checkpoints",
    response_model=CheckpointPage,
    summary="List a training's checkpoints",
    responses=answers(404, 422, 503),
)
def list_checkpoints(
    training: TrainingId,
    services: ServicesDep,
    tenant: TenantDep,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Maximum number of checkpoints in the answer.")] = 100,
) -> CheckpointPage:
    """Checkpoints of all stages, oldest first, with the loss and a picture of samples at that time."""
    spec = own_run(services, tenant, training, RunKind.TRAINING)
    first = numeric_cursor(cursor) or 0
    expire_at = datetime.now(UTC) + timedelta(seconds=services.settings.link_expires_s)
    views, more = checkpoint_views(services, spec, first, limit)
    return CheckpointPage(
        checkpoints=views, next_cursor=str(first + limit) if more else None, links_expire_at=expire_at
    )


@router.post(
    "/trainings/{training}/cancel",
    response_model=TrainingView,
    summary="Cancel a training",
    responses=answers(404, 409, 503),
)
def cancel_training(training: TrainingId, services: ServicesDep, tenant: TenantDep) -> TrainingView:
    """Ends the training; its checkpoints stay. Repeating it changes nothing; one that has ended otherwise is
    refused."""
    spec = own_run(services, tenant, training, RunKind.TRAINING)
    services.runs.cancel(spec)
    return _view(services, spec)


@router.post(
    "/trainings/{training}/pause",
    response_model=TrainingView,
    summary="Pause a training",
    responses=answers(404, 409, 503),
)
def pause_training(training: TrainingId, services: ServicesDep, tenant: TenantDep) -> TrainingView:
    """Stops the training at a checkpoint, and frees its worker. Repeating it changes nothing."""
    return _control(services, tenant, training, "pause", lambda spec: None)


@router.post(
    "/trainings/{training}/resume",
    response_model=TrainingView,
    summary="Resume a training",
    responses=answers(404, 409, 503),
)
def resume_training(training: TrainingId, services: ServicesDep, tenant: TenantDep) -> TrainingView:
    """Lets a paused training go on from its checkpoint, on any worker. Repeating it changes nothing."""
    return _control(services, tenant, training, "resume", services.run_submitter.send)


@router.post(
    "/trainings/{training}/retry",
    status_code=202,
    response_model=TrainingView,
    summary="Retry a training",
    responses=answers(404, 409, 429, 503),
)
def retry_training(
    training: TrainingId, services: ServicesDep, tenant: TenantDep, idempotency_key: IdempotencyKey = None
) -> TrainingView:
    """Starts a training that goes on from the last checkpoint of one that failed or was cancelled, with the same
    data, settings and seed."""
    former = own_run(services, tenant, training, RunKind.TRAINING)
    state = _progress(services, former).state
    if state not in (JobState.FAILED, JobState.CANCELLED):
        raise JobStateConflict(
            f"training {former.run} is {state.value}; only one that failed or was cancelled can be retried",
            state=state.value,
        )
    services.limits.check_stored(tenant=tenant)
    submitter = services.run_submitter
    body = {"retry": former.run}
    reservation = submitter.reserve(RunKind.TRAINING, tenant=tenant, key=idempotency_key, body=body).bind()
    if (existing := submitter.find(reservation)) is not None:
        return _view(services, existing)
    work = TrainingWork.model_validate(former.work | {"continues": former.run})
    used = TrainingRecords(services.store, former.run).device_seconds()
    with services.training_quota.admit(work, reservation.id, tenant=tenant, before=used) as admitted:
        spec, _ = submitter.submit(
            former.model_copy(
                update={
                    "run": reservation.id,
                    "created_at": datetime.now(UTC),
                    "idempotency": reservation.record,
                    "work": admitted.model_dump(mode="json"),
                }
            )
        )
    return _view(services, spec)


@router.delete(
    "/trainings/{training}",
    status_code=204,
    summary="Delete a training",
    responses={204: {"description": "It no longer exists, and its objects are being removed."}, **answers(404, 503)},
)
def delete_training(training: TrainingId, services: ServicesDep, tenant: TenantDep) -> Response:
    """Deletes a training with its checkpoints and parts; one that has not ended is cancelled. The model it registered
    stays."""
    delete_run(services, tenant, training, RunKind.TRAINING)
    return Response(status_code=204)


def _control(
    services: Services, tenant: str, training: str, action: control.Action, then: Callable[[RunSpec], None]
) -> TrainingView:
    spec = own_run(services, tenant, training, RunKind.TRAINING)
    state = _progress(services, spec).state
    if state.ended or state is JobState.CANCELLING:
        raise JobStateConflict(
            f"training {spec.run} is {state.value}; only one that is queued, running or paused can be {action}d",
            state=state.value,
        )
    if control.request(services.store, spec.run, action):
        then(spec)
    return _view(services, spec)


def _progress(services: Services, spec: RunSpec) -> TrainingProgress:
    return training_progress(services.runs, services.live_state, spec)


def _view(services: Services, spec: RunSpec) -> TrainingView:
    return training_view(services, spec, _progress(services, spec))


def _event_id(progress: TrainingProgress) -> str:
    """The id of a snapshot: its count, state and newest checkpoint."""
    stage, iteration = progress.position or (0, 0)
    return f"{progress.run.done}.{progress.phase.value}.{stage}-{iteration}"
