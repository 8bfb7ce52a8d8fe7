"""Did you mean: the known word nearest to a mistaken one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The word of ``known`` that ``word`` was probably meant to be, whatever its case; None if nothing is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(word[:200].casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def listed(words: Sequence[str], *, most: int = 40) -> str:
    """``words`` for a message, cut after ``most``."""
    if not words:
        return "none"
    rest = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest
