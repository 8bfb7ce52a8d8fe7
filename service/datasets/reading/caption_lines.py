"""The lines of a dataset's ``captions.jsonl``: ``{"stem": ..., "text": ...}``, with any further members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from service.datasets.reading.tree import nfc, read_text
from service.errors import InvalidDataset
from service.kit.documents import parse_json

CAPTIONS_FILE = "captions.jsonl"


class EntryTexts(TypedDict):
    """The texts of an entry: the first one, and all of them if there is more to keep."""

    caption: str | None
    captions: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class CaptionLines:
    """The lines by the stem of their image; a stem may have several."""

    lines: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> CaptionLines:
        """The lines in a dataset's folder; none without the file. Raises InvalidDataset naming the first invalid one.

        A line without a text is left out: a missing caption must not be read as the empty one, the null text.
        """
        path = root / CAPTIONS_FILE
        found: dict[str, list[dict[str, Any]]] = {}
        # not splitlines: JSON text may hold the line separators of Unicode as they stand
        for number, line in enumerate(read_text(path).split("\n") if path.is_file() else (), start=1):
            if not line.strip():
                continue
            try:
                members = dict(parse_json(line))
                stem, text = members.pop("stem"), members["text"]
                if not isinstance(stem, str) or not isinstance(text, str):
                    raise TypeError(f"stem {stem!r} and text {text!r} should both be text")
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidDataset(
                    f'{CAPTIONS_FILE}, line {number} is not {{"stem": "...", "text": "..."}} ({error!r:.200})'
                ) from None
            if text.strip():
                found.setdefault(nfc(stem), []).append(members | {"text": text.strip()})
        return cls(found)

    def of(self, stem: str) -> EntryTexts:
        """The texts of the image with this stem."""
        lines = self.lines.get(stem, [])
        more = len(lines) > 1 or any(len(line) > 1 for line in lines)
        return {"caption": lines[0]["text"] if lines else None, "captions": tuple(lines) if more else ()}
