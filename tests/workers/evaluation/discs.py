"""Discs of 16 px under three lights, and a model that draws them as its mask and its text say, or is deaf to either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_store.card import ClassEntry, Defaults, ModelCard, PaletteRef, SamplerConvention
from model_store.diffusion.schedule import alphas_cumprod
from model_store.interface import Condition, ConditionRequest, GuidanceInputs
from model_store.masks.decode import Twin
from workers.data.training_set import TrainingSet

SIZE_PX = 16
LIGHTS = {
    "dark": ((25, 25, 30), (120, 120, 125)),
    "bright": ((225, 225, 225), (100, 100, 110)),
    "red": ((200, 110, 140), (90, 30, 80)),
}
"""Label -> colours of background and disc."""
TRAIN = {"dark": 30, "bright": 12, "red": 6}
TEST = {"dark": 8, "bright": 4, "red": 3}
_CODES = {None: 0.0, "dark": -0.4, "bright": 0.4, "red": 0.8}


def disc(rng: np.random.Generator) -> np.ndarray:
    """A mask ``(16, 16)`` with one disc."""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    (cy, cx), radius = rng.uniform(4, 12, 2), rng.uniform(2.5, 5)
    return ((y - cy) ** 2 + (x - cx) ** 2 <= radius**2).astype(np.uint8)


def draw_image(mask: np.ndarray, label: str, seed: int) -> np.ndarray:
    """The mask under a light, with some noise: ``(16, 16, 3)`` uint8."""
    noise = np.random.default_rng(seed).normal(0, 6, (*mask.shape, 3))
    return np.clip(np.array(LIGHTS[label])[mask] + noise, 0, 255).astype(np.uint8)


def write_discs(folder: Path, *, captions: bool = True) -> TrainingSet:
    """48 train and 15 test pairs; their captions have the light as ``modality``."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng, lines = np.random.default_rng(5), []
    for split, counts in (("train", TRAIN), ("test", TEST)):
        stems = []
        for index, label in enumerate(label for label, count in counts.items() for _ in range(count)):
            stem, mask = f"{split}{index:02d}", disc(rng)
            Image.fromarray(draw_image(mask, label, index)).save(folder / "images" / f"{stem}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
            text = f"A {label} image with a {'large' if mask.mean() > 0.15 else 'small'} disc."
            lines.append(json.dumps({"stem": stem, "text": text, "modality": label}))
            stems.append(stem)
        (folder / f"{split}.txt").write_text("\n".join(stems))
    if captions:
        (folder / "captions.jsonl").write_text("\n".join(lines))
    classes = [{"index": 0, "name": "background"}, {"index": 1, "name": "disc"}]
    (folder / "dataset.json").write_text(json.dumps({"name": "discs", "classes": classes, "has_up": False}))
    return TrainingSet.open(folder)


def disc_card(system: str = "pathdiff", **changes: object) -> ModelCard:
    """A card that takes text alone where PathDiff does."""
    text_alone = (("prompt",),) if system == "pathdiff" else ()
    values: dict[str, object] = {
        "name": "discs",
        "version": "1.0.0",
        "system": system,
        "title": "Discs",
        "description": "Draws discs.",
        "inputs": ("prompt", "mask"),
        "input_sets": (*text_alone, ("mask",), ("prompt", "mask")),
        "classes": (
            ClassEntry(index=0, name="background", colour=(0, 0, 0), queryable=False),
            ClassEntry(index=1, name="disc", colour=(255, 255, 255)),
        ),
        "palette": PaletteRef(kind="listed", count=2),
        "generation_size_px": SIZE_PX,
        "sizes_px": (SIZE_PX,),
        "default_size_px": SIZE_PX,
        "sampler": SamplerConvention(),
        "defaults": Defaults(steps=2),
        "intended_use": "tests",
        "limits_of_use": "tests",
        "licence": "CC0",
    }
    return ModelCard(**(values | changes))


class Follower:
    """A System whose network always predicts an x_0 that carries the condition; decoding draws it.

    ``blind`` to its mask it draws one and the same disc; ``deaf`` to its text it draws in the dark. ``rows`` counts the
    rows of every forward.
    """

    sample_shape = (2, SIZE_PX, SIZE_PX)
    condition_shapes: ClassVar = {"x0": sample_shape}
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, card: ModelCard | None = None, *, blind: bool = False, deaf: bool = False) -> None:
        self.card, self.blind, self.deaf = card or disc_card(), blind, deaf
        self.rows: list[int] = []

    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        label = next((label for label in LIGHTS if label in (request.prompt or "")), None)
        mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8) if request.mask is None else request.mask.indices
        x0 = torch.stack(
            [torch.from_numpy(mask.astype(np.float32)) - 0.5, torch.full((SIZE_PX, SIZE_PX), _CODES[label])]
        )
        condition = {"x0": x0}
        if label is None:
            return GuidanceInputs(condition, condition)
        return GuidanceInputs(condition, {"x0": torch.stack([x0[0], torch.zeros(SIZE_PX, SIZE_PX)])})

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.rows.append(len(x))
        abar = alphas_cumprod(self.card.sampler)[t].view(-1, 1, 1, 1)
        return (x - abar.sqrt() * condition["x0"]) / (1 - abar).sqrt()

    def decode(self, x0: Tensor, size_px: int) -> list[Twin]:
        fixed = disc(np.random.default_rng(99))
        made = []
        for index, each in enumerate(x0):
            code = float(each[1].mean())
            light = min(_CODES, key=lambda label: abs(_CODES[label] - code))
            mask = fixed if self.blind else (each[0] > 0).numpy().astype(np.uint8)
            made.append(Twin(draw_image(mask, "dark" if self.deaf else light or "dark", index)))
        return made
