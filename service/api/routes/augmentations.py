"""``/augmentations``: augmentation sets, planned after a dataset and made by jobs."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query, Response

from service.api.auth import KeyedRoute, TenantDep
from service.api.content_type import JsonRoute
from service.api.openapi import answers
from service.api.own_runs import delete_run, own_run, progress_of, runs_page
from service.api.parameters import Cursor, IdempotencyKey, numeric_cursor
from service.api.routes import callbacks
from service.api.routes.samples import Links, sample_view
from service.api.schemas.augmentations import (
    AcceptedPage,
    AcceptedView,
    AugmentationPage,
    AugmentationView,
    PlanView,
    augmentation_view,
    picture_key,
    plan_key,
)
from service.api.schemas.jobs import as_json
from service.api.services import Services, ServicesDep
from service.augmentations.request import AugmentationRequest
from service.jobs.idempotency import check_key
from service.kit.run_kinds import RunKind
from service.kit.validation import Faults
from service.registry.references import recorded_key
from service.registry.uses import add_use
from service.runs.spec import RunSpec
from service.store.immutable import put_once
from service.webhooks.spec import Callback
from service.webhooks.validate import admit_callback

if TYPE_CHECKING:
    from service.augmentations.planning import FinishedPlan

router = APIRouter(route_class=KeyedRoute, tags=["augmentations"])
posting = APIRouter(route_class=JsonRoute, tags=["augmentations"])
AugmentationId = Annotated[str, Path(description="An augmentation set's id.", examples=["a7ybr17pesw6kn47yb0"])]


@posting.post(
    "/augmentations",
    status_code=202,
    response_model=AugmentationView,
    summary="Create an augmentation set",
    callbacks=callbacks.augmentation_router.routes,
    responses={
        200: {"model": PlanView, "description": "With `dry_run`: the plan. Nothing is made or stored."},
        202: {
            "description": "The set, accepted.",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "Its path."}},
        },
        **answers(400, 404, 409, 413, 415, 422, 429, 503),
    },
)
def create_augmentation(
    body: AugmentationRequest, services: ServicesDep, tenant: TenantDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Plans twins after a dataset: how many, the shares of the classes, from which masks and prompts. Then jobs make
    them in rounds, and those that meet the acceptance criteria count, until the set is complete or the budget spent."""
    if body.dry_run:
        if idempotency_key is not None:
            check_key(idempotency_key)
        planned, _ = _plan(services, tenant, body)
        return Response(as_json(_plan_view(planned)), media_type="application/json")
    spec = _accept(services, tenant, body, idempotency_key)
    view = augmentation_view(services, spec, progress_of(services, spec))
    return Response(
        as_json(view), status_code=202, headers={"Location": view.links["self"]}, media_type="application/json"
    )


def _accept(services: Services, tenant: str, body: AugmentationRequest, idempotency_key: str | None) -> RunSpec:
    """The run of the set: made now, or by an earlier request with the same key. Its plan is stored before its spec."""
    services.limits.check_stored(tenant=tenant)
    given = body.model_dump(mode="json", exclude_unset=True)
    submitter = services.run_submitter
    reservation = submitter.reserve(RunKind.AUGMENTATION, tenant=tenant, key=idempotency_key, body=given)
    if (existing := submitter.find(reservation)) is not None:
        return existing
    planned, callback = _plan(services, tenant, body)
    seed, shares, picture = planned.work.seed, planned.shares.model_dump_json().encode(), planned.picture
    reservation = reservation.bind()
    if (existing := submitter.find(reservation)) is not None:
        return existing
    add_use(services.store, planned.work.model_key, reservation.id)
    put_once(services.store, plan_key(reservation.id, seed), shares)
    put_once(services.store, picture_key(reservation.id, seed), picture)
    spec, _ = submitter.submit(
        RunSpec(
            run=reservation.id,
            tenant=tenant,
            name=planned.name,
            created_at=datetime.now(UTC),
            total=planned.count,
            work=planned.work.model_dump(mode="json"),
            request=given,
            idempotency=reservation.record,
            callback=callback,
        )
    )
    return spec


@router.get(
    "/augmentations", response_model=AugmentationPage, summary="List augmentation sets", responses=answers(422, 503)
)
def list_augmentations(
    services: ServicesDep,
    tenant: TenantDep,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of sets in the answer.")] = 20,
) -> AugmentationPage:
    """Sets, newest first."""
    page = runs_page(services, tenant, RunKind.AUGMENTATION, augmentation_view, cursor=cursor, limit=limit)
    return AugmentationPage(augmentations=page.views, unreadable=page.unreadable, next_cursor=page.next_cursor)


@router.get(
    "/augmentations/{augmentation}",
    response_model=AugmentationView,
    summary="Get an augmentation set",
    responses=answers(404, 503),
)
def show_augmentation(augmentation: AugmentationId, services: ServicesDep, tenant: TenantDep) -> AugmentationView:
    """The set's progress: accepted twins, rejected samples and why, and the classes' shares beside the plan's."""
    spec = own_run(services, tenant, augmentation, RunKind.AUGMENTATION)
    return augmentation_view(services, spec, progress_of(services, spec))


@router.get(
    "/augmentations/{augmentation}/samples",
    response_model=AcceptedPage,
    summary="List a set's twins",
    responses=answers(404, 422, 503),
)
def list_accepted(
    augmentation: AugmentationId,
    services: ServicesDep,
    tenant: TenantDep,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Maximum number of twins in the answer.")] = 50,
) -> AcceptedPage:
    """The twins accepted so far, each with its job, seed, the classes in its mask, the real item behind it, and signed
    links."""
    from service.exports.augmentation_source import AugmentationSource
    from service.exports.resolve import SourceLookup

    spec = own_run(services, tenant, augmentation, RunKind.AUGMENTATION)
    after = numeric_cursor(cursor)
    expire_at = datetime.now(UTC) + timedelta(seconds=services.settings.link_expires_s)
    views: list[AcceptedView] = []
    last: int | None = None
    card = SourceLookup(services.repository, services.runs, services.catalogue).card(recorded_key(spec.work))
    source = AugmentationSource.open(services.repository, spec, card)
    for twin in source.twins(after):
        if len(views) == limit:
            return AcceptedPage(samples=views, next_cursor=str(last), links_expire_at=expire_at)
        last = twin.position
        sample = sample_view(twin.sample, Links(services, twin.spec.job, int(expire_at.timestamp())))
        views.append(AcceptedView(**sample.model_dump(), job=twin.spec.job, made_from=dict(twin.about["made_from"])))
    return AcceptedPage(samples=views, next_cursor=None, links_expire_at=expire_at)


@router.post(
    "/augmentations/{augmentation}/cancel",
    response_model=AugmentationView,
    summary="Cancel an augmentation set",
    responses=answers(404, 409, 503),
)
def cancel_augmentation(augmentation: AugmentationId, services: ServicesDep, tenant: TenantDep) -> AugmentationView:
    """Cancels the set and its jobs; accepted twins stay. Repeating it changes nothing."""
    spec = own_run(services, tenant, augmentation, RunKind.AUGMENTATION)
    services.runs.cancel(spec)
    return augmentation_view(services, spec, progress_of(services, spec))


@router.delete(
    "/augmentations/{augmentation}",
    status_code=204,
    summary="Delete an augmentation set",
    responses={204: {"description": "The set and its twins no longer exist."}, **answers(404, 503)},
)
def delete_augmentation(augmentation: AugmentationId, services: ServicesDep, tenant: TenantDep) -> Response:
    """Deletes a set with its twins and the jobs that made them; exports made from it stay."""
    delete_run(services, tenant, augmentation, RunKind.AUGMENTATION)
    return Response(status_code=204)


def _plan(services: Services, tenant: str, body: AugmentationRequest) -> tuple[FinishedPlan, Callback | None]:
    from service.augmentations.planning import plan_in_child

    model = services.catalogue.find(body.model, tenant=tenant)
    dataset = services.datasets(tenant).ready(body.dataset)
    faults = Faults()
    callback = admit_callback(body.callback_url, services.settings, faults)
    planned = plan_in_child(body, dataset, model.card, services.settings, faults, tenant=tenant)
    resolved = {"model": model.reference(tenant), "model_owner": model.owner}
    return planned.model_copy(update={"work": planned.work.model_copy(update=resolved)}), callback


def _plan_view(planned: FinishedPlan) -> PlanView:
    return PlanView(
        model=planned.work.model,
        dataset=planned.work.dataset,
        seed=planned.work.seed,
        parameters=planned.work.sampling.described(),
        plan=planned.shares,
        picture=base64.b64encode(planned.picture).decode(),
    )
