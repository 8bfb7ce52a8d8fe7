"""The provenance that an export's ``manifest.jsonl`` records, so that synthetic items stay marked when read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from service.datasets.classes import Source
from service.kit.documents import parse_json

_MANIFEST = "manifest.jsonl"
_MAX_LINE_BYTES = 1 << 20
_MAX_NAME = 1000
_MAX_DIGEST = 200
MAX_TEXT_BYTES = 16 << 10
"""The longest caption, and the longest metadata as JSON, that an item keeps: plans and exports read those of all."""
_MAX_DEPTH = 32


@dataclass(frozen=True)
class Provenance:
    """An item's original name, its source, its source mask, and its metadata.

    ``left_out`` says why metadata that it had are not kept.
    """

    name: str | None = None
    source: Source = "real"
    source_mask: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    left_out: str | None = None


class Manifest(AbstractContextManager["Manifest"]):
    """The lines of a manifest by their images' paths, in a shard below its name; only their offsets are in memory.

    Lines of another form are ignored. Items without a line, or of a dataset without a manifest, are real.
    """

    def __init__(self, root: Path) -> None:
        self._offsets: dict[str, int] = {}
        path = root / _MANIFEST
        self._file: IO[bytes] | None = path.open("rb") if path.is_file() and not path.is_symlink() else None
        while self._file is not None:
            offset = self._file.tell()
            line = self._file.readline(_MAX_LINE_BYTES)
            if not line:
                break
            image = _parsed(line).get("image")
            if isinstance(image, dict) and isinstance(image.get("path"), str):
                shard = image.get("shard")
                self._offsets[f"{shard}/{image['path']}" if isinstance(shard, str) else image["path"]] = offset

    def of(self, path: str) -> Provenance | None:
        """The provenance of the image at ``path`` in the dataset, as reports name it; None if it has no line."""
        offset = self._offsets.get(path)
        if offset is None or self._file is None:
            return None
        self._file.seek(offset)
        return parse_provenance(_parsed(self._file.readline(_MAX_LINE_BYTES)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def is_export(root: Path) -> bool:
    """Whether a Twinset export is in the folder: its manifest's first line describes an image."""
    path = root / _MANIFEST
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        image = _parsed(file.readline(_MAX_LINE_BYTES)).get("image")
    return isinstance(image, dict) and isinstance(image.get("path"), str)


def parse_provenance(entry: Mapping[str, Any]) -> Provenance:
    """The provenance in an item's manifest line, or in its JSON in a shard; members of another form are ignored."""
    name, mask, metadata = entry.get("name"), entry.get("source_mask"), entry.get("metadata")
    return Provenance(
        name=name if isinstance(name, str) and 0 < len(name) <= _MAX_NAME else None,
        source="synthetic" if entry.get("source") == "synthetic" else "real",
        source_mask=mask if isinstance(mask, str) and len(mask) <= _MAX_DIGEST and text_fault(mask) is None else None,
        metadata=metadata if isinstance(metadata, dict) and text_fault(metadata) is None else {},
        left_out=text_fault(metadata) if isinstance(metadata, dict) else None,
    )


def text_fault(value: Any) -> str | None:
    """Why an item cannot keep a text or metadata, or None.

    Too long, too deep, or not UTF-8: lone surrogates, which JSON may hold as escapes, cannot be encoded.
    """
    try:
        size = len(json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return "they hold halves of surrogate pairs; write them as UTF-8"
    if size > MAX_TEXT_BYTES:
        return f"they have {size} bytes; the limit is {MAX_TEXT_BYTES}. Shorten them"
    if _depth(value) > _MAX_DEPTH:
        return f"they are nested more than {_MAX_DEPTH} levels deep; write them with fewer"
    return None


def _depth(value: Any) -> int:
    """The levels of lists and objects in a JSON value, counted up to one more than are allowed."""
    depth, level = 0, [value]
    while depth <= _MAX_DEPTH and (level := [each for each in level if isinstance(each, (dict, list))]):
        depth += 1
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
    return depth


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = parse_json(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) and entry.get("format") == 1 else {}
