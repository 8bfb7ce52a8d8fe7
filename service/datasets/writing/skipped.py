"""The items that an export skipped: the number for each reason, and the first of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from service.errors import InvalidDataset
from service.kit.frozen import _Frozen

if TYPE_CHECKING:
    # it needs numpy, and the API reads skipped items without it
    from service.datasets.items import DatasetItem

FIRST_OF_EACH = 20
SAME_IMAGE = "same_image"
SKIP_REASONS: dict[str, str] = {
    "low_confidence": "the model's confidence in the twin's mask is below the requested minimum",
    "no_scores": "the twin's manifest lacks the score for which a minimum was requested",
    "same_image": "an earlier item has the same image, byte for byte; the first one is exported",
    "no_mask": "the image has no mask",
    "missing": "its files are no longer in the object store",
    "damaged": "its files in the object store differ from their recorded hashes; restore them",
    "unreadable": "the image or the mask cannot be decoded; store it anew",
    "size_differs": "image and mask differ in size; make both anew from one source",
    "unknown_labels": "the mask holds values that belong to no class",
    "too_detailed": "the mask is like noise, with more objects than this format can have",
    "between_splits": "its mask was merged from masks of different splits, so it fits in none of them",
    "invalid": "it cannot be written in this format",
}


class SkippedItem(_Frozen):
    """A skipped item: its name, and why it is not in the export."""

    name: str
    detail: str


class SkippedGroup(_Frozen):
    """All items skipped for one reason: their number, and the first of them."""

    reason: str
    meaning: str
    count: int = Field(ge=1)
    first: tuple[SkippedItem, ...]


class SkippedItems:
    """Collects skipped items; of each reason the first :data:`FIRST_OF_EACH` are kept and the rest counted."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[SkippedItem]] = {}
        self.real = 0
        """The number of real items among them."""

    def add(self, reason: str, name: str, detail: str, *, real: bool = False) -> None:
        """Adds an item. A reason that is not in :data:`SKIP_REASONS` counts as ``invalid``."""
        self.real += real
        reason = reason if reason in SKIP_REASONS else "invalid"
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < FIRST_OF_EACH:
            first.append(SkippedItem(name=name[:300], detail=detail[:500]))

    @property
    def total(self) -> int:
        """The number of items skipped for any reason."""
        return sum(self._counts.values())

    @property
    def counts(self) -> dict[str, int]:
        """The number of items by reason, in the order of :data:`SKIP_REASONS`."""
        return {reason: self._counts[reason] for reason in SKIP_REASONS if reason in self._counts}

    def groups(self) -> tuple[SkippedGroup, ...]:
        """The skipped items by reason."""
        return tuple(
            SkippedGroup(reason=reason, meaning=SKIP_REASONS[reason], count=count, first=tuple(self._first[reason]))
            for reason, count in self.counts.items()
        )

    def add_fault(self, item: DatasetItem, error: InvalidDataset) -> None:
        """Adds an item that cannot be read or written."""
        reason = str(error.extra.get("reason", ""))
        self.add(reason, item.identity, error.detail, real=item.source == "real")

    def check_real(self, written: int) -> None:
        """Raises InvalidDataset if real items were skipped and none is among the ``written`` ones."""
        if self.real and not written:
            counted = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in self.counts.items())
            first = next(item for group in self.groups() for item in group.first)
            raise InvalidDataset(
                f"none of the {self.real} real items can be exported; left out: {counted}. The first is {first.name}: "
                f"{first.detail}"
            )

    def state(self) -> dict[str, Any]:
        """The groups as JSON, and the number of real items."""
        return {"groups": [group.model_dump(mode="json") for group in self.groups()], "real": self.real}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state` returned."""
        groups = [SkippedGroup.model_validate(entry) for entry in state["groups"]]
        self.real = state["real"]
        self._counts = {group.reason: group.count for group in groups}
        self._first = {group.reason: list(group.first) for group in groups}
