"""Words of classes in requests and prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class NamedClass(Protocol):
    """The part of a class that :func:`check_words` reads."""

    @property
    def name(self) -> str: ...

    @property
    def aliases(self) -> Sequence[str]: ...


def check_words(classes: Iterable[NamedClass]) -> None:
    """Raises ValueError if a word, in any case, names two classes: a request with it could mean either."""
    spoken: dict[str, str] = {}
    for entry in classes:
        for word in {entry.name.casefold(), *(alias.casefold() for alias in entry.aliases)}:
            if word in spoken:
                raise ValueError(f"{word!r} names both {spoken[word]!r} and {entry.name!r}")
            spoken[word] = entry.name


def join_words(words: Sequence[str]) -> str:
    """``["a", "b", "c"]`` -> ``"a, b and c"``."""
    if len(words) <= 1:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
