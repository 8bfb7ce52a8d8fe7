"""What an export was asked to hold, and does not: how many items, why, and the first of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FIRST_OF_EACH = 20
SAME_IMAGE = "same_image"
MEANINGS: dict[str, str] = {
    "low_confidence": "the model was less sure of the twin's mask than was asked for",
    "no_scores": "the twin's manifest has no score of that kind, and one was asked for",
    "same_image": "the same image, byte for byte, came before; the first one is in",
    "same_name": "another item came before whose files would have the same name; rename one of them",
    "no_mask": "the image has no mask",
    "missing": "its files are not in the object store any more",
    "damaged": "its files in the object store are not those that were recorded; restore them",
    "unreadable": "the image or the mask cannot be decoded; store it anew",
    "size_differs": "image and mask differ in size; make both anew from one source",
    "unknown_labels": "the mask holds values that are no class's",
    "between_splits": "its mask was merged from masks on different sides of the split, so that it can be on none",
    "invalid": "it cannot be written in this format",
}


class LeftOutItem(BaseModel):
    """An item by its name, and why it is not in the export."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    detail: str


class LeftOutGroup(BaseModel):
    """All items left out for one reason: how many, and the first of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str
    meaning: str
    count: int = Field(ge=1)
    first: tuple[LeftOutItem, ...]


class LeftOut:
    """Gathers what is left out; of each reason the first twenty are kept, the rest counted."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[LeftOutItem]] = {}

    def add(self, reason: str, name: str, detail: str) -> None:
        """Notes an item. A reason that is none of :data:`MEANINGS` counts as ``invalid``."""
        reason = reason if reason in MEANINGS else "invalid"
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < FIRST_OF_EACH:
            first.append(LeftOutItem(name=name[:300], detail=detail[:500]))

    @property
    def total(self) -> int:
        """Items of all reasons."""
        return sum(self._counts.values())

    @property
    def counts(self) -> dict[str, int]:
        """Items by reason, in the order of :data:`MEANINGS`."""
        return {reason: self._counts[reason] for reason in MEANINGS if reason in self._counts}

    def groups(self) -> tuple[LeftOutGroup, ...]:
        """Everything so far."""
        return tuple(
            LeftOutGroup(reason=reason, meaning=MEANINGS[reason], count=count, first=tuple(self._first[reason]))
            for reason, count in self.counts.items()
        )

    def state(self) -> list[dict[str, Any]]:
        """Everything so far as JSON."""
        return [group.model_dump(mode="json") for group in self.groups()]

    def restore(self, state: list[Mapping[str, Any]]) -> None:
        """Takes up what :meth:`state` gave."""
        groups = [LeftOutGroup.model_validate(entry) for entry in state]
        self._counts = {group.reason: group.count for group in groups}
        self._first = {group.reason: list(group.first) for group in groups}
