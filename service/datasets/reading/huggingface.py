"""Hugging Face: parquet shards with a column of images and one of masks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from service.datasets.classes import ClassList
from service.datasets.extras import optional
from service.datasets.reading.class_lists import need_classes
from service.datasets.reading.entry import Entry
from service.datasets.reading.provenance import told
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import SPLIT_NAMES, relative
from service.datasets.reading.webdataset import annotate
from service.errors import InvalidDataset

MAX_GROUP_BYTES = 1 << 30
"""A row group is in memory while it is read."""
_SHARD = re.compile(r"([a-z0-9][a-z0-9_-]{0,31}?)-[0-9]{5}(-of-[0-9]{5})?\.parquet")
_MAX_HEADER_BYTES = 16 << 20
_TEXTS = ("name", "source", "caption", "metadata")
_PICTURES = ("image", "mask")


class HuggingFaceSource:
    """``data/{split}-{number:05d}.parquet`` with the columns ``image`` and ``mask`` (bytes and path; the mask a PNG of
    class indices), and if they are there ``name``, ``source``, ``caption`` and ``metadata`` (JSON); the classes of
    ``dataset.json``."""

    format = "huggingface"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        """Raises MissingExtra without pyarrow."""
        self.root = root
        self.classes = need_classes(root, classes)
        self._parquet = optional("pyarrow.parquet", extra="export", purpose="a dataset in Parquet")
        self._shards = parquet_shards(root)
        if not self._shards:
            raise InvalidDataset("there are no shards: files called data/train-00000.parquet and so on")

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """Shard by shard, row by row. Raises InvalidDataset for a shard without the columns, or with a row group that
        is too large."""
        for shard in self._shards:
            place = relative(self.root, shard)
            split = _SHARD.fullmatch(shard.name)[1]  # type: ignore[index]
            try:
                with self._parquet.ParquetFile(
                    shard, thrift_string_size_limit=_MAX_HEADER_BYTES, thrift_container_size_limit=_MAX_HEADER_BYTES
                ) as file:
                    _check_columns(file, place)
                    for group in range(file.num_row_groups):
                        yield from self._group(file, group, place, SPLIT_NAMES.get(split, split))
            except (OSError, ValueError, RuntimeError) as error:
                # pyarrow's own errors are these too
                findings.add(
                    "unreadable", place, f"it is no parquet file, or damaged ({str(error)[:200]}); fetch it anew"
                )

    def _group(self, file: Any, number: int, place: str, split: str) -> Iterator[Entry]:
        size = file.metadata.row_group(number).total_byte_size
        if size > MAX_GROUP_BYTES:
            raise InvalidDataset(
                f"{place} has a row group of {size} bytes; at most {MAX_GROUP_BYTES} are read. Write it in smaller ones"
            )
        group = _Group(file, number)
        names = [name for name in _TEXTS if name in file.schema_arrow.names]
        rows = file.read_row_group(number, columns=[*names, "image.path"]).to_pylist()
        for row, about in enumerate(rows):
            listed = (about.pop("image") or {}).get("path")
            mask = _Cell(group, "mask", row)
            yield Entry(
                name=about.get("name") or f"{Path(place).stem}/{number}/{row}",
                image=_Cell(group, "image", row),
                annotate=partial(annotate, mask, self.classes),
                split=split,
                caption=about.get("caption"),
                known=told({**about, "metadata": _parsed(about.get("metadata"))}),
                mask_file=mask,
                place=f"{place}/{listed or row}",
                listed=listed,
            )


class _Group:
    """The pictures of a row group, read when the first of them is asked for."""

    def __init__(self, file: Any, number: int) -> None:
        self._file, self._number = file, number

    @cached_property
    def table(self) -> Any:
        """One column of bytes for each."""
        return self._file.read_row_group(self._number, columns=[f"{name}.bytes" for name in _PICTURES])


class _Cell:
    """A picture in a column."""

    def __init__(self, group: _Group, column: str, row: int) -> None:
        self._group, self._column, self._row = group, column, row

    def read_bytes(self) -> bytes:
        """All of it. Raises EntryFault where there is none."""
        try:
            cell = self._group.table.column(self._column)[self._row].as_py()
        except (OSError, ValueError, RuntimeError) as error:
            raise EntryFault("unreadable", f"its row group cannot be read ({str(error)[:200]})") from None
        data = (cell or {}).get("bytes")
        if not data:
            raise EntryFault("missing_partner", f"the column {self._column} holds no bytes of it")
        return bytes(data)


def parquet_shards(root: Path) -> list[Path]:
    """The files in ``data/``, or else in the folder itself, that are called as shards are, by their names."""
    for folder in (root / "data", root):
        found = sorted(
            path
            for path in folder.glob("*.parquet")
            if _SHARD.fullmatch(path.name) and path.is_file() and not path.is_symlink()
        )
        if found:
            return found
    return []


def _check_columns(file: Any, place: str) -> None:
    """Raises InvalidDataset where a column that is needed is not there, or of another kind."""
    schema = file.schema_arrow
    for name in _PICTURES:
        parts = (
            {part.name: str(part.type) for part in schema.field(name).type}
            if name in schema.names and _is_struct(schema, name)
            else {}
        )
        if parts.get("bytes") not in ("binary", "large_binary") or parts.get("path") not in ("string", "large_string"):
            raise InvalidDataset(
                f"{place} has no column {name!r} of images (bytes and path); its columns are {', '.join(schema.names)[:300]}. Rename "
                "the one with the images to 'image', the one with masks of class indices to 'mask'"
            )
    for name in _TEXTS:
        if name in schema.names and str(schema.field(name).type) not in ("string", "large_string"):
            raise InvalidDataset(f"{place} has a column {name!r} that is no text; give it another name")


def _is_struct(schema: Any, name: str) -> bool:
    return str(schema.field(name).type).startswith("struct<")


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
