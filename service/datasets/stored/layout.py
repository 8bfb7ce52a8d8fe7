"""The keys of a dataset's objects under its run, and the entries of its index.

shards/{number:06d}.tar     images, masks and instances of a thousand items or 64 MB, under WebDataset's naming
items/{number:06d}.jsonl    one line per item of that shard: :class:`StoredItem`
about.json                  :class:`DatasetAbout`, written last
report.json  statistics.json  statistics.png  preview.png
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.datasets.classes import ClassList, Source
from service.store.run_keys import run_prefix

SHARD_ITEMS = 1000
SHARD_BYTES = 64 << 20


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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

    @property
    def identity(self) -> str:
        """The path, or the name in an index that has no paths."""
        return self.path or self.name


class ShardAbout(_Frozen):
    """A shard: its number of items, its size and its hash."""

    items: int = Field(ge=1)
    bytes: int
    sha256: str


class DatasetAbout(_Frozen):
    """The description of a whole dataset."""

    format: Literal[1] = 1
    name: str
    version: int
    read_as: str = Field(description="the format from which it was read")
    title: str
    licence: str
    classes: ClassList
    items: int
    skipped: int
    shards: tuple[ShardAbout, ...]

    @property
    def id(self) -> str:
        """The id, name@version."""
        return f"{self.name}@{self.version}"

    @property
    def bytes(self) -> int:
        """The total size of all shards."""
        return sum(shard.bytes for shard in self.shards)


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
