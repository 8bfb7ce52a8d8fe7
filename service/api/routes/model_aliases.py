"""``/models/{name}/aliases``: names such as ``stable`` for a version of a model, each with its history."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from service.api.auth import KeyedRoute
from service.api.content_type import JsonRoute
from service.api.openapi import answers
from service.api.routes.models import tenant_models
from service.api.schemas.models import AliasChange, AliasList, AliasView, alias_view
from service.registry.aliases import MAX_WHY_CHARS
from service.registry.references import ALIAS_FORM
from service.registry.tenant_models import TenantModels

router = APIRouter(route_class=KeyedRoute, tags=["models"])
posting = APIRouter(route_class=JsonRoute, tags=["models"])
ModelName = Annotated[str, Path(description="name of a model, without a version")]
Alias = Annotated[str, Path(description=f"an alias: {ALIAS_FORM}")]
Models = Annotated[TenantModels, Depends(tenant_models)]


@router.get(
    "/models/{model}/aliases", response_model=AliasList, summary="List a model's aliases", responses=answers(404, 503)
)
def list_aliases(model: ModelName, models: Models) -> AliasList:
    """Your aliases of a model, and the versions that they stand for."""
    name = models.catalogue.find(model, tenant=models.tenant).card.name
    return AliasList(aliases=dict(models.aliases.names(name)))


@router.get(
    "/models/{model}/aliases/{alias}",
    response_model=AliasView,
    summary="Get an alias with its history",
    responses=answers(404, 409, 503),
)
def show_alias(model: ModelName, alias: Alias, models: Models) -> AliasView:
    """What the alias stands for, and each change of it: who, when, from which version to which, and why. The history
    of a deleted alias stays."""
    return alias_view(model, alias, models.alias_history(model, alias))


@posting.put(
    "/models/{model}/aliases/{alias}",
    response_model=AliasView,
    summary="Have an alias stand for a version",
    responses=answers(400, 404, 409, 413, 415, 422, 503),
)
def put_alias(model: ModelName, alias: Alias, body: AliasChange, models: Models) -> AliasView:
    """Creates the alias, or moves it, with an entry in its history; if it stands for the version already, nothing
    changes. `name@alias` is resolved when a job or a set is accepted, so a move changes none of those."""
    return alias_view(model, alias, models.move_alias(model, alias, body.version, body.why))


@router.delete(
    "/models/{model}/aliases/{alias}",
    status_code=204,
    summary="Delete an alias",
    responses={204: {"description": "The alias stands for nothing."}, **answers(404, 409, 422, 503)},
)
def delete_alias(
    model: ModelName,
    alias: Alias,
    models: Models,
    why: Annotated[str | None, Query(max_length=MAX_WHY_CHARS, description="The reason, for the history.")] = None,
) -> Response:
    """Deletes the alias. Its history stays, and goes on if it is created again."""
    models.delete_alias(model, alias, why)
    return Response(status_code=204)
