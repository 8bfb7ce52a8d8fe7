"""Words of classes in requests and prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

_BRACED = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
_PLACEHOLDER = "{classes}"
_MAX_PLACES = 4


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


def check_template(template: str) -> str:
    """The template of a prompt. Raises ValueError for braces other than ``{classes}``, ``{{`` and ``}}``.

    It is no format string of Python, whose ``{classes:3000000000}`` would be a text of three gigabytes.
    """
    if (count := template.count(_PLACEHOLDER)) > _MAX_PLACES:
        raise ValueError(f"{_PLACEHOLDER} is in it {count} times; the limit is {_MAX_PLACES}")
    for found in _BRACED.findall(template):
        if found not in (_PLACEHOLDER, "{{", "}}"):
            raise ValueError(
                f"{found[:60]!r} is not a placeholder; write {_PLACEHOLDER} where the classes go, "
                "and {{ and }} for braces that are meant as such"
            )
    return template


def fill_template(template: str, classes: str) -> str:
    """The prompt of a template, with the classes in words."""
    values = {_PLACEHOLDER: classes, "{{": "{", "}}": "}"}
    return _BRACED.sub(lambda found: values.get(found[0], found[0]), template)
