"""``/models``: the cards of the models that a tenant can use; promoting and deleting its own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from service.api.auth import KeyedRoute, KeyIdDep, TenantDep
from service.api.openapi import answers
from service.api.schemas.models import ModelList, ModelView, model_view
from service.api.services import Services, ServicesDep
from service.registry.aliases import Aliases
from service.registry.entries import CatalogueEntry
from service.registry.tenant_models import TenantModels

router = APIRouter(route_class=KeyedRoute, tags=["models"])
ModelRef = Annotated[
    str,
    Path(
        description="name, for the newest version, name@version or name@alias; of a model that another tenant shares, "
        "owner:name@version"
    ),
]
OwnVersion = Annotated[str, Path(description="name@version of a model of yours")]


def tenant_models(services: ServicesDep, tenant: TenantDep, key_id: KeyIdDep) -> TenantModels:
    """The tenant's models, as a dependency."""
    return TenantModels(services.store, services.catalogue, tenant, key_id)


@router.get("/models", response_model=ModelList, summary="List models", responses=answers(503))
def list_models(services: ServicesDep, tenant: TenantDep) -> ModelList:
    """The newest version of each model, by name: yours, those of all tenants, and those that tenants share with you."""
    newest: dict[tuple[str | None, str], CatalogueEntry] = {}
    for entry in services.catalogue.entries(tenant=tenant):
        place = (entry.owner, entry.card.name)
        if place not in newest or (newest[place].candidate and not entry.candidate):
            newest[place] = entry
    return ModelList(models=[_view(services, entry, tenant) for entry in newest.values()])


@router.get("/models/{model}", response_model=ModelView, summary="Get a model's card", responses=answers(404, 422, 503))
def show_model(model: ModelRef, services: ServicesDep, tenant: TenantDep) -> ModelView:
    """The model's card: classes, sizes, limits, defaults, training data, intended use and measured figures."""
    entry = services.catalogue.find(model, tenant=tenant)
    aliases = dict(Aliases(services.store, tenant).names(entry.card.name)) if entry.owner in (None, tenant) else {}
    return _view(services, entry, tenant, aliases)


@router.post(
    "/models/{model}/promote",
    response_model=ModelView,
    summary="Promote a candidate",
    responses=answers(404, 409, 422, 503),
)
def promote_model(model: OwnVersion, services: ServicesDep, tenant: TenantDep, key_id: KeyIdDep) -> ModelView:
    """From now on the name alone chooses this version if it is the newest, and tenants with whom the model is shared
    can use it. Repeating it changes nothing."""
    return _view(services, tenant_models(services, tenant, key_id).promote(model), tenant)


@router.delete(
    "/models/{model}",
    status_code=204,
    summary="Delete a version of a model",
    responses={204: {"description": "The version no longer exists."}, **answers(404, 409, 422, 503)},
)
def delete_model(model: OwnVersion, services: ServicesDep, tenant: TenantDep, key_id: KeyIdDep) -> Response:
    """Deletes a version; its number is never given again. Refused while an open job, dataset, set or export, an alias
    or a model that was trained from it needs the version; `needed_by` says which. Results that were made with it
    stay, with its card; they can no longer be repaired or retried."""
    record = tenant_models(services, tenant, key_id).delete(model)
    services.limits.stored(tenant=tenant, size=-record.bytes)
    return Response(status_code=204)


def _view(services: Services, entry: CatalogueEntry, tenant: str, aliases: dict[str, str] | None = None) -> ModelView:
    return model_view(entry, services.catalogue.versions(entry, tenant=tenant), tenant=tenant, aliases=aliases)
