"""The models in a store that this machine reaches, with the methods that the client has for those of a server."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from service.client.model_transfers import unpack_model
from service.client.views import AliasChangeInfo, AliasInfo, Model, ShareInfo
from service.errors import InvalidRequest
from service.registry.aliases import AliasEntry
from service.registry.archive_reading import ArchiveReader
from service.registry.catalogue import Catalogue
from service.registry.entries import CatalogueEntry
from service.registry.model_files import model_archive
from service.registry.register import register, register_folder
from service.registry.shares import Share
from service.registry.tenant_models import TenantModels
from service.store.base import ObjectStore

_PIECE_BYTES = 1 << 20
_MAX_BYTES = 1 << 40


@dataclass(frozen=True)
class LocalModels:
    """The models of ``tenant`` in ``store``; None stands for those of all tenants."""

    store: ObjectStore
    tenant: str | None

    @cached_property
    def catalogue(self) -> Catalogue:
        """The models that the tenant can use."""
        return Catalogue(self.store)

    @property
    def _models(self) -> TenantModels:
        return TenantModels(self.store, self.catalogue, self.tenant)

    def models(self) -> list[Model]:
        """All models, newest version first."""
        return [self._view(entry) for entry in self.catalogue.entries(tenant=self.tenant)]

    def model(self, name: str) -> Model:
        """A model by its reference. Raises UnknownModel."""
        return self._view(self.catalogue.find(name, tenant=self.tenant))

    def add_model(self, path: Path, *, candidate: bool = False) -> tuple[Model, bool]:
        """Registers the model in a folder or a tar; the model, and whether it is new."""
        if path.is_dir():
            card, is_new = register_folder(path, self.store, tenant=self.tenant, candidate=candidate)
        else:
            with (
                tempfile.TemporaryDirectory() as folder,
                closing(ArchiveReader(Path(folder), max_bytes=_MAX_BYTES)) as reader,
            ):
                with path.open("rb") as file:
                    while piece := file.read(_PIECE_BYTES):
                        reader.feed(piece)
                received = reader.finish()
                record, is_new = register(
                    self.store, received.card, received.files, tenant=self.tenant, candidate=candidate
                )
                card = record.card
        self.catalogue.expire(self.tenant)
        return self.model(card.id), is_new

    def download_model(self, name: str, path: Path) -> Path:
        """Writes a model to a new tar, or to a new folder."""
        archive = model_archive(self.store, self.catalogue.find(name, tenant=self.tenant))
        if path.exists():
            raise InvalidRequest(f"{path} exists already; name a new file that ends in .tar, or a new folder")
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as out:
                for piece in archive.pieces():
                    out.write(piece)
            if path.suffix == ".tar":
                part.rename(path)
            else:
                unpack_model(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def promote_model(self, name: str) -> Model:
        """Promotes a candidate."""
        return self._view(self._models.promote(name))

    def delete_model(self, name: str) -> None:
        """Deletes a version."""
        self._models.delete(name)

    def alias(self, name: str, alias: str) -> AliasInfo:
        """An alias with its history."""
        return _alias(name, alias, self._models.alias_history(name, alias))

    def set_alias(self, name: str, alias: str, version: str, *, why: str | None = None) -> AliasInfo:
        """Has an alias stand for a version."""
        return _alias(name, alias, self._models.move_alias(name, alias, version, why))

    def delete_alias(self, name: str, alias: str, *, why: str | None = None) -> None:
        """Deletes an alias."""
        self._models.delete_alias(name, alias, why)

    def aliases(self, name: str) -> dict[str, str]:
        """The aliases of a model."""
        return dict(self._models.aliases.names(self.catalogue.find(name, tenant=self.tenant).card.name))

    def shares(self, name: str) -> list[ShareInfo]:
        """With whom a model is shared."""
        return _shares(self._models.shares(name))

    def share_model(self, name: str, tenants: Sequence[str] = (), *, all: bool = False) -> list[ShareInfo]:
        """Shares a model."""
        return _shares(self._models.share(name, tenants, with_all=all))

    def unshare_model(self, name: str, tenants: Sequence[str] = (), *, all: bool = False) -> list[ShareInfo]:
        """Ends shares of a model."""
        return _shares(self._models.unshare(name, tenants, with_all=all))

    def _view(self, entry: CatalogueEntry) -> Model:
        versions = self.catalogue.versions(entry, tenant=self.tenant)
        return Model(
            id=entry.reference(self.tenant),
            versions=tuple(each.card.version for each in versions),
            owner=entry.owner,
            candidate=entry.candidate,
            card=entry.card,
        )


def _alias(name: str, alias: str, history: Sequence[AliasEntry]) -> AliasInfo:
    changes: list[Any] = [
        AliasChangeInfo(
            number=entry.number,
            from_version=entry.former,
            to_version=entry.version,
            why=entry.why,
            changed_at=entry.changed_at,
            changed_by=entry.changed_by,
        )
        for entry in history
    ]
    return AliasInfo(model=name, alias=alias, version=history[-1].version, history=tuple(changes))


def _shares(shares: Sequence[Share]) -> list[ShareInfo]:
    return [ShareInfo(tenant=share.tenant, shared_at=share.shared_at, shared_by=share.shared_by) for share in shares]
