"""What a plan draws from: the real items that can be used for a source of masks, and what each of them contributes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.augmentations.balance import BalanceTarget
from service.augmentations.choosing import Sums, choose, scales
from service.augmentations.request import BalanceBy
from service.augmentations.tally import SetTally

_HORIZON = 512
"""Entries within which what was missed is made up for; sooner would repeat few masks."""
_SURE = 32
"""Judged images that weigh as much as the assumption that every class is kept as often as others."""
_SURE_OF_MASKS = 8
"""Made masks that weigh as much as the assumption that they have the shares of their real ones: they vary less than
verdicts."""
_MAX_LOST = 4.0


@dataclass(frozen=True, eq=False)
class Candidates:
    """``items`` ``(n,)`` of the pool, and what each ``contributed`` ``(n, C)`` to the shares, by pixels or images.

    ``most`` is the largest weight that an item may have.
    """

    items: np.ndarray
    contributed: np.ndarray
    by: BalanceBy
    most: float

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def real(self) -> np.ndarray:
        """The shares ``(C,)`` of all of them together."""
        return self.contributed.mean(axis=0)

    def choose(
        self, target: BalanceTarget, count: int, tally: SetTally, rng: np.random.Generator, *, lacking: int
    ) -> np.ndarray:
        """``count`` places ``(count,)`` in ``items``, so that with the tally's accepted twins the shares go to the
        target.

        Entries that are still being made count as far as such ones were accepted so far. Of classes that were refused
        more often than others more is drawn, and less of those of which framing and transforms have made more than the
        real masks have. ``lacking`` is how many twins the set still lacks.
        """
        lost, uses = kept_of_classes(tally, target), self._uses(tally)
        (sums, whole), (pending, pending_whole) = tally.kept.summed(self.by), tally.expected.summed(self.by)
        already = Sums(
            features=sums + pending * lost * tally.rate,
            images=whole + pending_whole * tally.rate,
            uses=uses,
        )
        horizon = max(count, min(lacking, _HORIZON))
        kept = lost * self._grown(tally, uses, target)
        return choose(
            self.contributed,
            target.shares,
            count,
            already,
            rng,
            horizon=horizon,
            weighed=target.weighed,
            most=self.most,
            kept=kept,
        )

    def _grown(self, tally: SetTally, uses: np.ndarray, target: BalanceTarget) -> np.ndarray:
        """How much of each class ``(C,)`` the masks handed out have, relative to the real masks that they were made
        of."""
        if tally.asked.images + tally.expected.images < tally.tried:
            return np.ones(len(target.shares))  # of some it is not known
        asked, expected = tally.asked.summed(self.by)[0], tally.expected.summed(self.by)[0]
        prior = _SURE_OF_MASKS * scales(target.shares)
        return np.clip((asked + expected + prior) / (uses @ self.contributed + prior), 1 / _MAX_LOST, _MAX_LOST)

    def _uses(self, tally: SetTally) -> np.ndarray:
        """How often each of the items was handed out ``(n,)``."""
        uses = np.zeros(len(self))
        if tally.uses:
            used = np.fromiter(tally.uses, dtype=np.int64)
            times = np.fromiter(tally.uses.values(), dtype=np.float64)
            place = np.searchsorted(self.items, used)
            known = self.items[np.minimum(place, len(self) - 1)] == used
            uses[place[known]] = times[known]
        return uses


def kept_of_classes(tally: SetTally, target: BalanceTarget) -> np.ndarray:
    """How much of each class is kept ``(C,)``, relative to how much of all is: 1 where nothing is known.

    Below 1 for a class whose twins are refused more often than others, or that comes out smaller in them than it was
    asked for.
    """
    came, _ = tally.came.summed(target.by)
    asked, _ = tally.asked.summed(target.by)
    prior = _SURE * scales(target.shares)
    return np.clip((came + prior) / (asked * tally.rate + prior), 1 / _MAX_LOST, _MAX_LOST)
