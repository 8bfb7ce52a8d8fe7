"""The writer for Hugging Face: parquet shards that ``datasets`` loads, and a card whose metadata lists them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from service.datasets.classes import ClassList
from service.datasets.extras import optional
from service.datasets.writing.manifest import json_page
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import PreparedItem
from service.datasets.writing.state import WriterState
from service.kit.output_file import ExportFile, Spool

_GROUP_ITEMS = 100
_GROUP_BYTES = 16 << 20
"""A row group ends at either limit: a reader, and this writer, hold one in memory at a time."""
_LENGTHS = struct.Struct("<3I")
_IMAGE = {"_type": "Image"}
_STRING = {"dtype": "string", "_type": "Value"}
_FEATURES: dict[str, Any] = {
    "name": _STRING,
    "image": _IMAGE,
    "mask": _IMAGE,
    "instances": _IMAGE,
    "source": _STRING,
    "caption": _STRING,
    "metadata": _STRING,
}


@dataclass
class _Shard:
    """The open shard of a split: its rows, one after another in a spool.

    They become parquet once the shard is full: a checkpoint cannot save the state of a half-written parquet file.
    """

    path: str
    rows: Spool
    items: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row, whose image, mask and instance map are (path, bytes); the last may be None."""
        (image, image_bytes), (mask, mask_bytes) = row["image"], row["mask"]
        instances, numbered = row["instances"] or (None, b"")
        # its length is in the head, so that the open shards of earlier versions can be read
        named = None if instances is None else [instances, len(numbered)]
        head = json.dumps({**row, "image": image, "mask": mask, "instances": named}).encode()
        lengths = _LENGTHS.pack(len(head), len(image_bytes), len(mask_bytes))
        self.rows.write(b"".join((lengths, head, image_bytes, mask_bytes, numbered)))
        self.items += 1

    def groups(self) -> Iterator[list[dict[str, Any]]]:
        """The rows as parquet stores them, one row group at a time."""
        group: list[dict[str, Any]] = []
        group_bytes = 0
        read = _ChunkReader(self.rows.pieces())
        for _ in range(self.items):
            head_bytes, *sizes = _LENGTHS.unpack(read(_LENGTHS.size))
            row = json.loads(read(head_bytes))
            for column, size in zip(("image", "mask"), sizes, strict=True):
                row[column] = {"bytes": read(size), "path": row[column]}
                group_bytes += size
            if row.get("instances"):
                path, size = row["instances"]
                row["instances"] = {"bytes": read(size), "path": path}
                group_bytes += size
            group.append(row)
            if len(group) >= _GROUP_ITEMS or group_bytes >= _GROUP_BYTES:
                yield group
                group, group_bytes = [], 0
        if group:
            yield group


class _ChunkReader:
    """Reads a given number of bytes at a time from an iterator of chunks."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = bytearray()
        self._at = 0

    def __call__(self, size: int) -> bytes:
        while len(self._buffer) - self._at < size:
            del self._buffer[: self._at]
            self._at = 0
            self._buffer += next(self._pieces)
        data = bytes(self._buffer[self._at : self._at + size])
        self._at += size
        return data


class HuggingFaceWriter:
    """Writer of ``data/{split}-{number:05d}.parquet``.

    The metadata at the head of README.md lists the splits, so ``load_dataset`` needs no script.
    """

    replaced: ClassVar[dict[str, str]] = {}
    per_split: ClassVar[bool] = True
    sharded: ClassVar[bool] = True

    def __init__(self, classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> None:
        self._classes = classes
        self._scratch = scratch
        self._arrow = optional("pyarrow", extra="export", purpose="an export for Hugging Face")
        self._parquet = optional("pyarrow.parquet", extra="export", purpose="an export for Hugging Face")
        image = self._arrow.struct([("bytes", self._arrow.binary()), ("path", self._arrow.string())])
        fields = [(name, image if feature is _IMAGE else self._arrow.string()) for name, feature in _FEATURES.items()]
        self._schema = self._arrow.schema(
            fields, metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})}
        )
        self._max_items, self._max_bytes = options.shard_items, options.shard_bytes
        self._open: dict[str, _Shard] = {}
        self._shards: dict[str, int] = {}
        self._items = 0

    def add(self, prepared: PreparedItem) -> Iterator[ExportFile]:
        """The shard, if this item fills it."""
        split, item, mask_png, numbered = prepared.split, prepared.item, prepared.mask_png, prepared.instances_png
        if split not in self._open:
            number = self._shards.get(split, 0)
            self._shards[split] = number + 1
            self._open[split] = _Shard(self._path(split, number), Spool(self._scratch))
        shard = self._open[split]
        image, mask = f"{prepared.stem}.{prepared.suffix}", f"{prepared.stem}_mask.png"
        prepared.record_file("image", image, prepared.image, shard=shard.path)
        prepared.record_file("mask", mask, mask_png, shard=shard.path)
        instances = f"{prepared.stem}_instances.png"
        if numbered is not None:
            prepared.record_file("instances", instances, numbered, shard=shard.path)
        self._items += 1
        shard.add(
            {
                "name": _text(item.name),
                "image": (image, prepared.image),
                "mask": (mask, mask_png),
                "instances": None if numbered is None else (instances, numbered),
                "source": item.source,
                "caption": None if item.caption is None else _text(item.caption),
                "metadata": prepared.metadata_json,
            }
        )
        if shard.items >= self._max_items or shard.rows.size >= self._max_bytes:
            yield from self._finish_shard(split)

    def finish(self) -> Iterator[ExportFile]:
        """The shards that are not full, and ``dataset.json`` with the classes."""
        for split in sorted(self._open):
            yield from self._finish_shard(split)
        yield ExportFile.of("dataset.json", json_page({"classes": self._classes.table()}))

    def _finish_shard(self, split: str) -> Iterator[ExportFile]:
        shard = self._open.pop(split)
        with shard.rows, Spool(self._scratch) as spool:
            sink = self._arrow.PythonFile(spool, mode="w")
            # images are compressed already, and no two are alike
            with self._parquet.ParquetWriter(sink, self._schema, compression="snappy", use_dictionary=False) as writer:
                for rows in shard.groups():
                    writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))
            yield spool.as_file(shard.path)

    @staticmethod
    def _path(split: str, number: int) -> str:
        return f"data/{split}-{number:05d}.parquet"

    def state(self) -> WriterState:
        """The rows of the open shards, and the number of shards of each split."""
        counted = {split: shard.items for split, shard in self._open.items()}
        values = {"items": self._items, "open": counted, "shards": dict(self._shards)}
        return WriterState(values, {shard.path: shard.rows for shard in self._open.values()})

    def restore(self, state: WriterState) -> None:
        """Restores the open shards."""
        self._items, self._shards = state.values["items"], dict(state.values["shards"])
        for split, items in state.values["open"].items():
            path = self._path(split, self._shards[split] - 1)
            self._open[split] = _Shard(path, state.spools[path], items)

    def front_matter(self) -> str:
        """The card's metadata: task, size, and the files of each split."""
        sizes = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**12, "n>1M")]
        size = next(name for limit, name in sizes if self._items < limit)
        lines = [
            "---",
            "task_categories:",
            "- image-segmentation",
            "tags:",
            "- synthetic",
            "size_categories:",
            f"- {size}",
        ]
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in sorted(self._shards):
            lines += [f"  - split: {json.dumps(split.replace('-', '_'))}", f"    path: data/{split}-[0-9]*.parquet"]
        return "\n".join([*lines, "---", "", ""])

    def layout(self) -> list[str]:
        """Lines for README.md that describe the files."""
        return [
            "`data/{split}-NNNNN.parquet`: columns `name`, `image`, `mask` (class indices with a palette, 255 none), "
            "`instances` (the number of each pixel's object, 16 bits, 0 none; null where objects are not known), "
            "`source`, `caption`, `metadata` (JSON)",
            "`dataset.json`: the classes",
        ]

    def close(self) -> None:
        """Frees the disk."""
        for shard in self._open.values():
            shard.rows.close()


def _text(text: str) -> str:
    """A text that can be encoded as UTF-8: file names may hold bytes that are not valid UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
