"""Small cards, classes and masks for plans, with objects of every kind."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from model_store.card import CardLimits, ClassEntry, ModelCard, PaletteRef, TextEncoderRef
from service.augmentations.transforms.framing import Framing
from service.datasets.classes import ClassList

WORDS = ("background", "roof", "road", "water")
CLASSES = ClassList.of(WORDS)


def card(
    *inputs: str, sets: tuple[tuple[str, ...], ...] = (), words: tuple[str, ...] = WORDS, size_px: int = 32
) -> ModelCard:
    """A card of ``toy@1.0.0``: requests may not name its first class; the others have their plural as alias."""
    entries = tuple(
        ClassEntry(
            index=index,
            name=word,
            colour=(40 * index, 255 - 40 * index, 90),
            queryable=index > 0,
            aliases=(f"{word}s",) if index else (),
        )
        for index, word in enumerate(words)
    )
    return ModelCard(
        name="toy",
        version="1.0.0",
        system="pathdiff",
        title="Toy",
        description="For tests.",
        inputs=inputs,
        input_sets=sets,
        classes=entries,
        palette=PaletteRef(kind="listed", count=len(entries)),
        generation_size_px=16,
        sizes_px=(16, 32),
        default_size_px=size_px,
        limits=CardLimits(steps_max=200, max_prompt_tokens=24),
        text_encoder=TextEncoderRef(name="toy", dims=8, max_tokens=24),
        intended_use="tests",
        limits_of_use="anything else",
        licence="Apache-2.0",
    )


MASKS = card("mask", "prompt", sets=(("mask",), ("prompt", "mask")))
"""A model that follows masks."""
DRAWS = card("prompt", "classes")
"""A model that draws its masks itself."""


def scene(seed: int, height: int = 40, width: int = 40) -> np.ndarray:
    """A mask ``(height, width)`` of background with some roofs, perhaps a road, and rarely water."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), dtype=np.uint8)
    if rng.random() < 0.6:
        top = int(rng.integers(height - 4))
        labels[top : top + int(rng.integers(2, 5))] = 2
    for _ in range(int(rng.integers(0, 5))):
        top, left = int(rng.integers(height - 8)), int(rng.integers(width - 8))
        labels[top : top + int(rng.integers(2, 8)), left : left + int(rng.integers(2, 8))] = 1
    if rng.random() < 0.25:
        rows, columns = np.ogrid[:height, :width]
        middle = rng.uniform(0.2, 0.8, 2) * (height, width)
        labels[(rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < (rng.uniform(0.1, 0.3) * height) ** 2] = 3
    return labels


def square_of(size_px: int) -> Framing:
    """Masks become squares of a side."""
    return Framing(size=(size_px, size_px))


def masks_of(labels: list[int], max_side: int = 24) -> st.SearchStrategy[np.ndarray]:
    """Masks of any shape with sides up to ``max_side``, with some of the labels."""
    return arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=max_side), elements=st.sampled_from(labels))
