"""The lines of a dataset's ``captions.jsonl``: ``{"stem": ..., "text": ...}``, with any further members."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from service.kit.documents import parse_json
from workers.data.files import DatasetInvalid


class CaptionLine(NamedTuple):
    """One line: its number, the stem of its image, its text without surrounding blanks, and all members."""

    number: int
    stem: str
    text: str
    members: dict[str, Any]


def caption_lines(path: Path) -> Iterator[CaptionLine]:
    """The lines of a file that are not blank, in order.

    Raises :class:`DatasetInvalid` naming the first invalid line.
    """
    try:
        # not splitlines: JSON text may hold the line separators of Unicode as they stand
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{path} is not UTF-8 text ({error}); save it as that") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            members = parse_json(line)
            stem, text = members["stem"], members["text"]
            if not isinstance(stem, str) or not isinstance(text, str):
                raise TypeError(f"stem {stem!r} and text {text!r} should both be text")
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetInvalid(f'{path}, line {number} is not {{"stem": "...", "text": "..."}} ({error!r})') from None
        yield CaptionLine(number, stem, text.strip(), members)
