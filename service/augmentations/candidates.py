"""Candidates of a plan: the real items that one kind of mask source can draw from, and what each contributes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.augmentations.balance import BalanceTarget
from service.augmentations.choosing import ChosenSoFar, choose, scales
from service.augmentations.plan_values import BalanceBy
from service.augmentations.set_counts import SetCounts

_HORIZON = 512
"""Entries within which a missed share is made up for; fewer would repeat few masks."""
_PRIOR_JUDGED = 32
"""Judged images that weigh as much as the assumption that every class is accepted as often as the others."""
_PRIOR_MASKS = 8
"""Made masks that weigh as much as the assumption that they have the shares of their real ones; they vary less."""
_MAX_YIELD_RATIO = 4.0


@dataclass(frozen=True, eq=False)
class Candidates:
    """Items ``(n,)`` of the pool, and what each ``contributed`` ``(n, C)`` to the shares, by pixels or images.

    ``max_weight`` is the largest weight that an item may have.
    """

    items: np.ndarray
    contributed: np.ndarray
    by: BalanceBy
    max_weight: float

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def real(self) -> np.ndarray:
        """The shares ``(C,)`` of all candidates together."""
        return np.asarray(self.contributed.mean(axis=0))

    def choose(
        self, target: BalanceTarget, count: int, counts: SetCounts, rng: np.random.Generator, *, lacking: int
    ) -> np.ndarray:
        """``count`` places ``(count,)`` in ``items`` that move the shares of the accepted twins towards the target.

        Pending entries weigh as much as such entries were accepted so far. More is drawn of classes that are rejected
        more often than others, and less of classes of which framing and transforms made more than the real masks have.
        ``lacking`` is the number of twins that the set still lacks.
        """
        yields, uses = class_yields(counts, target), self._uses(counts)
        sums, whole = counts.accepted_totals.summed(self.by)
        pending, pending_whole = counts.pending_totals.summed(self.by)
        already = ChosenSoFar(
            features=sums + pending * yields * counts.rate,
            images=whole + pending_whole * counts.rate,
            uses=uses,
        )
        return choose(
            self.contributed,
            target.shares,
            count,
            already,
            rng,
            horizon=max(count, min(lacking, _HORIZON)),
            constrained=target.constrained,
            max_weight=self.max_weight,
            yields=yields * self._mask_yields(counts, uses, target),
        )

    def _mask_yields(self, counts: SetCounts, uses: np.ndarray, target: BalanceTarget) -> np.ndarray:
        """How much of each class ``(C,)`` the made masks have, relative to the real masks they were made from."""
        requested, pending = counts.requested_totals, counts.pending_totals
        if requested.images + pending.images < counts.tried:
            return np.ones(len(target.shares))  # some entries were counted without their masks
        made = requested.summed(self.by)[0] + pending.summed(self.by)[0]
        prior = _PRIOR_MASKS * scales(target.shares)
        ratio = (made + prior) / (uses @ self.contributed + prior)
        return np.asarray(np.clip(ratio, 1 / _MAX_YIELD_RATIO, _MAX_YIELD_RATIO))

    def _uses(self, counts: SetCounts) -> np.ndarray:
        """How often each of the items was used ``(n,)``."""
        uses = np.zeros(len(self))
        if counts.uses:
            used = np.fromiter(counts.uses, dtype=np.int64)
            times = np.fromiter(counts.uses.values(), dtype=np.float64)
            place = np.searchsorted(self.items, used)
            known = self.items[np.minimum(place, len(self) - 1)] == used
            uses[place[known]] = times[known]
        return uses


def class_yields(counts: SetCounts, target: BalanceTarget) -> np.ndarray:
    """How much of each class ``(C,)`` comes out of judged entries, relative to all classes; 1 before the first.

    Below 1 for a class whose twins are rejected more often than others, or that covers less of their masks than it
    should.
    """
    obtained, _ = counts.obtained_totals.summed(target.by)
    requested, _ = counts.requested_totals.summed(target.by)
    prior = _PRIOR_JUDGED * scales(target.shares)
    ratio = (obtained + prior) / (requested * counts.rate + prior)
    return np.asarray(np.clip(ratio, 1 / _MAX_YIELD_RATIO, _MAX_YIELD_RATIO))
