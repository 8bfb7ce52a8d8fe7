"""A dataset small enough to be learned in seconds: dark images of one class, bright ones of another, and both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CLASSES = ("nothing", "night", "day")


def write_toy_dataset(folder: Path, pairs: int = 12, size: int = 32) -> Path:
    """Writes pairs of class 1, dark blue, and class 2, bright yellow.

    A third of the pairs is one, a third the other, a third split in two.
    """
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    stems = []
    for i in range(pairs):
        mask = np.full((size, size), 1 + i % 3 if i % 3 < 2 else 1, dtype=np.uint8)
        if i % 3 == 2:
            mask[:, size // 2 :] = 2
        image = np.where(mask[..., None] == 1, [10, 10, 90], [240, 220, 30]) + rng.integers(-8, 9, (size, size, 3))
        stems.append(f"pair{i:02d}")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{stems[-1]}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{stems[-1]}.png")
    about = {
        "name": "toy",
        "licence": "CC0",
        "classes": [{"index": i, "name": name, "queryable": i > 0} for i, name in enumerate(CLASSES)],
    }
    (folder / "dataset.json").write_text(json.dumps(about))
    (folder / "train.txt").write_text("\n".join(stems))
    return folder


def letters(texts: Sequence[str]) -> Tensor:
    """A stand-in for the sentence transformer: how often each letter occurs, ``(n, 384)`` of unit length."""
    counts = torch.zeros(len(texts), 384)
    for row, text in enumerate(texts):
        for letter in text.lower():
            counts[row, ord(letter) % 384] += 1
    return torch.nn.functional.normalize(counts, dim=1)
