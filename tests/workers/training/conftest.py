"""A small made-up dataset: bright discs (class 1) and dark squares (class 2) on a plain background (class 0)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from tests.workers.prepared import prepared_copies
from workers.data.training_set import TrainingSet

__all__ = ["prepared_copies"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Runs torch on one thread: networks this small are slower on several."""
    torch.set_num_threads(1)


@pytest.fixture
def fresh_accelerator() -> None:
    """Resets accelerate's process-wide state, which keeps the precision of an earlier test."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """24 train and 6 test pairs of 64 px, whose scenes have no up."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:64, :64]
    for index in range(30):
        mask = np.zeros((64, 64), dtype=np.uint8)
        cy, cx, r = [*rng.integers(12, 52, 2).tolist(), int(rng.integers(6, 12))]
        mask[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = 1
        top, left = rng.integers(0, 44, 2)
        mask[top : top + 16, left : left + 16] = 2
        colours = np.array([[90, 120, 90], [230, 220, 200], [20, 30, 60]])
        image = np.clip(colours[mask] + rng.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"s{index:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"s{index:02d}.png")
    (folder / "train.txt").write_text("\n".join(f"s{i:02d}" for i in range(24)))
    (folder / "test.txt").write_text("\n".join(f"s{i:02d}" for i in range(24, 30)))
    classes = [{"index": i, "name": name} for i, name in enumerate(("Ground", "Disc", "Square"))]
    (folder / "dataset.json").write_text(
        json.dumps({"name": "shapes", "classes": classes, "has_up": False, "licence": "CC0"})
    )
    return TrainingSet.open(folder)
