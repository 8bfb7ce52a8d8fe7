"""The files of a model in the catalogue: in its bundled folder, or in the object store."""

from __future__ import annotations

from collections.abc import Iterator

from service.errors import ObjectNotFound
from service.registry.archive_writing import ModelArchive, folder_archive
from service.registry.entries import CatalogueEntry
from service.store import keys
from service.store.base import ObjectStore
from service.store.checked import checked_pieces

_PIECE_BYTES = 1 << 20


def model_archive(store: ObjectStore, entry: CatalogueEntry) -> ModelArchive:
    """The model as one tar; each file is checked against its sha256 before its last piece is given.

    Raises :class:`ObjectNotFound` if a file is gone from the store.
    """
    card, folder = entry.card, entry.folder
    if folder is not None:
        return folder_archive(card, folder)
    place = {name: file_key(entry, name) for name in card.files}
    for name, key in place.items():
        if store.head(key) is None:
            raise ObjectNotFound(
                f"{name} of {card.id} is gone from the object store; register the model again", key=key
            )

    def read(name: str) -> Iterator[bytes]:
        pieces = store.stream(place[name], chunk_bytes=_PIECE_BYTES)
        return checked_pieces(pieces, card.files[name].sha256, key=place[name], where="the object store")

    return ModelArchive(card, read)


def file_key(entry: CatalogueEntry, name: str) -> str:
    """The key of a file of a model that is not bundled."""
    if entry.registration is not None:
        return entry.registration.files[name]
    return keys.model_file(entry.card.name, entry.card.version, name)
