"""Hugging Face: parquet shards whose image columns ``datasets`` loads as images, and a card that says where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from service.datasets.classes import ClassList
from service.datasets.extras import optional
from service.datasets.writing.files import ExportFile, Spool
from service.datasets.writing.manifest import json_page
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.preparing import Prepared

_GROUP_ITEMS = 100
_GROUP_BYTES = 16 << 20
"""A row group ends at either: it is what a reader, and this writer, has in memory at a time."""
_IMAGE = {"_type": "Image"}
_STRING = {"dtype": "string", "_type": "Value"}
_FEATURES: dict[str, Any] = {
    "name": _STRING,
    "image": _IMAGE,
    "mask": _IMAGE,
    "source": _STRING,
    "caption": _STRING,
    "metadata": _STRING,
}


class _Shard:
    """An open parquet file, and the rows of its next row group."""

    def __init__(self, path: str, pyarrow: Any, parquet: Any, scratch: Path | None) -> None:
        self.path = path
        self.spool = Spool(scratch)
        self.items = 0
        self._arrow = pyarrow
        self._rows: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        fields = [(name, image if feature is _IMAGE else pyarrow.string()) for name, feature in _FEATURES.items()]
        about = json.dumps({"info": {"features": _FEATURES}})
        self._schema = pyarrow.schema(fields, metadata={"huggingface": about})
        self._sink = pyarrow.PythonFile(self.spool, mode="w")
        # images are compressed already, and no two are alike
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="snappy", use_dictionary=False)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.spool.size + self._waiting_bytes

    def add(self, row: dict[str, Any]) -> None:
        """A row, written with its group."""
        self._rows.append(row)
        self.items += 1
        self._waiting_bytes += len(row["image"]["bytes"]) + len(row["mask"]["bytes"])
        if len(self._rows) >= _GROUP_ITEMS or self._waiting_bytes >= _GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        """Writes what waits, and the file's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()
            self._waiting_bytes = 0


class HuggingFaceWriter:
    """``data/{split}-{number:05d}.parquet``; the README's head names the splits, so ``load_dataset`` needs no script."""

    replaced: ClassVar[dict[str, str]] = {}

    def __init__(self, classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> None:
        self._classes = classes
        self._scratch = scratch
        self._arrow = optional("pyarrow", extra="export", purpose="an export for Hugging Face")
        self._parquet = optional("pyarrow.parquet", extra="export", purpose="an export for Hugging Face")
        self._most_items, self._most_bytes = options.shard_items, options.shard_bytes
        self._open: dict[str, _Shard] = {}
        self._shards: dict[str, int] = {}
        self._items = 0

    def add(self, prepared: Prepared) -> Iterator[ExportFile]:
        """The shard that this item fills, if it does."""
        split, item = prepared.split, prepared.item
        if split not in self._open:
            number = self._shards.get(split, 0)
            self._shards[split] = number + 1
            self._open[split] = _Shard(f"data/{split}-{number:05d}.parquet", self._arrow, self._parquet, self._scratch)
        shard = self._open[split]
        image, mask = f"{prepared.stem}.{prepared.suffix}", f"{prepared.stem}_mask.png"
        prepared.note("image", image, prepared.image, shard=shard.path)
        prepared.note("mask", mask, prepared.mask_png, shard=shard.path)
        self._items += 1
        shard.add(
            {
                "name": item.name,
                "image": {"bytes": prepared.image, "path": image},
                "mask": {"bytes": prepared.mask_png, "path": mask},
                "source": item.source,
                "caption": item.caption,
                "metadata": prepared.metadata_json,
            }
        )
        if shard.items >= self._most_items or shard.size >= self._most_bytes:
            yield from self._finish_shard(split)

    def finish(self) -> Iterator[ExportFile]:
        """The shards that are not full, and what the classes are."""
        for split in sorted(self._open):
            yield from self._finish_shard(split)
        yield ExportFile.of("dataset.json", json_page({"classes": self._classes.table()}))

    def _finish_shard(self, split: str) -> Iterator[ExportFile]:
        shard = self._open.pop(split)
        with shard.spool as spool:
            shard.finish()
            yield spool.as_file(shard.path)

    def front_matter(self) -> str:
        """The card's metadata: task, size, and the files of each split."""
        sizes = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**12, "n>1M")]
        size = next(name for most, name in sizes if self._items < most)
        lines = ["---", "task_categories:", "- image-segmentation", "tags:", "- synthetic", "size_categories:", f"- {size}"]
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in sorted(self._shards):
            lines += [f"  - split: {split.replace('-', '_')}", f"    path: data/{split}-[0-9]*.parquet"]
        return "\n".join([*lines, "---", "", ""])

    def layout(self) -> list[str]:
        """Which file holds what."""
        return [
            "`data/{split}-NNNNN.parquet`: columns `name`, `image`, `mask` (class indices with a palette, 255 none), `source`, "
            "`caption`, `metadata` (JSON)",
            "`dataset.json`: the classes",
        ]

    def close(self) -> None:
        """Frees what is held on disk."""
        for shard in self._open.values():
            shard.spool.close()
