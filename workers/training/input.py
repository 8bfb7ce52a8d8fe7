"""What a run draws: rows of its training set in a shuffled order, or tiles; and the pairs of each iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from workers.data.tiles import PairDraw, TilePlan, class_shares
from workers.data.training_set import TrainingSet
from workers.training.loop import EndlessRows

Rows = EndlessRows | TilePlan
SAMPLED_TILES = 512
"""Tiles whose class sets stand for all of them, where the sets of the training data are asked for."""


def training_rows(
    data: TrainingSet, stems: Sequence[str], seed: int, repeats: Callable[[], np.ndarray | None] = lambda: None
) -> Rows:
    """The endless sequence of a run: tiles, or rows of ``stems``, which ``repeats`` may draw more often.

    Raises :class:`workers.data.listings.DatasetInvalid` for classes to be seen that are not there.
    """
    fit = data.fit
    if fit.tile_px is None:
        return EndlessRows(len(stems), seed, repeats())
    rows = data.rows(stems)
    sizes, counts = data.index.sizes[rows], data.index.counts[rows]
    wanted = np.zeros(counts.shape[1], dtype=bool)
    wanted[[entry.index for entry in data.classes if entry.queryable]] = True
    shares = class_shares(fit, data.dataset.classes.names, wanted, counts)
    return TilePlan(sizes, counts, shares, fit.tile_px, seed)


def as_draws(rows: Sequence[int | PairDraw], places: np.ndarray | None = None) -> list[PairDraw]:
    """Rows as draws; ``places`` are the positions of rows among the pairs, if some were left out."""
    return [row if isinstance(row, PairDraw) else PairDraw(row if places is None else int(places[row])) for row in rows]


def drawn_rows(rows: Sequence[int | PairDraw]) -> list[int]:
    """The rows of draws."""
    return [row.row if isinstance(row, PairDraw) else row for row in rows]
