"""The record of a registered version: its card, where its files lie, and who registered it. It never changes."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field, model_validator

from model_store.card import ModelCard
from service.errors import ObjectNotFound
from service.kit.frozen import _Frozen, parse_stored
from service.kit.tenants import TENANT_PATTERN
from service.registry.references import model_key
from service.store import model_keys
from service.store.base import ObjectStore

_REMEDY = "restore it, or register the model under another version"


class Registration(_Frozen):
    """A registered version. ``owner`` is its tenant; None for a model of all tenants."""

    format: Literal[1] = 1
    owner: str | None = Field(pattern=TENANT_PATTERN)
    model: str = Field(description="name@version")
    card: ModelCard
    files: dict[str, str] = Field(description="the key of each of the card's files")
    candidate: bool = Field(False, description="a bare name does not choose it until it is promoted")
    base: str | None = Field(None, description="the key of the model that it was trained from")
    registered_at: AwareDatetime
    registered_by: str | None = Field(None, description="the id of an API key, or of a run")

    @model_validator(mode="after")
    def _consistent(self) -> Registration:
        if self.card.id != self.model:
            raise ValueError(f"the record of {self.model} has the card of {self.card.id}")
        if self.files.keys() != self.card.files.keys():
            raise ValueError(f"the record has files {sorted(self.files)}, its card {sorted(self.card.files)}")
        return self

    @property
    def key(self) -> str:
        """The model's key, which names it for any tenant."""
        return model_key(self.owner, self.model)

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(file.bytes for file in self.card.files.values())


def read_registration(store: ObjectStore, owner: str | None, name: str, version: str) -> Registration | None:
    """The version's record, also that of a deleted one; None if there is none. Raises RecordUnreadable."""
    key = model_keys.registration(owner, name, version)
    try:
        text = store.get(key)
    except ObjectNotFound:
        return None
    return parse_stored(Registration, text, key, remedy=_REMEDY, owner=owner, model=f"{name}@{version}")


def is_deleted(store: ObjectStore, owner: str | None, name: str, version: str) -> bool:
    """Whether the version has been deleted."""
    return store.head(model_keys.deletion(owner, name, version)) is not None
