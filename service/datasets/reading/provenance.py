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

_MANIFEST = "manifest.jsonl"
_MAX_LINE_BYTES = 1 << 20
_MAX_NAME = 1000


@dataclass(frozen=True)
class Provenance:
    """An item's original name, its source, its source mask, and its metadata."""

    name: str | None = None
    source: Source = "real"
    source_mask: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Manifest(AbstractContextManager["Manifest"]):
    """The lines of a manifest by their images' paths; only their offsets in the file are in memory.

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
                self._offsets[image["path"]] = offset

    def of(self, path: str) -> Provenance | None:
        """The provenance of the image at ``path``, relative to the dataset's root; None if it has no line."""
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


def parse_provenance(entry: Mapping[str, Any]) -> Provenance:
    """The provenance in an item's manifest line, or in its JSON in a shard; members of another form are ignored."""
    name, mask, metadata = entry.get("name"), entry.get("source_mask"), entry.get("metadata")
    return Provenance(
        name=name if isinstance(name, str) and 0 < len(name) <= _MAX_NAME else None,
        source="synthetic" if entry.get("source") == "synthetic" else "real",
        source_mask=mask if isinstance(mask, str) and _is_text(mask) else None,
        metadata=metadata if isinstance(metadata, dict) and _is_text(metadata) else {},
    )


def _is_text(value: Any) -> bool:
    """Whether a JSON value can be encoded as UTF-8; lone surrogates, which it may hold as escapes, cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) and entry.get("format") == 1 else {}
