"""Runs of Siamese-Diffusion in miniature, and an iteration's batch as its step draws it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from model_store.latent.base import LatentBase
from model_store.siamese_diffusion.hint import image_hint, mask_hint
from tests.workers.training.scenes import accelerator, tiny_base
from workers.data.training_set import TrainingSet
from workers.training.latents import Noised, noise_latents
from workers.training.loop import iteration_generator
from workers.training.siamese import SiameseTrainer, preset_siamese

ITERATIONS = 60
FROZEN = ("conv_in", "time_embedding", "down_blocks", "mid_block")
"""The parts of a U-Net that the paper leaves as they are."""
OFF = {"dhi": False, "consistency": False, "augmentation": False}


def trainer(data: TrainingSet, out: Path, base: LatentBase | None = None, **changes: object) -> SiameseTrainer:
    base = base or tiny_base()
    values = {"iterations": ITERATIONS, "batch_size": 6, "learning_rate": 3e-3, "warmup": 5, "ema_decay": 0.8}
    return SiameseTrainer(data, base, out, preset_siamese("small", base, **(values | changes)), accelerator())


def noised_batch(run: SiameseTrainer, iteration: int) -> tuple[Noised, Tensor, Tensor, Tensor]:
    """An iteration's noised latents, text, and hints of masks and images, as :meth:`SiameseTrainer.step` draws them."""
    generator = iteration_generator(0, iteration)
    z0, text, masks, images = run.batch(iteration, generator)
    noised = noise_latents(z0, run.abar, run.prediction_type, generator)
    return noised, text, mask_hint(masks, run.colours), image_hint(images)


def losses_of(run: SiameseTrainer, iteration: int) -> dict[str, Tensor]:
    noised, text, masks, images = noised_batch(run, iteration)
    return run.objective(noised.z, noised.noise, noised.target, noised.t, noised.abar, text, masks, images, iteration)


def reached(module: torch.nn.Module) -> int:
    """How many of a module's parameters have a gradient that is not zero."""
    return sum(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
