"""Small models with real safetensors files, and a store that stops or lets others in at chosen writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_store.card import ModelCard
from service.registry.register import register
from service.registry.registration import Registration
from service.store.base import ObjectStore
from tests.service.api.support import card as card_members

WRITES = ("put", "put_file", "delete")


def safetensors(data: bytes) -> bytes:
    """A safetensors file of one tensor with these bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


def card_of(name: str, version: str, weights: bytes, **changes: Any) -> ModelCard:
    """A card whose only file has these bytes."""
    entry = {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}
    return ModelCard.model_validate(card_members(name, version, files={"model.safetensors": entry}, **changes))


def write_model(
    folder: Path, name: str = "polyps", version: str = "1.0.0", data: bytes = b"abcd", **changes: Any
) -> ModelCard:
    """Writes a model folder; its card."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = safetensors(data)
    (folder / "model.safetensors").write_bytes(weights)
    card = card_of(name, version, weights, **changes)
    (folder / "card.json").write_text(card.model_dump_json(), encoding="utf-8")
    return card


def add(
    store: ObjectStore,
    folder: Path,
    name: str = "polyps",
    version: str = "1.0.0",
    data: bytes = b"abcd",
    *,
    tenant: str | None,
    changes: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Registration, bool]:
    """Writes a model folder and registers it."""
    folder = folder / f"{tenant}-{name}-{version}-{data.hex()[:16]}"
    card = write_model(folder, name, version, data, **(changes or {}))
    return register(store, card, {"model.safetensors": folder / "model.safetensors"}, tenant=tenant, **options)


def blobs(store: ObjectStore) -> list[str]:
    """The keys of all stored weights."""
    return [info.key for info in store.list("weights/") if info.key.endswith(".safetensors")]


class Killed(BaseException):
    """What a test's process gets instead of SIGKILL: nothing handles it."""


class Interposed:
    """A store that calls ``before`` before each write, with its number (from 1), method and key."""

    def __init__(self, store: ObjectStore, before: Callable[[int, str, str], None]) -> None:
        self._store, self._before = store, before
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in WRITES:
            return method

        def write(key: str, *given: Any, **options: Any) -> Any:
            self.writes += 1
            self._before(self.writes, name, key)
            return method(key, *given, **options)

        return write


def stopping(store: ObjectStore, after: int) -> Any:
    """A store whose process is killed before write ``after`` + 1."""

    def before(number: int, method: str, key: str) -> None:
        if number > after:
            raise Killed

    return Interposed(store, before)
