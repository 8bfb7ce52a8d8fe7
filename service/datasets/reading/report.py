"""What reading a dataset found: counts, and the first files of each fault."""

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
]
KEPT: frozenset[FaultKind] = frozenset({"empty_mask", "overlap", "turned"})
"""Faults of items that are read all the same."""
MEANINGS: dict[FaultKind, str] = {
    "unreadable": "the file cannot be decoded; save it anew, or take it out",
    "damaged": "the file is not the one that was recorded when it was made; fetch it anew",
    "size_differs": "image and mask differ in size; make both anew from one source",
    "unknown_labels": "the mask holds values or colours that the class list lacks; list them, or draw them as 255 (ignore)",
    "missing_partner": "an image without a mask, or a mask without an image; both have the same name but for the suffix",
    "bad_annotation": "an annotation that breaks its format's rules; the item is left out, so that no object is lost silently",
    "duplicate": "the same image, byte for byte, came before; the first one is read",
    "empty_mask": "nothing but background, or nothing but pixels to ignore; read all the same",
    "turned": "EXIF data ask for the image to be shown turned, which some tools do and others do not; exports hold it as it is stored",
    "overlap": "objects that lie over one another; the smaller one is kept where they do",
}
FIRST_OF_EACH = 20


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Frozen):
    """A file, by its path in the dataset, and what is wrong with it."""

    file: str
    detail: str


class FaultGroup(_Frozen):
    """All findings of a kind: how many, and the first of them."""

    kind: FaultKind
    meaning: str
    left_out: bool = Field(description="whether these items were left out")
    count: int = Field(ge=1)
    first: tuple[Finding, ...]


class ReadReport(_Frozen):
    """The report of a dataset that was read to its end."""

    format: str
    items: int = Field(ge=0, description="items read")
    left_out: int = Field(ge=0, description="entries that were not, for any fault")
    splits: dict[str, int] = Field(description="items by split; those of no split under ''")
    faults: tuple[FaultGroup, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was left out."""
        return not self.left_out


class EntryFault(Exception):
    """What is wrong with one entry of a dataset; the others are read all the same."""

    def __init__(self, kind: FaultKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: FaultKind = kind
        self.detail = detail


class Findings:
    """Gathers findings while a dataset is read; of each kind the first ``most`` are kept, the rest counted."""

    def __init__(self, most: int = FIRST_OF_EACH) -> None:
        self._most = most
        self._counts: dict[FaultKind, int] = {}
        self._first: dict[FaultKind, list[Finding]] = {}
        self._items: dict[str, int] = {}
        self._left_out = 0

    def add(self, kind: FaultKind, file: str, detail: str) -> None:
        """Notes a finding, and unless its kind is :data:`KEPT`, an entry left out."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        first = self._first.setdefault(kind, [])
        if len(first) < self._most:
            first.append(Finding(file=escape_control(file[:300]), detail=escape_control(detail[:500])))
        if kind not in KEPT:
            self._left_out += 1

    def read(self, split: str | None) -> None:
        """Counts an item that was read."""
        self._items[split or ""] = self._items.get(split or "", 0) + 1

    def report(self, format: str) -> ReadReport:
        """Everything so far."""
        groups = tuple(
            FaultGroup(
                kind=kind,
                meaning=MEANINGS[kind],
                left_out=kind not in KEPT,
                count=self._counts[kind],
                first=tuple(self._first[kind]),
            )
            for kind in MEANINGS
            if kind in self._counts
        )
        return ReadReport(
            format=format,
            items=sum(self._items.values()),
            left_out=self._left_out,
            splits=dict(sorted(self._items.items())),
            faults=groups,
        )
