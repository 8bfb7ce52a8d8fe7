"""Faults of a request: collected during validation and raised together; and how values are shown in messages."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from service.errors import InvalidRequest, UnknownClass

UNPRINTABLE = "it holds control characters or halves of surrogate pairs; leave them out"
MAX_LISTED = 50
"""Faults that one answer lists. More would not help anyone fix a request, and a body can have a million."""


class Faults:
    """Collects what is wrong with a request."""

    def __init__(self) -> None:
        self._found: list[dict[str, str]] = []
        self._only_unknown_classes = True

    def add(self, member: str, value: Any, what: str, *, unknown_class: bool = False) -> None:
        """Records a wrong ``value`` of ``member`` (``classes.1`` for a list item), and ``what`` to do about it."""
        self._only_unknown_classes &= unknown_class
        pointer = "".join(f"/{part}" for part in member.split("."))
        self._found.append({"pointer": pointer, "detail": f"{member.split('.')[0]} is {truncated_repr(value)}: {what}"})

    def add_plain(self, pointer: str, detail: str) -> None:
        """Records a fault that is no single member's value; ``pointer`` may be "", the whole body."""
        self._only_unknown_classes = False
        self._found.append({"pointer": pointer, "detail": detail})

    def outside(self, member: str, value: float, low: float, high: float, remedy: str) -> None:
        """Records ``value`` as a fault if it lies outside ``low`` to ``high``."""
        if not low <= value <= high:
            self.add(member, value, f"it must be {_number(low)} to {_number(high)}; {remedy}")

    def extend(self, other: Faults) -> None:
        """Records all that ``other`` has, after what was recorded so far."""
        self._only_unknown_classes &= other._only_unknown_classes
        self._found += other._found

    @property
    def found(self) -> list[dict[str, str]]:
        """What was recorded so far: pointers and details."""
        return list(self._found)

    def raise_if_any(self) -> None:
        """Raises the faults: :class:`UnknownClass` if all are unknown classes, else :class:`InvalidRequest`."""
        if self._found:
            kind = UnknownClass if self._only_unknown_classes else InvalidRequest
            errors = listed_faults(self._found)
            raise kind("; ".join(fault["detail"] for fault in errors), errors=errors)


def listed_faults(found: list[dict[str, str]]) -> list[dict[str, str]]:
    """The faults that an answer lists: the first :data:`MAX_LISTED`, then how many more there are."""
    if len(found) <= MAX_LISTED:
        return found
    return [*found[:MAX_LISTED], {"pointer": "", "detail": f"and {len(found) - MAX_LISTED} more, which are not listed"}]


def truncated_repr(value: Any, *, max_chars: int = 80) -> str:
    """A value for a message: as JSON, in ASCII, cut to ``max_chars``. A long value is not serialised whole first."""
    if isinstance(value, str):
        value = value[: max_chars + 1]
    try:
        text = ""
        for piece in json.JSONEncoder().iterencode(value):
            text += piece
            if len(text) > max_chars:
                break
    except (TypeError, ValueError):
        text = ascii(value)
    return text if len(text) <= max_chars else f"{text[: max_chars - 3]}..."


def unprintable(text: str) -> bool:
    """Whether ``text`` holds control characters or lone surrogates, which UTF-8 or a terminal cannot show."""
    return any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_control(text: str, *, keep: str = "") -> str:
    """A text from outside, safe to show on a terminal.

    Control characters, bidirectional overrides and lone surrogates are written as escapes, such as ``\\x1b``.
    """
    return _HIDDEN.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode("ascii"), text
    )


def _number(limit: float) -> str:
    return str(int(limit)) if float(limit).is_integer() else f"{limit:g}"


def closest_match(word: str, known: Iterable[str]) -> str | None:
    """The word of ``known`` that ``word`` probably means, ignoring case; None if nothing is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(word[:200].casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def join_list(words: Sequence[str], *, max_items: int = 40) -> str:
    """``words`` joined by commas for a message, cut after ``max_items``."""
    if not words:
        return "none"
    rest = f" and {len(words) - max_items} more" if len(words) > max_items else ""
    return ", ".join(words[:max_items]) + rest
