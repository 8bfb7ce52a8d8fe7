"""The keys of a dataset's objects under its run, and the entries of its index.

shards/{number:06d}.{attempt}.tar     images, masks and instances of 1000 items or 64 MB, under WebDataset's naming
items/{number:06d}.{attempt}.jsonl    one line per item of that shard: :class:`StoredItem`
report.{attempt}.json  statistics.{attempt}.json  statistics.{attempt}.png  preview.{attempt}.png
about.json                            :class:`DatasetAbout`, written last and once: it names the objects that count
report.json                           the report of a dataset of which no item could be read, written once

The functions below give the keys without their attempt (:mod:`service.store.immutable`), as datasets of format 1 have
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from service.datasets.classes import ClassList, Source
from service.kit.frozen import _Frozen
from service.store.immutable import StoredObject
from service.store.run_keys import run_prefix

ObjectName = Literal["report", "statistics", "picture", "preview"]
SHARD_ITEMS = 1000
SHARD_BYTES = 64 << 20


class ShardFile(_Frozen):
    """A file inside a shard: ``bytes`` bytes from ``offset`` on."""

    offset: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str


class StoredItem(_Frozen):
    """An index entry. ``pixels`` counts the mask's pixels by class index, without those of no class."""

    name: str
    width: int
    height: int
    suffix: str = Field(description="of the image's file: png, jpg, ...")
    image: ShardFile
    mask: ShardFile
    instances: ShardFile | None = None
    pixels: dict[int, int]
    split: str | None = None
    source: Source = "real"
    caption: str | None = None
    source_mask: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    path: str | None = Field(None, description="of the image in the dataset as it was imported; it identifies the item")
    captions: tuple[dict[str, Any], ...] = Field(
        (), description="all texts of an image with more than its caption: each has text, and any further members"
    )

    @property
    def identity(self) -> str:
        """The path, or the name in an index that has no paths."""
        return self.path or self.name

    @property
    def texts(self) -> tuple[dict[str, Any], ...]:
        """All texts, each with ``text`` and any further members."""
        return self.captions or (() if self.caption is None else ({"text": self.caption},))


class ShardAbout(_Frozen):
    """A shard: its number of items, its size and its hash, and its objects."""

    items: int = Field(ge=1)
    bytes: int
    sha256: str
    key: str | None = Field(None, description="None in format 1")
    index: StoredObject | None = Field(None, description="the entries of its items; None in format 1")


class DatasetAbout(_Frozen):
    """The description of a whole dataset. Written once: of two workers that import a dataset, the first decides.

    Formats: 2, and 1 for datasets whose keys have no attempt.
    """

    format: Literal[1, 2] = 2
    name: str
    version: int
    read_as: str = Field(description="the format from which it was read")
    title: str
    licence: str
    classes: ClassList
    items: int
    skipped: int
    shards: tuple[ShardAbout, ...]
    objects: dict[ObjectName, StoredObject] = Field(default_factory=dict, description="the other objects that count")
    has_up: bool | None = Field(None, description="false if its scenes have no up; None if it does not say")
    metres_per_px: float | None = Field(None, gt=0, description="side of a pixel; None if it does not say")

    @property
    def id(self) -> str:
        """The id, name@version."""
        return f"{self.name}@{self.version}"

    @property
    def bytes(self) -> int:
        """The total size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def counted_keys(self) -> set[str]:
        """The keys of all objects that count."""
        found = {shard.key for shard in self.shards} | {shard.index.key for shard in self.shards if shard.index}
        return {key for key in found if key is not None} | {stored.key for stored in self.objects.values()}


def object_key(run: str, result: Mapping[str, Any] | None, name: ObjectName) -> str:
    """The key of one of a dataset's other objects, by the result of its run: its description without the shards."""
    found = ((result or {}).get("objects") or {}).get(name)
    if found is not None:
        return str(found["key"])
    earlier = {"report": report, "statistics": statistics, "picture": statistics_chart, "preview": preview}
    return earlier[name](run)


def shard(run: str, number: int) -> str:
    return f"{run_prefix(run)}shards/{number:06d}.tar"


def index(run: str, number: int) -> str:
    return f"{run_prefix(run)}items/{number:06d}.jsonl"


def about(run: str) -> str:
    return f"{run_prefix(run)}about.json"


def report(run: str) -> str:
    return f"{run_prefix(run)}report.json"


def statistics(run: str) -> str:
    return f"{run_prefix(run)}statistics.json"


def statistics_chart(run: str) -> str:
    return f"{run_prefix(run)}statistics.png"


def preview(run: str) -> str:
    return f"{run_prefix(run)}preview.png"


def archive(run: str) -> str:
    """The key of the uploaded archive, which is deleted once it has been read."""
    return f"{run_prefix(run)}source/archive"
