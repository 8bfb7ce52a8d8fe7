"""The source for Hugging Face: parquet shards with a column of images and one of masks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from service.datasets.classes import ClassList
from service.datasets.extras import optional
from service.datasets.reading.class_lists import require_classes
from service.datasets.reading.entry import Entry
from service.datasets.reading.provenance import parse_provenance
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.tree import SPLIT_NAMES, relative
from service.datasets.reading.webdataset import annotate
from service.errors import InvalidDataset

MAX_GROUP_BYTES = 1 << 30
"""The maximum size of a row group, which is in memory while it is read."""
_SHARD = re.compile(r"([a-z0-9][a-z0-9_-]{0,31}?)-[0-9]{5}(-of-[0-9]{5})?\.parquet")
_MAX_HEADER_BYTES = 16 << 20
_TEXTS = ("name", "source", "caption", "metadata")
_IMAGES = ("image", "mask")


class HuggingFaceSource:
    """Source of ``data/{split}-{number:05d}.parquet`` with the classes of ``dataset.json``.

    The columns are ``image`` and ``mask`` (bytes and path; the mask is a PNG of class indices), and optionally
    ``name``, ``source``, ``caption`` and ``metadata`` (JSON).
    """

    format = "huggingface"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        """Raises MissingExtra without pyarrow."""
        self.root = root
        self.classes = require_classes(root, classes)
        self._parquet = optional("pyarrow.parquet", extra="export", purpose="a dataset in Parquet")
        self._shards = parquet_shards(root)
        if not self._shards:
            raise InvalidDataset("there are no shards: files called data/train-00000.parquet and so on")

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries, shard by shard and row by row.

        Raises InvalidDataset for a shard without the columns, or with a row group that is too large.
        """
        for shard in self._shards:
            path = relative(self.root, shard)
            split = _split_of(shard.name)
            try:
                with self._parquet.ParquetFile(
                    shard, thrift_string_size_limit=_MAX_HEADER_BYTES, thrift_container_size_limit=_MAX_HEADER_BYTES
                ) as file:
                    _check_columns(file, path)
                    for group in range(file.num_row_groups):
                        yield from self._group(file, group, path, SPLIT_NAMES.get(split, split))
            except (OSError, ValueError, RuntimeError) as error:
                # these include pyarrow's own errors
                findings.add(
                    "unreadable", path, f"it is not a parquet file, or damaged ({str(error)[:200]}); fetch it anew"
                )

    def _group(self, file: Any, number: int, path: str, split: str) -> Iterator[Entry]:
        size = file.metadata.row_group(number).total_byte_size
        if size > MAX_GROUP_BYTES:
            raise InvalidDataset(
                f"{path} has a row group of {size} bytes; the limit is {MAX_GROUP_BYTES}. Write smaller row groups"
            )
        group = _Group(file, number)
        names = [name for name in _TEXTS if name in file.schema_arrow.names]
        rows = file.read_row_group(number, columns=[*names, "image.path"]).to_pylist()
        for row, about in enumerate(rows):
            listed = (about.pop("image") or {}).get("path")
            mask = _Cell(group, "mask", row)
            yield Entry(
                name=about.get("name") or f"{Path(path).stem}/{number}/{row}",
                image=_Cell(group, "image", row),
                annotate=partial(annotate, mask, self.classes),
                split=split,
                caption=about.get("caption"),
                provenance=parse_provenance({**about, "metadata": _parsed(about.get("metadata"))}),
                mask_file=mask,
                report_path=f"{path}/{listed or row}",
                manifest_path=listed,
            )


class _Group:
    """The images of a row group, read at the first access."""

    def __init__(self, file: Any, number: int) -> None:
        self._file, self._number = file, number

    @cached_property
    def table(self) -> Any:
        """The bytes of images and masks, a column each."""
        return self._file.read_row_group(self._number, columns=[f"{name}.bytes" for name in _IMAGES])


class _Cell:
    """An image file in a cell of a column."""

    def __init__(self, group: _Group, column: str, row: int) -> None:
        self._group, self._column, self._row = group, column, row

    def read_bytes(self) -> bytes:
        """The file's bytes. Raises EntryFault for an empty cell."""
        try:
            cell = self._group.table.column(self._column)[self._row].as_py()
        except (OSError, ValueError, RuntimeError) as error:
            raise EntryFault("unreadable", f"its row group cannot be read ({str(error)[:200]})") from None
        data = (cell or {}).get("bytes")
        if not data:
            raise EntryFault("missing_partner", f"its cell in the column {self._column} is empty")
        return bytes(data)


def parquet_shards(root: Path) -> list[Path]:
    """The files named like shards in ``data/``, or else in the folder itself, sorted by name."""
    for folder in (root / "data", root):
        found = sorted(
            path
            for path in folder.glob("*.parquet")
            if _split_of(path.name) and path.is_file() and not path.is_symlink()
        )
        if found:
            return found
    return []


def _split_of(name: str) -> str:
    """The split that a shard's name begins with; empty for a file that is not named like a shard."""
    found = _SHARD.fullmatch(name)
    return found[1] if found else ""


def _check_columns(file: Any, path: str) -> None:
    """Raises InvalidDataset if a required column is missing or of another type."""
    schema = file.schema_arrow
    for name in _IMAGES:
        parts = (
            {part.name: str(part.type) for part in schema.field(name).type}
            if name in schema.names and _is_struct(schema, name)
            else {}
        )
        if parts.get("bytes") not in ("binary", "large_binary") or parts.get("path") not in ("string", "large_string"):
            raise InvalidDataset(
                f"{path} has no column {name!r} of images (bytes and path); its columns are "
                f"{', '.join(schema.names)[:300]}. Rename the image column to 'image', that of index masks to 'mask'"
            )
    for name in _TEXTS:
        if name in schema.names and str(schema.field(name).type) not in ("string", "large_string"):
            raise InvalidDataset(f"{path} has a column {name!r} that is not text; rename the column")


def _is_struct(schema: Any, name: str) -> bool:
    return str(schema.field(name).type).startswith("struct<")


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
