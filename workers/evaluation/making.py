"""Making the twins that are measured, with the model's own system and the plain sampling loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from model_store.ddim import DDIM
from model_store.sampling import sample
from model_store.system import System
from workers.evaluation.requests import Query, Way
from workers.training.data import majority_resize


@dataclass(frozen=True)
class SamplingSettings:
    """How twins are made; the card's defaults unless the command says otherwise."""

    steps: int
    guidance_scale: float
    eta: float


@dataclass(frozen=True)
class Twins:
    """Many twins of one size: images ``(N, s, s, 3)`` uint8, masks ``(N, s, s)`` uint8 (255 = ignore)."""

    images: np.ndarray
    masks: np.ndarray

    @property
    def size_px(self) -> int:
        """The side of the pictures."""
        return self.masks.shape[1]

    def reduced(self, size_px: int) -> Twins:
        """The same at a smaller size, as real pairs are reduced: images area-averaged, masks by majority."""
        if size_px == self.size_px:
            return self
        images = [np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BOX)) for image in self.images]
        return Twins(np.stack(images), np.stack([majority_resize(mask, size_px) for mask in self.masks]))


def make_twins(
    system: System,
    queries: Sequence[Query],
    way: Way,
    settings: SamplingSettings,
    sizes_px: Sequence[int],
    *,
    batch_size: int = 16,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[int, Twins]:
    """One twin for each query, decoded at each of ``sizes_px``. ``on_step`` is told (steps done, all steps), over all batches."""
    ddim = DDIM(system.card.sampler, system.device)
    parts: dict[int, list[Twins]] = {size: [] for size in sizes_px}
    total = settings.steps * -(-len(queries) // batch_size)
    for number, start in enumerate(range(0, len(queries), batch_size)):

        def told(done: int, before: int = number * settings.steps) -> None:
            if on_step is not None:
                on_step(before + done, total)

        batch = queries[start : start + batch_size]
        x0 = sample(
            system.forward,
            ddim,
            system.condition([query.condition(way) for query in batch]),
            system.null_condition(len(batch)),
            [query.seed for query in batch],
            system.sample_shape,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            eta=settings.eta,
            on_step=told,
        )
        for size in sizes_px:
            made = system.decode(x0, size)
            parts[size].append(Twins(np.stack([twin.image for twin in made]), np.stack([twin.mask for twin in made])))
    return {
        size: Twins(np.concatenate([p.images for p in found]), np.concatenate([p.masks for p in found])) for size, found in parts.items()
    }


def images_as_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 ``(N, s, s, 3)`` -> float32 ``(N, 3, s, s)`` in [-1, 1]."""
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1.0).permute(0, 3, 1, 2)
