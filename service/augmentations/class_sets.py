"""Class sets: classes that occur together in real masks, for models that draw masks themselves.

No new sets are made up, since classes that never occur together may not be able to. A balance is met by how often each
set is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.augmentations.pool import FOUND_SHARE


@dataclass(frozen=True, eq=False)
class ClassSets:
    """The different class sets of a pool, the most frequent first.

    ``sets`` ``(S, C)`` bool, none empty; ``counts`` ``(S,)``: the number of masks with each; ``of_item`` ``(P,)``: each
    mask's set, -1 if it has no class that a request may name.
    """

    sets: np.ndarray
    counts: np.ndarray
    of_item: np.ndarray

    def classes_of(self, item: int) -> tuple[int, ...]:
        """The class indices of the set of mask ``item``, in order."""
        return tuple(int(index) for index in np.flatnonzero(self.sets[self.of_item[item]]))

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean ``(S, C)`` of what the masks of each set contribute ``(P, C)``: the expectation for its twins."""
        able = self.of_item >= 0
        sums = np.zeros((len(self.sets), values.shape[1]))
        np.add.at(sums, self.of_item[able], values[able])
        return np.asarray(sums / self.counts[:, None])


def class_sets(histograms: np.ndarray, askable: np.ndarray) -> ClassSets:
    """The class sets of masks with ``histograms`` ``(P, C)``: of ``askable`` ``(C,)`` classes with 0.5 % or more."""
    present = (histograms >= FOUND_SHARE) & askable
    able = present.any(axis=1)
    of_item = np.full(len(present), -1, dtype=np.int64)
    if not able.any():
        return ClassSets(np.zeros((0, len(askable)), dtype=bool), np.zeros(0, dtype=np.int64), of_item)
    sets, number, counts = np.unique(present[able], axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    of_item[able] = rank[number.reshape(-1)]
    return ClassSets(sets[order], counts[order], of_item)
