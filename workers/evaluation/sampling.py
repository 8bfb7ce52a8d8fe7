"""Sampling for a measurement, with the model's own system and the plain sampling loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_store.card import GuidanceTarget, ModelCard
from model_store.diffusion.ddim import DDIM
from model_store.diffusion.sampling import sample
from model_store.interface import (
    ConditionRequest,
    GuidanceInputs,
    System,
    stack_conditions,
)
from model_store.masks.resize import majority_resize
from workers.evaluation.cosimgen_requests import Query, Way

OnStep = Callable[[int, int], None]
"""Called with (steps done, all steps), over all batches."""


@dataclass(frozen=True)
class SamplingSettings:
    """The sampling parameters; the card's defaults unless the command says otherwise."""

    steps: int
    guidance_scale: float
    eta: float
    guidance_target: GuidanceTarget | None = None


def check_within(card: ModelCard, what: str, value: float | None, minimum: float, maximum: float) -> None:
    """Raises ValueError if a given value is beyond the card's limits."""
    if value is not None and not minimum <= value <= maximum:
        raise ValueError(f"{card.id} takes {what} from {minimum:g} to {maximum:g}, not {value:g}")


def sampling_for(
    card: ModelCard,
    *,
    steps: int | None,
    guidance_scale: float | None,
    eta: float | None,
    guidance_target: GuidanceTarget | None = None,
) -> SamplingSettings:
    """The card's defaults, overridden by the given values.

    Raises ValueError for a guidance target that the card does not list, and for steps or a guidance scale beyond its
    limits.
    """
    chosen = card.defaults
    if guidance_target is not None and guidance_target not in card.guidance_targets:
        listed = ", ".join(card.guidance_targets) or "none, so leave it out"
        raise ValueError(f"{card.id} cannot guide towards {guidance_target!r}; its guidance targets: {listed}")
    limits = card.limits
    check_within(card, "steps", steps, limits.steps_min, limits.steps_max)
    check_within(card, "guidance", guidance_scale, limits.guidance_min, limits.guidance_max)
    return SamplingSettings(
        steps=chosen.steps if steps is None else steps,
        guidance_scale=chosen.guidance_scale if guidance_scale is None else guidance_scale,
        eta=chosen.eta if eta is None else eta,
        guidance_target=guidance_target or card.guidance_target,
    )


@dataclass(frozen=True)
class Twins:
    """Many twins of one size: images ``(N, s, s, 3)`` uint8, masks ``(N, s, s)`` uint8 (255 = ignore)."""

    images: np.ndarray
    masks: np.ndarray

    @property
    def size_px(self) -> int:
        """The side of the images."""
        return int(self.masks.shape[1])

    def reduced(self, size_px: int) -> Twins:
        """The same at a smaller size, as real pairs are reduced: images area-averaged, masks by majority."""
        if size_px == self.size_px:
            return self
        return Twins(
            reduce_images(self.images, size_px), np.stack([majority_resize(mask, size_px) for mask in self.masks])
        )


def reduce_images(images: np.ndarray, size_px: int) -> np.ndarray:
    """uint8 ``(N, s, s, 3)`` -> ``(N, size_px, size_px, 3)``, area-averaged."""
    if images.shape[1] == size_px:
        return images
    return np.stack(
        [np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BOX)) for image in images]
    )


def sample_batches(
    system: System,
    requests: Sequence[ConditionRequest],
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    batch_size: int = 16,
    on_step: OnStep | None = None,
) -> Iterator[Tensor]:
    """x_0 of the requests in their order, a batch ``(B, C, h, w)`` at a time.

    Samples for which guidance has nothing to compare take one forward a step, so they form a group of their own in a
    batch.
    """
    ddim = DDIM(system.card.sampler, system.device)
    total = settings.steps * -(-len(requests) // batch_size)
    for number, start in enumerate(range(0, len(requests), batch_size)):
        batch_seeds = seeds[start : start + batch_size]
        guidance_inputs = [system.guidance_inputs(request) for request in requests[start : start + batch_size]]
        groups = _alike(guidance_inputs)
        x0: Tensor | None = None
        for place, rows in enumerate(groups):

            def report_step(
                done: int, before: int = number * settings.steps, place: int = place, many: int = len(groups)
            ) -> None:
                if on_step is not None:
                    on_step(before + (place * settings.steps + done) // many, total)

            one_sided = guidance_inputs[rows[0]].uncond is guidance_inputs[rows[0]].cond
            made = sample(
                system.forward,
                ddim,
                stack_conditions([guidance_inputs[row].cond for row in rows]),
                None if one_sided else stack_conditions([guidance_inputs[row].uncond for row in rows]),
                [batch_seeds[row] for row in rows],
                system.sample_shape,
                steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                eta=settings.eta,
                on_step=report_step,
            )
            x0 = made.new_empty(len(guidance_inputs), *made.shape[1:]) if x0 is None else x0
            x0[rows] = made
        assert x0 is not None
        yield x0


def make_twins(
    system: System,
    queries: Sequence[Query],
    way: Way,
    settings: SamplingSettings,
    sizes_px: Sequence[int],
    *,
    batch_size: int = 16,
    on_step: OnStep | None = None,
) -> dict[int, Twins]:
    """One twin for each query, decoded at each of ``sizes_px``."""
    parts: dict[int, list[Twins]] = {size: [] for size in sizes_px}
    requests, seeds = [query.condition(way) for query in queries], [query.seed for query in queries]
    for x0 in sample_batches(system, requests, seeds, settings, batch_size=batch_size, on_step=on_step):
        for size in sizes_px:
            made = system.decode(x0, size)
            masks = [twin.mask for twin in made if twin.mask is not None]
            if len(masks) < len(made):
                raise ValueError(f"{system.card.id} makes images without masks, so there are no twins to measure")
            parts[size].append(Twins(np.stack([twin.image for twin in made]), np.stack(masks)))
    return {
        size: Twins(np.concatenate([p.images for p in found]), np.concatenate([p.masks for p in found]))
        for size, found in parts.items()
    }


def make_images(
    system: System,
    requests: Sequence[ConditionRequest],
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    batch_size: int = 16,
    on_step: OnStep | None = None,
) -> np.ndarray:
    """One image for each request at the generated size, ``(N, s, s, 3)`` uint8, without its mask."""
    size_px = system.card.generation_size_px
    batches = sample_batches(system, requests, seeds, settings, batch_size=batch_size, on_step=on_step)
    return np.stack([twin.image for x0 in batches for twin in system.decode(x0, size_px)])


def images_as_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 ``(N, s, s, 3)`` -> float32 ``(N, 3, s, s)`` in [-1, 1]."""
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1.0).permute(0, 3, 1, 2)


def _alike(guidance_inputs: Sequence[GuidanceInputs]) -> list[list[int]]:
    """The rows with two sides of guidance, and those with one, each in order."""
    two_sided = [row for row, each in enumerate(guidance_inputs) if each.uncond is not each.cond]
    one_sided = [row for row, each in enumerate(guidance_inputs) if each.uncond is each.cond]
    return [rows for rows in (two_sided, one_sided) if rows]
