"""The writer for WebDataset: tar shards in which the files of an item lie side by side under one key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from service.datasets.classes import ClassList
from service.datasets.writing.manifest import json_page, line_with_metadata, text
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import PreparedItem
from service.datasets.writing.state import WriterState
from service.kit import tar
from service.kit.output_file import ExportFile, Spool


class _Shard:
    """The open shard of a split."""

    def __init__(self, path: str, spool: Spool, items: int = 0) -> None:
        self.path = path
        self.spool = spool
        self.items = items


class WebDatasetWriter:
    """Writer of ``{split}-{number:06d}.tar`` with ``{key}.png``, ``{key}.mask.png`` and ``{key}.json`` per item.

    An item with an instance map has it as ``{key}.instances.png``.
    """

    replaced: ClassVar[dict[str, str]] = {".": "_"}
    """A key ends at the first dot of a file's name."""
    per_split: ClassVar[bool] = True
    sharded: ClassVar[bool] = True

    def __init__(self, classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> None:
        self._classes = classes
        self._scratch = scratch
        self._max_items, self._max_bytes = options.shard_items, options.shard_bytes
        self._open: dict[str, _Shard] = {}
        self._shards: dict[str, int] = {}

    def add(self, prepared: PreparedItem) -> Iterator[ExportFile]:
        """The shard, if this item fills it."""
        split, mask_png, numbered = prepared.split, prepared.mask_png, prepared.instances_png
        if split not in self._open:
            number = self._shards.get(split, 0)
            self._shards[split] = number + 1
            self._open[split] = _Shard(self._path(split, number), Spool(self._scratch))
        shard = self._open[split]
        key = prepared.stem
        image, mask = f"{key}.{prepared.suffix}", f"{key}.mask.png"
        prepared.record_file("image", image, prepared.image, shard=shard.path)
        prepared.record_file("mask", mask, mask_png, shard=shard.path)
        members = [(image, prepared.image), (mask, mask_png)]
        if numbered is not None:
            prepared.record_file("instances", f"{key}.instances.png", numbered, shard=shard.path)
            members.append((f"{key}.instances.png", numbered))
        shard.spool.write(tar.members(*members, (f"{key}.json", _about(prepared))))
        shard.items += 1
        if shard.items >= self._max_items or shard.spool.size >= self._max_bytes:
            yield from self._finish_shard(split)

    def finish(self) -> Iterator[ExportFile]:
        """The shards that are not full, and ``dataset.json`` with the classes."""
        for split in sorted(self._open):
            yield from self._finish_shard(split)
        yield ExportFile.of(
            "dataset.json", json_page({"classes": self._classes.table(), "shards": dict(sorted(self._shards.items()))})
        )

    @staticmethod
    def _path(split: str, number: int) -> str:
        return f"{split}-{number:06d}.tar"

    def _finish_shard(self, split: str) -> Iterator[ExportFile]:
        shard = self._open.pop(split)
        with shard.spool as spool:
            spool.write(tar.end(spool.size))
            yield spool.as_file(shard.path)

    def state(self) -> WriterState:
        """The open shards, and the number of shards of each split."""
        counted = {split: shard.items for split, shard in self._open.items()}
        return WriterState(
            {"items": counted, "shards": dict(self._shards)}, {shard.path: shard.spool for shard in self._open.values()}
        )

    def restore(self, state: WriterState) -> None:
        """Restores the open shards."""
        self._shards = dict(state.values["shards"])
        for split, items in state.values["items"].items():
            path = self._path(split, self._shards[split] - 1)
            self._open[split] = _Shard(path, state.spools[path], items)

    def front_matter(self) -> str:
        """Empty."""
        return ""

    def layout(self) -> list[str]:
        """Lines for README.md that describe the files."""
        return [
            "`{split}-NNNNNN.tar`: shards; for each item `KEY.png` or `KEY.jpg` (the image), `KEY.mask.png` (class "
            "indices with a palette, 255 none) and `KEY.json` (name, source, caption, metadata); `KEY.instances.png` "
            "(the number of each pixel's object, 16 bits, 0 none) of items whose objects are known",
            "`dataset.json`: the classes, and the number of shards of each split",
        ]

    def close(self) -> None:
        """Frees the disk."""
        for shard in self._open.values():
            shard.spool.close()


def _about(prepared: PreparedItem) -> bytes:
    item = prepared.item
    caption = "" if item.caption is None else f'"caption":{text(item.caption)},'
    start = f'{{{caption}"name":{text(item.name)},"source":"{item.source}","split":"{prepared.split}"}}'
    return line_with_metadata(start, prepared)
