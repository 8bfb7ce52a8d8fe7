"""What has been made of a set so far: the little that the next entries of a plan depend on, besides the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.augmentations.pool import FOUND_SHARE
from service.augmentations.request import BalanceBy


@dataclass(eq=False)
class Counts:
    """Some masks together: how many, the sum ``(C,)`` of their shares of pixels, and in how many each class covers at
    least 0.5 %."""

    pixels: np.ndarray
    found: np.ndarray
    images: int = 0

    @classmethod
    def empty(cls, classes: int) -> Counts:
        """No mask yet."""
        return cls(np.zeros(classes), np.zeros(classes, dtype=np.int64))

    def add(self, shares: np.ndarray) -> None:
        """Counts a mask by the shares ``(C,)`` of its pixels."""
        self.images += 1
        self.pixels = self.pixels + shares
        self.found = self.found + (shares >= FOUND_SHARE)

    def summed(self, by: BalanceBy) -> tuple[np.ndarray, float]:
        """What is shared out among classes ``(C,)``, and what all of it comes to: pixels that have a class, or
        images."""
        return (
            (self.pixels, float(self.pixels.sum()))
            if by == "pixels"
            else (self.found.astype(np.float64), float(self.images))
        )

    def shares(self, by: BalanceBy) -> np.ndarray:
        """Each class's share ``(C,)`` 0..1; 0 without any mask."""
        sums, whole = self.summed(by)
        return sums / whole if whole > 0 else np.zeros(len(sums))

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "images": self.images,
            "pixels": [round(float(one), 9) for one in self.pixels],
            "found": [int(one) for one in self.found],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Counts:
        """What :meth:`to_json` gave."""
        return cls(
            np.array(value["pixels"], dtype=np.float64), np.array(value["found"], dtype=np.int64), value["images"]
        )


@dataclass(eq=False)
class SetTally:
    """Entries of a set that were handed out: ``tried`` of them, so the next has that index, and ``uses`` of each source
    item.

    ``kept`` are the twins that count. An entry whose end is known is given to :meth:`judge`, one that is still being
    made to :meth:`expect`, if anything is to be assumed of it. What was ``asked`` of judged entries beside what came of
    them (``came``) tells which classes are refused more often than others. :meth:`try_item` and :meth:`accept` count
    without telling that.
    """

    kept: Counts
    asked: Counts
    came: Counts
    expected: Counts
    tried: int = 0
    uses: dict[int, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, classes: int) -> SetTally:
        """Nothing handed out yet, for C ``classes`` of the model."""
        return cls(*(Counts.empty(classes) for _ in range(4)))

    @property
    def accepted(self) -> int:
        """How many twins count."""
        return self.kept.images

    @property
    def rate(self) -> float:
        """The share of judged entries that were accepted, 0..1; 1 before the first."""
        return self.came.images / self.asked.images if self.asked.images else 1.0

    def judge(self, item: int, shares: np.ndarray, made: np.ndarray | None) -> None:
        """Notes the end of an entry of source item ``item`` with ``shares`` ``(C,)``: those of the accepted twin's
        mask, or None."""
        self.try_item(item)
        self.asked.add(shares)
        if made is not None:
            self.accept(made)
            self.came.add(made)

    def expect(self, item: int, shares: np.ndarray) -> None:
        """Notes an entry that is still being made: it counts as far as such ones were accepted so far."""
        self.try_item(item)
        self.expected.add(shares)

    def try_item(self, item: int) -> None:
        """Notes that an entry of source item ``item`` was handed out."""
        self.tried += 1
        self.uses[item] = self.uses.get(item, 0) + 1

    def accept(self, shares: np.ndarray) -> None:
        """Notes an accepted twin by the shares ``(C,)`` of its mask's pixels."""
        self.kept.add(shares)

    def shares(self, by: BalanceBy) -> np.ndarray:
        """What the accepted twins come to, ``(C,)`` 0..1."""
        return self.kept.shares(by)

    def copy(self) -> SetTally:
        """One that can be counted on without changing this one."""
        counts = (
            Counts(one.pixels, one.found, one.images) for one in (self.kept, self.asked, self.came, self.expected)
        )
        return SetTally(*counts, self.tried, dict(self.uses))

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values, for a tally of which nothing is only expected."""
        return {
            "tried": self.tried,
            "accepted": self.accepted,
            "kept": self.kept.to_json(),
            "asked": self.asked.to_json(),
            "came": self.came.to_json(),
            "uses": [[item, times] for item, times in sorted(self.uses.items())],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SetTally:
        """What :meth:`to_json` gave."""
        counts = [Counts.from_json(value[name]) for name in ("kept", "asked", "came")]
        return cls(
            *counts,
            Counts.empty(len(counts[0].pixels)),
            value["tried"],
            {int(item): int(times) for item, times in value["uses"]},
        )
