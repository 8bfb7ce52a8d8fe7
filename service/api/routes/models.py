"""``/models``: the cards of the registered models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from model_store.card import ModelCard
from service.api.auth import KeyedRoute
from service.api.openapi import answers
from service.api.schemas.jobs import ModelList, ModelView
from service.api.services import Services, ServicesDep

router = APIRouter(route_class=KeyedRoute, tags=["models"])


@router.get("/models", response_model=ModelList, summary="List models", responses=answers(503))
def list_models(services: ServicesDep) -> ModelList:
    """The newest version of each model, by name."""
    newest: dict[str, ModelCard] = {}
    for card in services.catalogue.cards():
        newest.setdefault(card.name, card)
    return ModelList(models=[_view(services, card) for card in newest.values()])


@router.get("/models/{model}", response_model=ModelView, summary="Get a model's card", responses=answers(404, 422, 503))
def show_model(
    model: Annotated[str, Path(description="name, for the newest version, or name@version")], services: ServicesDep
) -> ModelView:
    """The model's card: classes, sizes, limits, defaults, training data, intended use and measured figures."""
    return _view(services, services.catalogue.resolve(model))


def _view(services: Services, card: ModelCard) -> ModelView:
    versions = tuple(other.version for other in services.catalogue.versions(card.name))
    return ModelView(id=card.id, versions=versions, card=card)
