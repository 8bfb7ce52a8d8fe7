"""Helpers for interrupted exports: sources that record which items are read, and stores that fail at a chosen write."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.stored.dataset import UnavailableItem
from service.datasets.writing.about import ExportAbout
from service.datasets.writing.options import ExportOptions
from service.errors import StoreUnavailable
from service.exports.location import ExportLocation, ExportResult
from service.exports.run import run_export
from service.exports.sources import StoredMix
from service.store.base import ObjectInfo
from service.store.folder import FolderStore
from tests.service.datasets.scenes import SCENE_CLASSES, scenes

PREFIX = "exports/e1/"
ABOUT = ExportAbout(title="Interrupted and resumed", seeds=(1, 2))
FORMATS = ("folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset")
SHARDED = ("huggingface", "webdataset")
ITEMS = 7


@dataclass
class Source:
    """A source with items at positions 0, 2, 4, ..., made anew for each iteration; ``read`` are the positions read."""

    make: Callable[[], Iterator[DatasetItem | UnavailableItem]]
    classes: ClassList
    label: str = "first"
    format: str = "twins"
    read: list[int] = field(default_factory=list)

    def count(self) -> int:
        return sum(1 for _ in self.make())

    def items(self, start_after: int | None = None) -> Iterator[tuple[int, DatasetItem | UnavailableItem]]:
        for number, item in enumerate(self.make()):
            if start_after is None or 2 * number > start_after:
                self.read.append(2 * number)
                yield 2 * number, item


class CutStore(FolderStore):
    """A folder store that fails just before or after write number ``cut`` (0, 1, ...); ``written`` are its keys."""

    def __init__(self, root: Path, cut: int | None = None, after: bool = False) -> None:
        super().__init__(root, link_secret=b"s" * 32, public_url="http://example.org")
        self.cut, self.after = cut, after
        self.written: list[str] = []

    def put(self, key: str, data: bytes, **options: Any) -> ObjectInfo:
        return self._cutting(super().put, key, data, **options)

    def put_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
        return self._cutting(super().put_file, key, path, **options)

    def _cutting(self, write: Callable[..., ObjectInfo], key: str, *arguments: Any, **options: Any) -> ObjectInfo:
        now = len(self.written) == self.cut
        if now and not self.after:
            raise StoreUnavailable(f"{key} could not be written: the test says so")
        info = write(key, *arguments, **options)
        self.written.append(key)
        if now:
            raise StoreUnavailable(f"{key} was written, but the test reports a failure")
        return info


def export_into(
    store: FolderStore,
    sources: Sequence[Source],
    scratch: Path,
    options: dict[str, Any],
    mixing: dict[str, Any] | None = None,
    **hooks: Any,
) -> ExportResult:
    """Exports the sources into the store with new objects; ``scratch`` is created, and must be empty at the end."""
    scratch.mkdir(parents=True, exist_ok=True)
    mix = StoredMix(sources, **(mixing or {}))
    location = ExportLocation(store, PREFIX)
    try:
        return run_export(mix, ExportOptions.model_validate(options), ABOUT, location, scratch=scratch, **hooks)
    finally:
        assert not list(scratch.iterdir()), "nothing is left on disk"


def stop_at(number: int) -> Callable[[], bool]:
    """A ``should_stop`` that is True from call ``number`` (0, 1, ...) on."""
    calls = iter(range(10**9))
    return lambda: next(calls) >= number


def objects(store: FolderStore, below: str = "") -> dict[str, str]:
    """The sha256 of every object of the export, by its key below the export's prefix."""
    prefix = PREFIX + below
    return {
        info.key.removeprefix(prefix): hashlib.sha256(store.get(info.key)).hexdigest() for info in store.list(prefix)
    }


def unpacked(store: FolderStore) -> dict[str, bytes]:
    """All files of a whole export by path, with the zip parts unpacked into one folder; each is as listed."""
    found: dict[str, bytes] = {}
    location = ExportLocation(store, PREFIX)
    for listed in location.read_files():
        path, data = listed.path, store.get(location.key_of(listed))
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (listed.sha256, listed.bytes)
        if not path.endswith(".zip"):
            files = {path: data}
        else:
            with zipfile.ZipFile(io.BytesIO(data)) as part:
                assert part.testzip() is None
                assert len(set(part.namelist())) == len(part.namelist())
                files = {name: part.read(name) for name in part.namelist()}
        for name, contents in files.items():
            assert found.setdefault(name, contents) == contents, f"{name} comes twice, and differs"
    return found


def last_checkpoint(store: FolderStore) -> dict[str, Any] | None:
    """The newest checkpoint's JSON."""
    keys = [info.key for info in store.list(f"{PREFIX}checkpoints/") if info.key.endswith(".json")]
    return json.loads(store.get(keys[-1])) if keys else None


def alternating() -> Iterator[DatasetItem]:
    """Items that alternate between three splits, so that several shards are open at once."""
    for number, item in enumerate(scenes(ITEMS)):
        yield replace(item, split=("train", "train", "test", "fold-b")[number % 4])


def source() -> Source:
    return Source(alternating, SCENE_CLASSES)


def options_for(format: str) -> dict[str, Any]:
    return {"format": format, "shard_items": 2}
