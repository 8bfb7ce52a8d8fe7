"""``/models``: the cards of the registered models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from service.api.auth import KeyedRoute, TenantDep
from service.api.openapi import answers
from service.api.schemas.jobs import ModelList, ModelView
from service.api.services import Services, ServicesDep
from service.registry.entries import CatalogueEntry

router = APIRouter(route_class=KeyedRoute, tags=["models"])


@router.get("/models", response_model=ModelList, summary="List models", responses=answers(503))
def list_models(services: ServicesDep, tenant: TenantDep) -> ModelList:
    """The newest version of each model, by name; those that other tenants share come last."""
    newest: dict[tuple[str | None, str], CatalogueEntry] = {}
    for entry in services.catalogue.entries(tenant=tenant):
        place = (entry.owner, entry.card.name)
        if place not in newest or newest[place].candidate:
            newest[place] = entry if place not in newest or not entry.candidate else newest[place]
    return ModelList(models=[_view(services, entry, tenant) for entry in newest.values()])


@router.get("/models/{model}", response_model=ModelView, summary="Get a model's card", responses=answers(404, 422, 503))
def show_model(
    model: Annotated[str, Path(description="name, for the newest version, or name@version")],
    services: ServicesDep,
    tenant: TenantDep,
) -> ModelView:
    """The model's card: classes, sizes, limits, defaults, training data, intended use and measured figures."""
    return _view(services, services.catalogue.find(model, tenant=tenant), tenant)


def _view(services: Services, entry: CatalogueEntry, tenant: str) -> ModelView:
    versions = tuple(other.card.version for other in services.catalogue.versions(entry, tenant=tenant))
    return ModelView(id=entry.reference(tenant), versions=versions, card=entry.card)
