"""What lies on the disk, and whether it is where it may be."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from service.store import keys

_SAMPLES: dict[str, tuple[object, str]] = {
    "job": ("JJ", r"j[0-9a-hjkmnp-tv-z]{18}"),
    "subject": ("SS", r"[jae][0-9a-hjkmnp-tv-z]{18}"),
    "tenant": ("TT", r"[a-z0-9][a-z0-9-]{0,62}"),
    "sha256": ("5a" * 32, r"[0-9a-f]{64}"),
    "index": (12345678, r"[0-9]{8,9}"),
    "number": (123456, r"[0-9]{6}"),
    "chunk": (234567, r"[0-9]{6}"),
    "attempt": (3456, r"[0-9]{4,}"),
    "samples": (111, r"[0-9]+"),
    "size": (222, r"[0-9]+"),
}
"""For each parameter of what a key is made from a value of it, and what it may be."""


def key_patterns() -> list[re.Pattern[str]]:
    """What the keys look like that a request can lead to, as :mod:`service.store.keys` makes them."""
    patterns = []
    for name, make in inspect.getmembers(keys, inspect.isfunction):
        parameters = list(inspect.signature(make).parameters)
        if (
            name.startswith("_")
            or name == "attempt"  # a part of keys
            or name.endswith(("_prefix", "_prefixes"))
            or not parameters
            or not set(parameters) <= _SAMPLES.keys()
        ):
            continue
        text = re.escape(make(*[_SAMPLES[parameter][0] for parameter in parameters]))
        for parameter in parameters:
            value, form = _SAMPLES[parameter]
            if parameter == "sha256" and value not in text:
                value, form = keys.attempt(value), keys.ATTEMPT
            assert str(value) in text, f"{name} makes nothing of {parameter}"
            text = text.replace(str(value), form)
        patterns.append(re.compile(text))
    return patterns


def listing(folder: Path) -> set[str]:
    """Everything below ``folder``, as paths from there; links are not followed."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def astray(new: set[str], store: str) -> list[str]:
    """Those of the paths that are no key below ``store``, and no folder on the way to one."""
    patterns = key_patterns()
    right = {path for path in new if any(pattern.fullmatch(path.removeprefix(f"{store}/")) for pattern in patterns)}
    ways = {str(parent) for path in right for parent in Path(path).parents}
    return sorted(new - right - ways)
