"""Siamese-Diffusion's training recipe (sections 3 and 4.2): control, hint network and U-Net decoder on a base."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor

from model_store.card import IGNORE_INDEX
from model_store.latent.base import LatentBase
from model_store.siamese_diffusion.hint import PAPER_WIDTHS, DenseHintConfig, build_hint, image_hint, mask_hint
from model_store.siamese_diffusion.losses import CONSISTENCY_WEIGHT
from model_store.siamese_diffusion.network import SiameseNetwork
from workers.data.captions import (
    CaptionBank,
    caption_repeats,
    read_texts,
    repeats_deviation,
)
from workers.data.listings import DatasetInvalid
from workers.data.pairs import whole_pairs
from workers.data.pixels import as_images, as_indices, draw_turns
from workers.data.stream import InputOptions, PairStream
from workers.data.training_set import TrainingSet
from workers.training.card_parts import fit_deviation
from workers.training.controlled import PREVIEWS, ControlledTrainer, base_deviations, class_palette, palette_tensor
from workers.training.input import as_draws, drawn_rows, training_rows
from workers.training.latents import LatentSource, noise_latents
from workers.training.loop import attention_kernel, iteration_generator
from workers.training.network_trainer import CaptionedRun
from workers.training.siamese_objective import SiameseObjective

PAPER_PX = 384
GUIDANCE = {"paper": 9.0, "small": 2.0}
"""Default guidance scale on the text, by preset."""


class SiameseTraining(CaptionedRun):
    """The settings of a run, stored in the checkpoint and in the model's card."""

    p_uncond: float = Field(0.05, ge=0, le=1, description='how often the prompt is dropped for ""; the mask never is')
    consistency: bool = Field(True, description="the noise consistency loss L_c")
    augmentation: bool = Field(True, description="online augmentation, L_m'")
    consistency_weight: float = Field(CONSISTENCY_WEIGHT, ge=0, description="w_c of eq. 9")
    hint: DenseHintConfig

    def deviations(self, base: LatentBase, classes: int) -> tuple[str, ...]:
        """Where this training differs from the paper, as sentences for the card."""
        paper, found = preset_siamese("paper", base), base_deviations(base, PAPER_PX)
        if classes > 2:
            found.append(
                f"Masks of {classes} classes: the hint is the mask in colours, where the paper's is a binary mask "
                "three times."
            )
        if self.hint.kind != "dense":
            found.append("Without Dense Hint Input: the hint network is ControlNet's (an ablation of the paper's).")
        elif self.hint.widths != PAPER_WIDTHS:
            found.append(
                f"Dense Hint Input of widths {list(self.hint.widths)}, not {list(PAPER_WIDTHS)}: the latents are "
                f"f{self.hint.factor}."
            )
        if not self.consistency:
            found.append("Without the noise consistency loss (an ablation of the paper's).")
        elif self.consistency_weight != CONSISTENCY_WEIGHT:
            found.append(f"The noise consistency loss weighs {self.consistency_weight}, not {CONSISTENCY_WEIGHT}.")
        if not self.augmentation:
            found.append("Without online augmentation (an ablation of the paper's).")
        if base.convention.prediction_type != "epsilon":
            found.append(
                "The losses compare velocities; online augmentation cleans by the noise that a velocity means."
            )
        if self.ema_decay:
            found.append(f"The weights are an exponential average ({self.ema_decay}); the paper's are the last ones.")
        if self.p_uncond != paper.p_uncond:
            found.append(f"The prompt is dropped in {100 * self.p_uncond:g} % of training, not 5 %.")
        if (self.iterations, self.batch_size, self.learning_rate) != (
            paper.iterations,
            paper.batch_size,
            paper.learning_rate,
        ):
            found.append(
                f"{self.iterations} iterations of batch {self.batch_size} at a learning rate of "
                f"{self.learning_rate:g}, "
                f"not {paper.iterations} of {paper.batch_size} at {paper.learning_rate:g}."
            )
        return (*found, *fit_deviation(self.fit), *repeats_deviation(0.0 if self.fit.tile_px else self.repeat_below))


def preset_siamese(preset: str, base: LatentBase, *, dhi: bool = True, **changes: Any) -> SiameseTraining:
    """The paper's settings, or the small ones for CPUs, for a base, with those ``changes`` that are not None."""
    factor = base.autoencoder_config.factor
    # a doubling of the width for each halving of the side, after two at full size
    widths = PAPER_WIDTHS[: factor.bit_length() + 1]
    hint = DenseHintConfig(
        kind="dense" if dhi else "sparse", widths=widths, out_channels=base.denoiser_config.hint_channels
    )
    values: dict[str, Any] = {"preset": preset, "weight_decay": 1e-2, "hint": hint}
    if preset == "paper":
        values |= {"iterations": 3000, "batch_size": 48, "learning_rate": 1e-5}
    else:
        values |= {
            "iterations": 4000,
            "batch_size": 16,
            "learning_rate": 2e-4,
            "warmup": 100,
            "ema_decay": 0.999,
            "clip_norm": 1.0,
        }
        values |= {"decay_from": 0.5, "repeat_below": 0.2}
    return SiameseTraining(**(values | {key: value for key, value in changes.items() if value is not None}))


class SiameseTrainer(ControlledTrainer[SiameseNetwork]):
    """A Siamese-Diffusion run: pairs by iteration, their latents and captions, network, optimiser."""

    settings: SiameseTraining

    def __init__(
        self,
        data: TrainingSet,
        base: LatentBase,
        out: Path,
        settings: SiameseTraining,
        accelerator: Accelerator,
        *,
        has_up: bool | None = None,
        input_options: InputOptions | None = None,
    ) -> None:
        """``has_up`` overrides the dataset's.

        Raises :class:`DatasetInvalid` for an image without a caption, or a mask with pixels of no class.
        """
        super().__init__(base, settings.hint, out, settings, accelerator)
        data = data.with_fit(settings.fit)
        options = input_options or InputOptions()
        self.guidance_scale = GUIDANCE[settings.preset]
        self.turns = 1 if (data.has_up if has_up is None else has_up) else 8
        stems = data.stems("train")
        self.captions = CaptionBank(read_texts(data, stems), base.tokens)
        self.pairs = data.pairs(base.size_px, stems, cache_bytes=options.cache_bytes)
        counts = self.pairs.counts(len(data.classes))
        data.check_learnable(counts, base.size_px)
        pixels = data.index.sizes[data.rows(stems)].prod(axis=1) if data.fit.kind == "tiles" else base.size_px**2
        unknown = counts.sum(axis=1) < pixels
        if unknown.any():
            raise DatasetInvalid(
                f"the mask of {stems[int(unknown.argmax())]!r} in {data.source} has pixels of no class "
                f"({IGNORE_INDEX}), for which Siamese-Diffusion has no colour; give them a class, or leave the image "
                "out of train.txt"
            )
        self.data = data.trained_on(counts.sum(axis=0) > 0)
        self.colours = palette_tensor(len(data.classes)).to(accelerator.device)
        self.latents = LatentSource(
            self.autoencoder,
            self.pairs,
            self.turns,
            tiles=data.fit.kind == "tiles",
            max_bytes=options.cache_bytes,
            show=accelerator.is_main_process,
        )
        self.rows = training_rows(
            data, stems, settings.seed, lambda: caption_repeats(self.captions.texts, settings.repeat_below)
        )
        self.stream = PairStream(self.pairs, lambda iteration: as_draws(self.rows_of(self.rows, iteration)), options)
        self.streams = (self.stream,)
        # a copy, since its decoder is trained and the base is to stay as it came
        network = SiameseNetwork(copy.deepcopy(base.unet), build_hint(settings.hint))
        network.freeze_encoder()
        self.objective = SiameseObjective(
            network,
            settings.iterations,
            self.prediction_type,
            consistency=settings.consistency,
            augmentation=settings.augmentation,
            consistency_weight=settings.consistency_weight,
        )
        self.begin(network, self.objective)

    @property
    def notices(self) -> Sequence[str]:
        return self.data.notices

    def about(self) -> dict[str, Any]:
        return {"turns": self.turns}

    def identity(self) -> dict[str, Any]:
        # w_i and w_a go by the share of the run that is done
        return super().identity() | {"number of iterations": self.settings.iterations}

    def batch(self, iteration: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z_0 ``(B, c, h, w)``, text ``(B, L, d)``, class indices ``(B, H, W)``, images ``(B, 3, H, W)``; on the CPU.

        Images are in [-1, 1].
        """
        rows = drawn_rows(self.rows_of(self.rows, iteration))
        images, masks = self.stream.batch(iteration)
        turns = draw_turns(len(rows), self.turns, generator)
        z0 = self.latents.draw(rows, turns, generator, lambda: images)
        with_text = torch.rand(len(rows), generator=generator) >= self.settings.p_uncond
        text = self.captions.draw(rows, with_text, generator)
        return z0, text, as_indices(masks, turns), as_images(images, turns)

    @property
    def dataset_name(self) -> str:
        return self.data.name_and_window

    def step(self, iteration: int) -> dict[str, float]:
        """One iteration; returns its losses."""
        device = self.accelerator.device
        generator = iteration_generator(self.settings.seed, iteration, self.accelerator.process_index)
        z0, text, masks, images = self.batch(iteration, generator)
        noised = noise_latents(z0, self.abar, self.prediction_type, generator)
        text, masks, images = (value.to(device) for value in (text, masks, images))
        self.set_rate(self.optimizer, iteration)
        with self.accelerator.autocast(), attention_kernel(device):
            losses = self.model(
                noised.z,
                noised.noise,
                noised.target,
                noised.t,
                noised.abar,
                text,
                mask_hint(masks, self.colours),
                image_hint(images),
                iteration,
            )
        norm = self.optimise(torch.stack(list(losses.values())).sum(), iteration)
        return {key: value.item() for key, value in losses.items()} | {"gradient_norm": norm}

    def save_samples(self, iteration: int) -> None:
        """Writes ``samples/{iteration}.png``, a row a sample: mask, real image, image made for mask and caption."""
        count = len(self.pairs)
        rows = np.random.default_rng(self.settings.seed).choice(count, min(PREVIEWS, count), replace=False)
        device = self.accelerator.device
        text = torch.stack([self.captions.encode(self.captions.texts[row][0]) for row in rows]).to(device)
        images, shown = whole_pairs(self.pairs, rows.tolist())
        masks = torch.from_numpy(shown).long().to(device)
        with self.result() as network, self.accelerator.autocast(), attention_kernel(device):
            hint = network.hint(mask_hint(masks, self.colours)).float()
            condition, null = (
                {"text": value, "hint": hint} for value in (text, self.captions.encode("").to(device).expand_as(text))
            )
            made = self.sampled(network, condition, null)
        self.write_sample_image(iteration, [class_palette(len(self.colours))[shown], images, made])
