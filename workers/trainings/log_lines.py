"""The log of a training in this process, which has no torch: lines of JSON with the means of an interval."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

_NOT_LOSSES = ("iteration", "seconds_per_iteration", "averaged", "gradient_norm")


def read_lines(path: Path) -> list[dict[str, float]]:
    """The whole lines of a log; none if there is no log yet. A last line that is being written is left out."""
    return list(_lines(path))


def _lines(path: Path) -> Iterator[dict[str, float]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            return
        if isinstance(found, dict) and "iteration" in found:
            yield found


def write_lines(path: Path, lines: Sequence[dict[str, float]]) -> None:
    """Writes a log that the next lines go on from."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def first_loss(lines: Sequence[dict[str, float]]) -> float | None:
    """The first loss of the last line."""
    for name, value in (lines[-1] if lines else {}).items():
        if name not in _NOT_LOSSES:
            return value
    return None


def seconds_per_iteration(lines: Sequence[dict[str, float]]) -> float | None:
    """The last interval's seconds an iteration."""
    return lines[-1].get("seconds_per_iteration") if lines else None
