"""Faults of a request: collected while it is looked through, and told all at once."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from service.errors import InvalidRequest, UnknownClass

UNPRINTABLE = "it holds control characters or halves of surrogate pairs; leave them out"
MAX_TOLD = 50
"""Faults that one answer lists: no request is mended from more of them, and a body can hold a million."""


class Faults:
    """Collects what is wrong with a request."""

    def __init__(self) -> None:
        self._found: list[dict[str, str]] = []
        self._only_unknown_classes = True

    def add(self, member: str, value: Any, what: str, *, unknown_class: bool = False) -> None:
        """Notes that ``member`` (dotted for list items: ``classes.1``) has ``value``, and ``what`` is to be done."""
        self._only_unknown_classes &= unknown_class
        pointer = "".join(f"/{part}" for part in member.split("."))
        self._found.append({"pointer": pointer, "detail": f"{member.split('.')[0]} is {truncated_repr(value)}: {what}"})

    def add_plain(self, pointer: str, detail: str) -> None:
        """Notes a fault that is no single member's value; ``pointer`` may be "", the whole body."""
        self._only_unknown_classes = False
        self._found.append({"pointer": pointer, "detail": detail})

    def outside(self, member: str, value: float, low: float, high: float, remedy: str) -> None:
        """Notes ``value`` if it lies outside ``low`` to ``high``."""
        if not low <= value <= high:
            self.add(member, value, f"it must be {_number(low)} to {_number(high)}; {remedy}")

    def raise_if_any(self) -> None:
        """Raises what has been noted, if anything: :class:`InvalidRequest`, or :class:`UnknownClass` if that is all."""
        if self._found:
            kind = UnknownClass if self._only_unknown_classes else InvalidRequest
            errors = told(self._found)
            raise kind("; ".join(fault["detail"] for fault in errors), errors=errors)


def told(found: list[dict[str, str]]) -> list[dict[str, str]]:
    """The faults that an answer lists: the first :data:`MAX_TOLD`, and how many more there are."""
    if len(found) <= MAX_TOLD:
        return found
    return [*found[:MAX_TOLD], {"pointer": "", "detail": f"and {len(found) - MAX_TOLD} more, which are not listed"}]


def truncated_repr(value: Any, *, most: int = 80) -> str:
    """A value for a message: as JSON, in ASCII, cut short. What is cut off is not written out first."""
    if isinstance(value, str):
        value = value[: most + 1]
    try:
        text = ""
        for piece in json.JSONEncoder().iterencode(value):
            text += piece
            if len(text) > most:
                break
    except (TypeError, ValueError):
        text = ascii(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def unprintable(text: str) -> bool:
    """Whether ``text`` holds what is no text: it could not be written as UTF-8, or not be shown."""
    return any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_control(text: str, *, keep: str = "") -> str:
    """A text from outside as it may be shown: what commands a terminal, turns the text around or is no text is written
    as ``\\x1b``."""
    return _HIDDEN.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode("ascii"), text
    )


def _number(limit: float) -> str:
    return str(int(limit)) if float(limit).is_integer() else f"{limit:g}"


def closest_match(word: str, known: Iterable[str]) -> str | None:
    """The word of ``known`` that ``word`` was probably meant to be, whatever its case; None if nothing is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(word[:200].casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def join_list(words: Sequence[str], *, most: int = 40) -> str:
    """``words`` for a message, cut after ``most``."""
    if not words:
        return "none"
    rest = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest
