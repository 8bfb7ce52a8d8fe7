"""What a made mask holds: its classes with their shares, and how sure the decoding was of its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_store.card import IGNORE_INDEX, Card
from model_store.decode import Twin
from service.jobs.spec import ItemClass

FOUND_SHARE = 0.005
"""A class counts as found from this share of the mask's pixels on; less is noise."""


@dataclass(frozen=True)
class Scores:
    """``confident_share``: pixels of the mask that are not `ignore`; ``mean_confidence``: over all pixels; both 0..1."""

    classes: tuple[ItemClass, ...]
    confident_share: float
    mean_confidence: float


def score(twin: Twin, card: Card) -> Scores:
    """Scores a twin; classes come largest share first. Shares are of all pixels, also the `ignore` ones."""
    counts = np.bincount(twin.mask.ravel(), minlength=256)
    shares = counts / twin.mask.size
    found = [
        ItemClass(name=entry.name, index=entry.index, share=round(float(shares[entry.index]), 6))
        for entry in card.classes
        if shares[entry.index] >= FOUND_SHARE
    ]
    found.sort(key=lambda entry: (-entry.share, entry.index))
    return Scores(
        classes=tuple(found),
        confident_share=round(float(1.0 - shares[IGNORE_INDEX]), 6),
        mean_confidence=round(float(twin.confidence.mean(dtype=np.float64)), 6),
    )
