"""A small made-up dataset, and a model that paints what is requested."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model_store.card import ClassEntry, ModelCard, PaletteRef, SamplerConvention
from model_store.interface import Condition, ConditionRequest, GuidanceInputs
from model_store.masks.decode import Twin
from model_store.masks.palette import fibonacci_rgb
from tests.workers.evaluation.discs import write_discs
from tests.workers.prepared import prepared_copies
from workers.data.training_set import TrainingSet

NAMES = ("Unlabeled", "Grass", "Sand", "Sea")
LOOKS = np.array([[128, 128, 128], [60, 140, 60], [220, 200, 150], [20, 40, 120]])

__all__ = ["prepared_copies"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def draw_image(mask: np.ndarray, seed: int) -> np.ndarray:
    """An image in which every class has its own colour, and some noise."""
    noise = np.random.default_rng(seed).normal(0, 8, (*mask.shape, 3))
    return np.clip(LOOKS[mask] + noise, 0, 255).astype(np.uint8)


def bands(classes: Sequence[int], size: int) -> np.ndarray:
    """A mask in which the classes stand in upright bands of equal width."""
    return np.repeat(np.array(classes)[np.arange(size) * len(classes) // size][None], size, axis=0).astype(np.uint8)


@pytest.fixture(scope="session")
def coast(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """40 train and 10 test pairs of 32 px with one to three of the queryable classes."""
    folder = tmp_path_factory.mktemp("coast")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    rng = np.random.default_rng(3)
    for index in range(50):
        mask = bands(rng.permutation([1, 2, 3])[: rng.integers(1, 4)], 32)
        mask[:2] = 0
        Image.fromarray(draw_image(mask, index)).save(folder / "images" / f"c{index:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"c{index:02d}.png")
    (folder / "train.txt").write_text("\n".join(f"c{i:02d}" for i in range(40)))
    (folder / "test.txt").write_text("\n".join(f"c{i:02d}" for i in range(40, 50)))
    classes = [{"index": i, "name": name} for i, name in enumerate(NAMES)]
    (folder / "dataset.json").write_text(json.dumps({"name": "coast", "classes": classes, "has_up": True}))
    return TrainingSet.open(folder)


@pytest.fixture(scope="session")
def coast_card() -> ModelCard:
    colours = fibonacci_rgb(4).tolist()
    entries = [
        ClassEntry(index=i, name=n, colour=tuple(c), queryable=i > 0)
        for i, (n, c) in enumerate(zip(NAMES, colours, strict=True))
    ]
    return ModelCard(
        name="painter",
        version="1.0.0",
        system="cosimgen",
        title="Painter",
        description="Paints bands.",
        inputs=("prompt", "classes"),
        classes=entries,
        palette=PaletteRef(count=4),
        generation_size_px=16,
        sizes_px=(16, 32),
        default_size_px=32,
        sampler=SamplerConvention(),
        intended_use="tests",
        limits_of_use="tests",
        licence="CC0",
    )


class Painter:
    """A System whose network always predicts a first row that carries the condition; decoding paints it.

    ``liar``: paints an image of other classes than the mask names. ``forgetful``: leaves the last class out.
    """

    sample_shape = (6, 16, 16)
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, card: ModelCard, *, liar: bool = False, forgetful: bool = False) -> None:
        self.condition_shapes = {"class": (4,)}
        self.card, self.liar, self.forgetful = card, liar, forgetful

    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        words = request.classes or [name for name in NAMES if name in (request.prompt or "")]
        found = torch.tensor([1.0 if name in words else -1.0 for name in NAMES])
        return GuidanceInputs({"class": found}, {"class": torch.full((4,), -1.0)})

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        from model_store.diffusion.schedule import alphas_cumprod

        abar = alphas_cumprod(self.card.sampler)[t].view(-1, 1, 1, 1)
        x0 = torch.zeros_like(x)
        x0[:, 0, 0, :4] = condition["class"]
        return (x - abar.sqrt() * x0) / (1 - abar).sqrt()

    def decode(self, x0: Tensor, size_px: int) -> list[Twin]:
        twins = []
        for index, row in enumerate(x0[:, 0, 0, :4]):
            classes = [k for k in range(4) if row[k] > 0]
            if self.forgetful and len(classes) > 1:
                classes = classes[:-1]
            mask = bands(classes, size_px)
            seen = np.where(mask == 1, 3, np.where(mask == 3, 1, mask)) if self.liar else mask
            mask = mask.copy()
            mask[-1, :] = 255
            twins.append(Twin(draw_image(seen, index), mask, np.ones_like(mask, dtype=np.float32)))
        return twins


@pytest.fixture
def painter(coast_card: ModelCard) -> type:
    return lambda **kinds: Painter(coast_card, **kinds)


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """48 train and 15 test pairs of 16 px, with captions and an unbalanced label."""
    return write_discs(tmp_path_factory.mktemp("discs") / "data")
