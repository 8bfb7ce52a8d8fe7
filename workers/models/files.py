"""A model's folder on local disk: the bundled one, or one filled from the store and repaired if damaged."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from model_store import bundled_folder
from model_store.card import ModelCard, load_card, parse_card
from model_store.interface import System, WeightsInvalid
from service.errors import ObjectNotFound, UnknownModel, WeightsError
from service.store import keys
from service.store.base import ObjectStore

WEIGHTS_FILE = "model.safetensors"

Load = Callable[[Path], System]


class ModelFiles:
    """Finds models by ``name@version`` and loads them. Loading checks every file against its card's sha256."""

    def __init__(self, store: ObjectStore, cache: Path, load: Load) -> None:
        self._store = store
        self._cache = cache
        self._load = load

    def card(self, model: str) -> ModelCard:
        """The model's card, without its weights. Raises :class:`UnknownModel`, CardInvalid, or a store's error."""
        name, _, version = model.partition("@")
        if (folder := _bundled(name, version)) is not None:
            return load_card(folder)
        return parse_card(self._card_text(name, version), where=keys.model_card(name, version))

    def load(self, model: str) -> System:
        """The model's system.

        Raises :class:`UnknownModel`, CardInvalid, WeightsInvalid, :class:`WeightsError`, or a store's error.
        """
        name, _, version = model.partition("@")
        if (bundled := _bundled(name, version)) is not None:
            return self._load(bundled)
        folder = self._fetch(name, version)
        try:
            return self._load(folder)
        except WeightsInvalid:
            # the copy on disk may be damaged; the store has the original
            shutil.rmtree(folder, ignore_errors=True)
            return self._load(self._fetch(name, version))

    def _fetch(self, name: str, version: str) -> Path:
        """The model's folder in the cache, with missing files downloaded from the store."""
        text = self._card_text(name, version)
        card = parse_card(text, where=keys.model_card(name, version))
        folder = self._cache / name / version
        folder.mkdir(parents=True, exist_ok=True)
        for file, entry in card.files.items():
            path = folder / file
            if not path.is_file() or path.stat().st_size != entry.bytes:
                self._download(keys.model_file(name, version, file), path)
        _write_atomically(folder / "card.json", text)
        return folder

    def _card_text(self, name: str, version: str) -> bytes:
        try:
            return self._store.get(keys.model_card(name, version))
        except ObjectNotFound:
            raise UnknownModel(f"model {name}@{version} is neither bundled nor registered in the store") from None

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


def _bundled(name: str, version: str) -> Path | None:
    folder = bundled_folder() / name / version
    return folder if (folder / "card.json").is_file() else None


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
