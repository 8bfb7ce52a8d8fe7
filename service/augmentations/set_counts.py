"""Counts of an augmentation set so far: besides the plan, all that its next entries depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.augmentations.plan_values import BalanceBy
from service.augmentations.pool import FOUND_SHARE


@dataclass(eq=False)
class ClassTotals:
    """Totals over some masks.

    ``images``: their number. ``pixels`` ``(C,)``: the sum of their shares of pixels. ``found`` ``(C,)``: in how many of
    them each class covers at least 0.5 %.
    """

    pixels: np.ndarray
    found: np.ndarray
    images: int = 0

    @classmethod
    def empty(cls, classes: int) -> ClassTotals:
        """Totals over no mask."""
        return cls(np.zeros(classes), np.zeros(classes, dtype=np.int64))

    def add(self, shares: np.ndarray) -> None:
        """Adds a mask by the shares ``(C,)`` of its pixels."""
        self.images += 1
        self.pixels = self.pixels + shares
        self.found = self.found + (shares >= FOUND_SHARE)

    def copy(self) -> ClassTotals:
        """A copy that can be added to without changing this one."""
        return ClassTotals(self.pixels, self.found, self.images)

    def summed(self, by: BalanceBy) -> tuple[np.ndarray, float]:
        """The sum of each class ``(C,)``, and the whole that it is a share of: labelled pixels, or images."""
        if by == "pixels":
            return self.pixels, float(self.pixels.sum())
        return self.found.astype(np.float64), float(self.images)

    def shares(self, by: BalanceBy) -> np.ndarray:
        """Each class's share ``(C,)`` 0..1; 0 without any mask."""
        sums, whole = self.summed(by)
        return sums / whole if whole > 0 else np.zeros(len(sums))

    def to_json(self) -> dict[str, Any]:
        """The totals as JSON-able values."""
        return {
            "images": self.images,
            "pixels": [round(float(one), 9) for one in self.pixels],
            "found": [int(one) for one in self.found],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ClassTotals:
        """The inverse of :meth:`to_json`."""
        return cls(
            np.array(value["pixels"], dtype=np.float64), np.array(value["found"], dtype=np.int64), value["images"]
        )


@dataclass(eq=False)
class SetCounts:
    """Counts of a set's entries so far.

    ``tried``: entries that have been handed out, so the index of the next one. ``uses``: how often each source item was
    used. ``accepted_totals``: the accepted twins. An entry whose twin has been judged is counted by
    :meth:`add_judged`, one that is still being made by :meth:`add_pending`. ``requested_totals`` are the masks that
    judged entries should have had, ``obtained_totals`` those that their accepted twins have: together they show which
    classes are rejected more often than others. :meth:`add_tried` and :meth:`add_accepted` count without that.
    """

    accepted_totals: ClassTotals
    requested_totals: ClassTotals
    obtained_totals: ClassTotals
    pending_totals: ClassTotals
    tried: int = 0
    uses: dict[int, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, classes: int) -> SetCounts:
        """Counts before the first entry, for a model of C ``classes``."""
        empty = ClassTotals.empty
        return cls(empty(classes), empty(classes), empty(classes), empty(classes))

    @property
    def accepted(self) -> int:
        """Number of accepted twins."""
        return self.accepted_totals.images

    @property
    def rate(self) -> float:
        """The share of judged entries that were accepted, 0..1; 1 before the first."""
        judged = self.requested_totals.images
        return self.obtained_totals.images / judged if judged else 1.0

    def add_judged(self, item: int, shares: np.ndarray, obtained: np.ndarray | None) -> None:
        """Counts a judged entry of source item ``item``, whose mask should have had ``shares`` ``(C,)``.

        ``obtained`` are the shares ``(C,)`` of the accepted twin's mask; None for a rejected one.
        """
        self.add_tried(item)
        self.requested_totals.add(shares)
        if obtained is not None:
            self.add_accepted(obtained)
            self.obtained_totals.add(obtained)

    def add_pending(self, item: int, shares: np.ndarray) -> None:
        """Counts an entry that is still being made; it weighs as much as such entries were accepted so far."""
        self.add_tried(item)
        self.pending_totals.add(shares)

    def add_tried(self, item: int) -> None:
        """Counts an entry of source item ``item`` that was handed out."""
        self.tried += 1
        self.uses[item] = self.uses.get(item, 0) + 1

    def add_accepted(self, shares: np.ndarray) -> None:
        """Counts an accepted twin by the shares ``(C,)`` of its mask's pixels."""
        self.accepted_totals.add(shares)

    def shares(self, by: BalanceBy) -> np.ndarray:
        """The shares ``(C,)`` 0..1 of the accepted twins."""
        return self.accepted_totals.shares(by)

    def copy(self) -> SetCounts:
        """A copy that can be counted on without changing this one."""
        return SetCounts(
            self.accepted_totals.copy(),
            self.requested_totals.copy(),
            self.obtained_totals.copy(),
            self.pending_totals.copy(),
            self.tried,
            dict(self.uses),
        )

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON-able values, without pending entries."""
        return {
            "tried": self.tried,
            "accepted": self.accepted,
            "accepted_totals": self.accepted_totals.to_json(),
            "requested_totals": self.requested_totals.to_json(),
            "obtained_totals": self.obtained_totals.to_json(),
            "uses": [[item, times] for item, times in sorted(self.uses.items())],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SetCounts:
        """The inverse of :meth:`to_json`."""
        accepted = ClassTotals.from_json(value["accepted_totals"])
        return cls(
            accepted,
            ClassTotals.from_json(value["requested_totals"]),
            ClassTotals.from_json(value["obtained_totals"]),
            ClassTotals.empty(len(accepted.pixels)),
            value["tried"],
            {int(item): int(times) for item, times in value["uses"]},
        )
