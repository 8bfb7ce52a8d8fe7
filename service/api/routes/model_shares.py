"""``/models/{name}/share``: models that other tenants may use."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from service.api.auth import KeyedRoute
from service.api.content_type import JsonRoute
from service.api.openapi import answers
from service.api.routes.models import tenant_models
from service.api.schemas.models import ShareList, ShareRequest, share_list
from service.registry.tenant_models import TenantModels

router = APIRouter(route_class=KeyedRoute, tags=["models"])
posting = APIRouter(route_class=JsonRoute, tags=["models"])
ModelName = Annotated[str, Path(description="name of a model of yours, without a version")]
Models = Annotated[TenantModels, Depends(tenant_models)]


@router.get(
    "/models/{model}/shares",
    response_model=ShareList,
    summary="List a model's shares",
    responses=answers(404, 409, 503),
)
def list_shares(model: ModelName, models: Models) -> ShareList:
    """With whom you share the model."""
    return share_list(models.shares(model))


@posting.post(
    "/models/{model}/share",
    response_model=ShareList,
    summary="Share a model",
    responses=answers(400, 404, 409, 413, 415, 422, 503),
)
def share_model(model: ModelName, body: ShareRequest, models: Models) -> ShareList:
    """Lets other tenants use all versions of the model that are not candidates, as `owner:name`, and your aliases of
    it. They see its card and can download it. Repeating it changes nothing."""
    return share_list(models.share(model, body.tenants, with_all=body.all))


@posting.post(
    "/models/{model}/unshare",
    response_model=ShareList,
    summary="Stop sharing a model",
    responses=answers(400, 404, 409, 413, 415, 422, 503),
)
def unshare_model(model: ModelName, body: ShareRequest, models: Models) -> ShareList:
    """Ends shares: new requests no longer find the model. Jobs and sets that were accepted before keep working.
    `all` ends the share with all tenants, and leaves those with single ones."""
    return share_list(models.unshare(model, body.tenants, with_all=body.all))
