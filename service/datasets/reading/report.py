"""The report on a dataset that was read: counts, and the first files with each fault."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.kit.validation import escape_control

FaultKind = Literal[
    "unreadable",
    "damaged",
    "size_differs",
    "unknown_labels",
    "missing_partner",
    "bad_annotation",
    "duplicate",
    "empty_mask",
    "overlap",
    "turned",
    "assumed",
    "long_text",
]
WARNING_KINDS: frozenset[FaultKind] = frozenset({"empty_mask", "overlap", "turned", "assumed", "long_text"})
"""Faults of items that are read nevertheless."""
FAULT_MEANINGS: dict[FaultKind, str] = {
    "unreadable": "the file cannot be decoded; save it anew, or remove it",
    "damaged": "the file differs from the hash recorded when it was made, or is cut off; fetch it anew",
    "size_differs": "image and mask differ in size; make both anew from one source",
    "unknown_labels": "the mask holds values or colours that the class list lacks; list them, or paint them as 255 "
    "(ignore)",
    "missing_partner": "an image without a mask, or a mask without an image; both need the same name, apart from the "
    "suffix",
    "bad_annotation": "an annotation that breaks its format's rules; the item is skipped, so that no object is lost "
    "silently",
    "duplicate": "an earlier image is the same, byte for byte; only the first one is read",
    "empty_mask": "nothing but background, or nothing but pixels to ignore; read nevertheless",
    "turned": "EXIF data ask for the image to be shown rotated or mirrored, which some tools do and others do not; it "
    "is read upright and kept without these data",
    "overlap": "objects overlap; the smaller one is on top",
    "assumed": "the dataset leaves something open; it is read as described here, so check that this is meant",
    "long_text": "its caption or its metadata are longer than an item keeps; it is read without them",
}
FIRST_OF_EACH = 20


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Frozen):
    """A file, by its path in the dataset, and its fault."""

    file: str
    detail: str


class FaultGroup(_Frozen):
    """All findings of one kind: their number, and the first of them."""

    kind: FaultKind
    meaning: str
    skipped: bool = Field(description="whether these items were skipped")
    count: int = Field(ge=1)
    first: tuple[Finding, ...]


class ReadReport(_Frozen):
    """The report on a dataset that was read to its end."""

    format: str
    items: int = Field(ge=0, description="items read")
    skipped: int = Field(ge=0, description="entries skipped for any fault")
    splits: dict[str, int] = Field(description="items by split; those without a split under ''")
    instance_maps: int | None = Field(
        None,
        ge=0,
        description="items with an instance map; the objects of the others are connected regions. Null in reports of "
        "earlier versions",
    )
    faults: tuple[FaultGroup, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was skipped."""
        return not self.skipped


class EntryFault(Exception):
    """A fault of one entry of a dataset; the entry is skipped and the others are read."""

    def __init__(self, kind: FaultKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: FaultKind = kind
        self.detail = detail


class Findings:
    """Collects findings while a dataset is read; the first ``max_per_kind`` of each kind are kept, the rest counted."""

    def __init__(self, max_per_kind: int = FIRST_OF_EACH) -> None:
        self._max_per_kind = max_per_kind
        self._counts: dict[FaultKind, int] = {}
        self._first: dict[FaultKind, list[Finding]] = {}
        self._items: dict[str, int] = {}
        self._skipped = 0
        self.instance_maps = 0

    def add(self, kind: FaultKind, file: str, detail: str) -> None:
        """Adds a finding; unless its kind is in :data:`WARNING_KINDS`, it counts as a skipped entry."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        first = self._first.setdefault(kind, [])
        if len(first) < self._max_per_kind:
            first.append(Finding(file=escape_control(file[:300]), detail=escape_control(detail[:500])))
        if kind not in WARNING_KINDS:
            self._skipped += 1

    def read(self, split: str | None, *, has_instances: bool = False) -> None:
        """Counts one item read."""
        self._items[split or ""] = self._items.get(split or "", 0) + 1
        self.instance_maps += has_instances

    def report(self, format: str) -> ReadReport:
        """The report on everything read so far."""
        groups = tuple(
            FaultGroup(
                kind=kind,
                meaning=FAULT_MEANINGS[kind],
                skipped=kind not in WARNING_KINDS,
                count=self._counts[kind],
                first=tuple(self._first[kind]),
            )
            for kind in FAULT_MEANINGS
            if kind in self._counts
        )
        return ReadReport(
            format=format,
            items=sum(self._items.values()),
            skipped=self._skipped,
            splits=dict(sorted(self._items.items())),
            instance_maps=self.instance_maps,
            faults=groups,
        )
