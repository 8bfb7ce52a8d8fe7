"""Captions of images, and their tokens as training draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from model_store.latent.text import TokenEncoder
from workers.data.listings import DatasetInvalid
from workers.data.pixels import repeat_factors
from workers.data.training_set import TrainingSet

MAX_CACHED_TEXTS = 8192
"""How many texts stay encoded in memory; the others are encoded again when they are drawn."""


def read_texts(data: TrainingSet, stems: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The texts of each item.

    Raises :class:`DatasetInvalid` naming the first without a text: a missing caption must not be read as the empty one,
    which is the null text.
    """
    texts = tuple(tuple(str(line["text"]) for line in lines) for lines in data.texts(stems))
    missing = [stem for stem, own in zip(stems, texts, strict=True) if not own]
    if missing:
        others = f" (and {len(missing) - 1} more of {len(stems)} images)" if len(missing) > 1 else ""
        raise DatasetInvalid(
            f"{data.source} has no text for {missing[0]!r}{others}; in a folder of images, add to captions.jsonl "
            f'{{"stem": "{missing[0]}", "text": "..."}}'
        )
    return texts


def common_texts(texts: Sequence[Sequence[str]], max_texts: int = 12) -> tuple[str, ...]:
    """Up to ``max_texts`` different texts, those of most images first."""
    counts = Counter(text for row in texts for text in row)
    return tuple(sorted(counts, key=lambda text: (-counts[text], text))[:max_texts])


def caption_repeats(texts: Sequence[Sequence[str]], below: float) -> np.ndarray | None:
    """The number of times to draw each row, by how many rows share its first caption; None if ``below`` is 0.

    See :func:`workers.data.pixels.repeat_factors`.
    """
    if not below:
        return None
    _, same = np.unique([row[0] for row in texts], return_inverse=True)
    return repeat_factors(same.reshape(-1, 1), below)


def repeats_deviation(below: float) -> list[str]:
    """The same as sentences for a card; none if ``below`` is 0."""
    return (
        [f"Images whose caption is rarer than {below:.0%} are drawn sqrt({below:g} / its share) times as often."]
        if below
        else []
    )


class CaptionBank:
    """The captions of a dataset's rows, as tokens."""

    def __init__(self, texts: Sequence[Sequence[str]], tokens: TokenEncoder) -> None:
        self.texts = tuple(map(tuple, texts))
        self.ref = tokens.ref
        self.encode = lru_cache(MAX_CACHED_TEXTS)(tokens.encode)

    def draw(self, rows: Sequence[int], with_text: Tensor, generator: torch.Generator) -> Tensor:
        """One caption of each row, or the null text "" if ``with_text`` ``(B,)`` is false: ``(B, L, d)`` float32."""
        which = torch.rand(len(rows), generator=generator).tolist()
        drawn = []
        for row, share, captioned in zip(rows, which, with_text.tolist(), strict=True):
            texts = self.texts[row]
            drawn.append(self.encode(texts[int(share * len(texts))] if captioned else ""))
        return torch.stack(drawn)
