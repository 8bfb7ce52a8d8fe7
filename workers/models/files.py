"""A model's folder on local disk: the bundled one, or one filled from the store and repaired if damaged."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_store import bundled_folder
from model_store.card import ModelCard, load_card, parse_card
from model_store.interface import System, WeightsInvalid
from service.errors import ObjectNotFound, UnknownModel, WeightsError
from service.registry.references import split_key
from service.registry.registration import read_registration
from service.store import keys
from service.store.base import ObjectStore
from workers.models.disk_cache import CARD, DiskCache

WEIGHTS_FILE = "model.safetensors"

Load = Callable[[Path], System]


@dataclass(frozen=True)
class _Stored:
    """A model in the store: its card, as it is and as text, and the key of each file."""

    card: ModelCard
    text: bytes
    files: dict[str, str]


class ModelFiles:
    """Finds models by their keys and loads them. Loading checks every file against its card's sha256.

    A key names a model for any tenant; whether a tenant may use it was decided when its job was accepted.
    """

    def __init__(self, store: ObjectStore, cache: DiskCache, load: Load) -> None:
        self._store = store
        self._cache = cache
        self._load = load

    def card(self, model: str) -> ModelCard:
        """The model's card, without its weights. Raises :class:`UnknownModel`, CardInvalid, or a store's error."""
        if (folder := _bundled(model)) is not None:
            return load_card(folder)
        return self._stored(model).card

    def load(self, model: str) -> System:
        """The model's system.

        Raises :class:`UnknownModel`, CardInvalid, WeightsInvalid, :class:`WeightsError`, or a store's error.
        """
        if (bundled := _bundled(model)) is not None:
            return self._load(bundled)
        stored = self._stored(model)
        with self._cache.hold(model) as folder:
            self._fill(folder, stored)
            try:
                return self._load(folder)
            except WeightsInvalid:
                # the copy on disk may be damaged; the store has the original
                for file in stored.files:
                    (folder / file).unlink(missing_ok=True)
                self._fill(folder, stored)
                return self._load(folder)

    def _fill(self, folder: Path, stored: _Stored) -> None:
        """Downloads what the folder lacks."""
        missing = {
            file: entry
            for file, entry in stored.card.files.items()
            if not (folder / file).is_file() or (folder / file).stat().st_size != entry.bytes
        }
        if missing:
            self._cache.make_room(sum(entry.bytes for entry in missing.values()))
        for file in missing:
            self._download(stored.files[file], folder / file)
        _write_atomically(folder / CARD, stored.text)

    def _stored(self, model: str) -> _Stored:
        try:
            owner, name, version = split_key(model)
        except ValueError:
            raise UnknownModel(f"{model[:120]!r} is no key of a model") from None
        record = read_registration(self._store, owner, name, version)
        if record is not None:
            return _Stored(record.card, record.card.model_dump_json().encode(), record.files)
        key = keys.model_card(name, version)
        try:
            if owner is not None:
                raise ObjectNotFound(f"{model} has no registration")
            text = self._store.get(key)
        except ObjectNotFound:
            raise UnknownModel(f"model {model} is neither bundled nor registered in the store") from None
        card = parse_card(text, where=key)
        return _Stored(card, text, {file: keys.model_file(name, version, file) for file in card.files})

    def _download(self, key: str, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                for piece in self._store.stream(key, chunk_bytes=1 << 20):
                    file.write(piece)
            temporary.replace(path)
        except ObjectNotFound:
            raise WeightsError(
                f"{key} is not in the store, though the model's card lists it; register it again"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)


def _bundled(model: str) -> Path | None:
    if ":" in model:
        return None  # a tenant's own, whatever its name
    name, _, version = model.partition("@")
    folder = bundled_folder() / name / version
    return folder if (folder / CARD).is_file() else None


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
