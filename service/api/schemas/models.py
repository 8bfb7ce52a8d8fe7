"""Views of models: cards with their versions, aliases with their history, and shares."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from model_store.card import ModelCard
from service.api.schemas.runs import View
from service.registry.aliases import MAX_WHY_CHARS, AliasEntry
from service.registry.entries import CatalogueEntry
from service.registry.shares import Share
from service.registry.tenant_models import MAX_SHARED_AT_ONCE


class ModelView(View):
    """A model's card, and all versions of the model."""

    id: str = Field(description="name@version of this card; of a model that a tenant shares, owner:name@version")
    versions: tuple[str, ...] = Field(description="newest first")
    owner: str | None = Field(description="the tenant that registered it; null for a model of all tenants")
    candidate: bool = Field(description="whether the name alone does not choose it, until it is promoted")
    base: str | None = Field(description="the model that it was trained from; null if none was named")
    registered_at: datetime | None = Field(description="null for models bundled with Twinset")
    registered_by: str | None = Field(description="id of the API key, or of the training; null where none was needed")
    aliases: dict[str, str] | None = Field(description="your aliases and their versions; null in lists")
    card: ModelCard


class ModelList(View):
    """The newest version of each model, by name."""

    models: list[ModelView]


class AliasChangeView(View):
    """A change of an alias. A version is null where the alias did not exist."""

    number: int = Field(description="1, 2, ...")
    from_version: str | None
    to_version: str | None
    why: str | None
    changed_at: datetime
    changed_by: str | None = Field(description="id of the API key; null where none was needed")


class AliasView(View):
    """An alias with its history, oldest change first."""

    model: str = Field(description="name of the model")
    alias: str
    version: str | None = Field(description="what it stands for now; null if it was deleted")
    history: tuple[AliasChangeView, ...]


class AliasList(View):
    """The aliases of a model and the versions that they stand for."""

    aliases: dict[str, str]


class AliasChange(BaseModel):
    """What an alias is to stand for."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"version": "1.2.0", "why": "better Dice"}]}
    )

    version: str = Field(description="a version of the model")
    why: str | None = Field(None, max_length=MAX_WHY_CHARS, description="the reason, for the history")


class ShareRequest(BaseModel):
    """With whom a model is shared, or no longer shared: with some tenants, or with all."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tenants": ["acme"]}, {"all": True}]})

    tenants: list[str] = Field(default_factory=list, max_length=MAX_SHARED_AT_ONCE, description="names of tenants")
    all: bool = Field(False, description="all tenants, of now and later")


class ShareView(View):
    """With whom a model is shared."""

    tenant: str | None = Field(description="null for all tenants")
    shared_at: datetime
    shared_by: str | None = Field(description="id of the API key; null where none was needed")


class ShareList(View):
    """The shares of a model."""

    shares: list[ShareView]


def model_view(
    entry: CatalogueEntry, versions: Sequence[CatalogueEntry], *, tenant: str, aliases: dict[str, str] | None = None
) -> ModelView:
    """The model as ``tenant`` sees it. Who registered it, and from what, is shown to its own tenant alone."""
    record = entry.registration
    own = record if record is not None and entry.owner == tenant else None
    return ModelView(
        id=entry.reference(tenant),
        versions=tuple(each.card.version for each in versions),
        owner=entry.owner,
        candidate=entry.candidate,
        base=None if own is None else own.base,
        registered_at=None if record is None else record.registered_at,
        registered_by=None if own is None else own.registered_by,
        aliases=aliases,
        card=entry.card,
    )


def alias_view(name: str, alias: str, history: Sequence[AliasEntry]) -> AliasView:
    """The alias as answered."""
    changes = tuple(
        AliasChangeView(
            number=entry.number,
            from_version=entry.former,
            to_version=entry.version,
            why=entry.why,
            changed_at=entry.changed_at,
            changed_by=entry.changed_by,
        )
        for entry in history
    )
    return AliasView(model=name, alias=alias, version=history[-1].version, history=changes)


def share_list(shares: Sequence[Share]) -> ShareList:
    """The shares as answered."""
    return ShareList(
        shares=[
            ShareView(tenant=share.tenant, shared_at=share.shared_at, shared_by=share.shared_by) for share in shares
        ]
    )
