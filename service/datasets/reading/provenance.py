"""What an export's ``manifest.jsonl`` says of its items, so that what is synthetic stays marked so when it is read
again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from service.datasets.items import Source

_MANIFEST = "manifest.jsonl"
_MAX_LINE_BYTES = 1 << 20
_MAX_NAME = 1000


@dataclass(frozen=True)
class Provenance:
    """An item's name before it became a file's, its source, the mask it was made from, and its metadata."""

    name: str | None = None
    source: Source = "real"
    source_mask: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Manifest(AbstractContextManager["Manifest"]):
    """The lines of a manifest by their images' paths; of each only its place in the file is in memory.

    A line that is not of our form says nothing, and neither does a dataset without a manifest: its items are real.
    """

    def __init__(self, root: Path) -> None:
        self._places: dict[str, int] = {}
        path = root / _MANIFEST
        self._file: IO[bytes] | None = path.open("rb") if path.is_file() and not path.is_symlink() else None
        while self._file is not None:
            place = self._file.tell()
            line = self._file.readline(_MAX_LINE_BYTES)
            if not line:
                break
            image = _parsed(line).get("image")
            if isinstance(image, dict) and isinstance(image.get("path"), str):
                self._places[image["path"]] = place

    def of(self, path: str) -> Provenance | None:
        """What is said of the image at ``path``, seen from the dataset's root; None where nothing is."""
        place = self._places.get(path)
        if place is None or self._file is None:
            return None
        self._file.seek(place)
        return told(_parsed(self._file.readline(_MAX_LINE_BYTES)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def told(entry: Mapping[str, Any]) -> Provenance:
    """What a line of an export's manifest, or another text of an item in an export, tells of it; what is not of our
    form says nothing."""
    name, mask, metadata = entry.get("name"), entry.get("source_mask"), entry.get("metadata")
    return Provenance(
        name=name if isinstance(name, str) and 0 < len(name) <= _MAX_NAME else None,
        source="synthetic" if entry.get("source") == "synthetic" else "real",
        source_mask=mask if isinstance(mask, str) and _is_text(mask) else None,
        metadata=metadata if isinstance(metadata, dict) and _is_text(metadata) else {},
    )


def _is_text(value: Any) -> bool:
    """Whether JSON can be written as UTF-8: halves of surrogate pairs, which it may hold as escapes, can not."""
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
