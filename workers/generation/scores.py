"""Scores of a twin's mask: its classes with their shares, and the decoder's confidence in its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_store.card import IGNORE_INDEX, ModelCard
from service.augmentations.pool import FOUND_SHARE
from service.jobs.spec import ItemClass


@dataclass(frozen=True)
class Scores:
    """``confident_share``: pixels of the mask that are not `ignore`; ``mean_confidence``: over all pixels; both 0..1.

    Both are None for a mask that was given, and for no mask, as no mask was decoded.
    """

    classes: tuple[ItemClass, ...] = ()
    confident_share: float | None = None
    mean_confidence: float | None = None


def score(mask: np.ndarray | None, confidence: np.ndarray | None, card: ModelCard) -> Scores:
    """Scores a mask ``(H, W)`` uint8. Classes come largest share first; shares are of all pixels, with `ignore`."""
    if mask is None:
        return Scores()
    counts = np.bincount(mask.ravel(), minlength=256)
    shares = counts / mask.size
    found = [
        ItemClass(name=entry.name, index=entry.index, share=round(float(shares[entry.index]), 6))
        for entry in card.classes
        if shares[entry.index] >= FOUND_SHARE
    ]
    found.sort(key=lambda entry: (-entry.share, entry.index))
    if confidence is None:
        return Scores(tuple(found))
    return Scores(
        classes=tuple(found),
        confident_share=round(float(1.0 - shares[IGNORE_INDEX]), 6),
        mean_confidence=round(float(confidence.mean(dtype=np.float64)), 6),
    )
