"""PathDiff's joint training (section 3.2, Algorithm 1): control copy and hint network, on unpaired text and masks.

L = E |target - eps_theta(z_t, t, c_m, c_t)|^2, where each sample has its text, or its mask, or neither, and the U-Net
is frozen
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from pydantic import Field
from torch import Tensor, nn

from model_store.latent.base import LatentBase
from model_store.latent.denoiser import control_copy, control_residuals, denoise
from model_store.pathdiff.hint import PathDiffHintConfig, build_hint, mask_hint, null_hint
from model_store.pathdiff.unpaired import P_SPLIT, P_UNCOND, draw_conditions
from workers.data.captions import (
    CaptionBank,
    caption_repeats,
    read_texts,
    repeats_deviation,
)
from workers.data.instance_keys import Instances, labels_of, split
from workers.data.pairs import whole_pairs
from workers.data.pixels import as_indices, draw_turns
from workers.data.stream import InputOptions, PairStream
from workers.data.training_set import TrainingSet
from workers.data.unpaired import check_unpaired
from workers.training.card_parts import fit_deviation
from workers.training.controlled import PREVIEWS, ControlledTrainer, base_deviations, class_palette, palette_tensor
from workers.training.input import as_draws, drawn_rows, training_rows
from workers.training.instances import InstanceSetting, check_same_instances, edges_deviation, seen_instances
from workers.training.latents import LatentSource, noise_latents
from workers.training.loop import attention_kernel, iteration_generator
from workers.training.network_trainer import CaptionedRun

PAPER_PX, PAPER_EPOCHS, PAPER_BATCH, PAPER_RATE = 256, 60, 72, 3.75e-5
GUIDANCE_SCALE = 1.5
HINT_WIDTHS = {1: (16,), 2: (16, 32), 4: (16, 32, 96), 8: (16, 32, 96, 256)}
"""The shallow CNN for latents of each factor, as ControlNet's; the paper's is 4."""
OPEN_DETAILS = (
    "The null mask has a channel of its own that marks where a label is; the authors' null mask is a colour, nearly "
    "black.",
    "Guidance may also strengthen the mask, or both; the paper's strengthens the text.",
)


class PathDiffTraining(CaptionedRun):
    """The settings of a run, stored in the checkpoint and in the model's card."""

    p_split: float = Field(P_SPLIT, ge=0, le=1, description="how often a sample comes from the text dataset")
    p_uncond: float = Field(P_UNCOND, ge=0, le=1, description="how often a sample's condition is dropped")
    instances: InstanceSetting = Field(
        "maps",
        description="hints have the edges between instances: of the maps that the dataset has, or of connected regions",
    )
    hint: PathDiffHintConfig

    def deviations(self, base: LatentBase, instances: Instances = "none") -> tuple[str, ...]:
        """Where this training differs from the paper, or settles what it leaves open, as sentences for the card.

        ``instances`` are those that it saw.
        """
        found = [*OPEN_DETAILS, edges_deviation(instances), *base_deviations(base, PAPER_PX)]
        if base.tokens.ref.dims != 512 or base.tokens.ref.chunks != 2:
            found.append(
                f"Text is read by {base.tokens.ref.name} ({base.tokens.ref.max_tokens} tokens of "
                f"{base.tokens.ref.dims}), not by PLIP."
            )
        if self.hint.widths != HINT_WIDTHS[4]:
            found.append(
                f"The hint network halves a mask {len(self.hint.widths) - 1} times, for latents of f{self.hint.factor}."
            )
        if self.ema_decay:
            found.append(f"The weights are an exponential average ({self.ema_decay}).")
        if (self.p_split, self.p_uncond) != (P_SPLIT, P_UNCOND):
            found.append(
                f"p_split is {self.p_split:g} and p_uncond {self.p_uncond:g}, not {P_SPLIT:g} and {P_UNCOND:g}."
            )
        if (self.batch_size, self.learning_rate) != (PAPER_BATCH, PAPER_RATE):
            found.append(
                f"Batch {self.batch_size} and learning rate {self.learning_rate:g}, not {PAPER_BATCH} and "
                f"{PAPER_RATE:g}."
            )
        return (*found, *fit_deviation(self.fit), *repeats_deviation(0.0 if self.fit.tile_px else self.repeat_below))


def preset_pathdiff(preset: str, base: LatentBase, images: int, **changes: Any) -> PathDiffTraining:
    """The paper's settings (60 epochs over ``images``), or the small ones for CPUs, with ``changes`` not None."""
    factor = base.autoencoder_config.factor
    if factor not in HINT_WIDTHS:
        raise ValueError(
            f"this base's latents are {factor} times smaller than its images; a hint network is made for "
            f"{list(HINT_WIDTHS)}"
        )
    hint = PathDiffHintConfig(widths=HINT_WIDTHS[factor], out_channels=base.denoiser_config.hint_channels)
    values: dict[str, Any] = {"preset": preset, "weight_decay": 1e-2, "hint": hint}
    if preset == "paper":
        values |= {"iterations": math.ceil(PAPER_EPOCHS * images / PAPER_BATCH), "batch_size": PAPER_BATCH}
        values |= {"learning_rate": PAPER_RATE, "warmup": 1000}
    else:
        values |= {"iterations": 6000, "learning_rate": 2e-4, "warmup": 100, "ema_decay": 0.999, "clip_norm": 1.0}
        values |= {"decay_from": 0.5, "repeat_below": 0.2}
    return PathDiffTraining(**(values | {key: value for key, value in changes.items() if value is not None}))


class PathDiffNetwork(nn.Module):
    """The base's U-Net, frozen, with a control copy and a hint network that are trained."""

    def __init__(self, unet: UNet2DConditionModel, hint: nn.Module) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(False)
        self.control = control_copy(unet)
        self.hint = hint

    def forward(self, z: Tensor, t: Tensor, text: Tensor, masks: Tensor) -> Tensor:
        """The output ``(B, c, h, w)``.

        z ``(B, c, h, w)``, t ``(B,)``, text ``(B, L, d)``, hints of masks ``(B, 7, H, W)``.
        """
        features: Tensor = self.hint(masks)
        return denoise(self.unet, z, t, text, control_residuals(self.control, z, t, text, features))


class PathDiffTrainer(ControlledTrainer[PathDiffNetwork]):
    """A PathDiff run: pairs of two datasets by iteration, texts of one and masks of the other, network, optimiser."""

    settings: PathDiffTraining
    guidance_scale = GUIDANCE_SCALE

    def __init__(
        self,
        text_data: TrainingSet,
        mask_data: TrainingSet,
        base: LatentBase,
        out: Path,
        settings: PathDiffTraining,
        accelerator: Accelerator,
        *,
        has_up: bool | None = None,
        input_options: InputOptions | None = None,
    ) -> None:
        """``has_up`` overrides both datasets'.

        Raises :class:`workers.data.listings.DatasetInvalid` for an image in both, or a text image without a caption.
        """
        super().__init__(base, settings.hint, out, settings, accelerator)
        text_data, mask_data = text_data.with_fit(settings.fit), mask_data.with_fit(settings.fit)
        options, device = input_options or InputOptions(), accelerator.device
        # each dataset has half of the memory
        options = replace(options, cache_bytes=options.cache_bytes // 2)
        self.text_data, texts, self.mask_stems = text_data, text_data.stems(), mask_data.stems()
        check_unpaired((text_data, texts), (mask_data, self.mask_stems))
        self.captions = CaptionBank(read_texts(text_data, texts), base.tokens)
        self.text_pairs = text_data.pairs(base.size_px, texts, cache_bytes=options.cache_bytes)
        self.mask_pairs = mask_data.pairs(
            base.size_px,
            self.mask_stems,
            cache_bytes=options.cache_bytes,
            instances=settings.instances,
        )
        self.instances = seen_instances(settings.instances, mask_data)
        counts = self.mask_pairs.counts(len(mask_data.classes))
        mask_data.check_learnable(counts, base.size_px)
        self.mask_data = mask_data.trained_on(counts.sum(axis=0) > 0)
        self.text_turns, self.mask_turns = (
            1 if (up if has_up is None else has_up) else 8 for up in (text_data.has_up, mask_data.has_up)
        )
        self.text_latents, self.mask_latents = (
            LatentSource(
                self.autoencoder,
                pairs,
                turns,
                tiles=settings.fit.kind == "tiles",
                max_bytes=options.cache_bytes,
                show=accelerator.is_main_process,
            )
            for pairs, turns in ((self.text_pairs, self.text_turns), (self.mask_pairs, self.mask_turns))
        )
        self.text_rows = training_rows(
            text_data, texts, settings.seed, lambda: caption_repeats(self.captions.texts, settings.repeat_below)
        )
        self.mask_rows = training_rows(mask_data, self.mask_stems, settings.seed + 1)
        self.text_stream = PairStream(
            self.text_pairs, lambda iteration: as_draws(self.rows_of(self.text_rows, iteration)), options
        )
        self.mask_stream = PairStream(
            self.mask_pairs, lambda iteration: as_draws(self.rows_of(self.mask_rows, iteration)), options
        )
        self.streams = self.text_stream, self.mask_stream
        self.colours = palette_tensor(len(mask_data.classes)).to(device)
        self.begin(PathDiffNetwork(base.unet, build_hint(settings.hint)))

    @property
    def notices(self) -> Sequence[str]:
        return [*self.text_data.notices, *self.mask_data.notices]

    def about(self) -> dict[str, Any]:
        return {"turns": [self.text_turns, self.mask_turns], "instances": self.instances}

    def check_resumable(self, about: Mapping[str, Any], settings: PathDiffTraining) -> None:
        check_same_instances(self.out, about, settings.instances, self.settings.instances, self.mask_data)

    def batch(self, iteration: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """z_0 ``(B, c, h, w)`` and text ``(B, L, d)`` on the CPU, and hints of masks ``(B, 7, H, W)`` on the device.

        Every place in the batch has a row of each dataset, and takes one of them.
        """
        texts, rows = (drawn_rows(self.rows_of(endless, iteration)) for endless in (self.text_rows, self.mask_rows))
        images, masks = self.mask_stream.batch(iteration)
        drawn = draw_conditions(len(texts), generator, p_split=self.settings.p_split, p_uncond=self.settings.p_uncond)
        text_turns, turns = (draw_turns(len(texts), count, generator) for count in (self.text_turns, self.mask_turns))
        of_text = self.text_latents.draw(texts, text_turns, generator, lambda: self.text_stream.batch(iteration)[0])
        of_mask = self.mask_latents.draw(rows, turns, generator, lambda: images)
        z0 = torch.where(drawn.from_text.view(-1, 1, 1, 1), of_text, of_mask)
        text = self.captions.draw(texts, drawn.with_text, generator)
        hints = self.hints(as_indices(masks, turns))
        with_mask = drawn.with_mask.to(hints.device).view(-1, 1, 1, 1)
        return z0, text, torch.where(with_mask, hints, null_hint(1, self.base.size_px, hints.device))

    def hints(self, masks: Tensor) -> Tensor:
        """The hints ``(B, 7, H, W)``, on the device, of masks or their keys with instances ``(B, H, W)`` int64."""
        labels, instances = split(masks.to(self.colours.device))
        return mask_hint(labels, self.colours, instances)

    @property
    def dataset_name(self) -> str:
        return f"{self.text_data.name_and_window} for text, {self.mask_data.name_and_window} for masks"

    def step(self, iteration: int) -> dict[str, float]:
        """One iteration; returns its loss."""
        device = self.accelerator.device
        generator = iteration_generator(self.settings.seed, iteration, self.accelerator.process_index)
        z0, text, hints = self.batch(iteration, generator)
        noised = noise_latents(z0, self.abar, self.prediction_type, generator)
        self.set_rate(self.optimizer, iteration)
        with self.accelerator.autocast(), attention_kernel(device):
            output = self.model(noised.z, noised.t, text.to(device), hints)
        loss = torch.nn.functional.mse_loss(output.float(), noised.target)
        norm = self.optimise(loss, iteration)
        return {"denoising": loss.item(), "gradient_norm": norm}

    def save_samples(self, iteration: int) -> None:
        """Writes ``samples/{iteration}.png``, a row a sample.

        Each row has a mask and its real image, then images for the mask alone, for a caption alone, and for both.
        """
        device, random = self.accelerator.device, np.random.default_rng(self.settings.seed)
        count = min(PREVIEWS, len(self.mask_pairs), len(self.captions.texts))
        rows, texts = (
            random.choice(size, count, replace=False) for size in (len(self.mask_pairs), len(self.captions.texts))
        )
        captions = torch.stack([self.captions.encode(self.captions.texts[row][0]) for row in texts]).to(device)
        empty = self.captions.encode("").to(device).expand_as(captions)
        images, masks = whole_pairs(self.mask_pairs, rows.tolist())
        keys, masks = torch.from_numpy(masks).long(), labels_of(masks)
        with self.result() as network, self.accelerator.autocast(), attention_kernel(device):
            given, null = (
                network.hint(hint).float() for hint in (self.hints(keys), null_hint(count, self.base.size_px, device))
            )
            made = [
                self.sampled(network, {"text": text, "hint": hint}, {"text": empty, "hint": hint})
                for text, hint in ((empty, given), (captions, null), (captions, given))
            ]
        painted = np.concatenate([class_palette(len(self.colours)), np.zeros((256 - len(self.colours), 3), np.uint8)])[
            masks
        ]
        self.write_sample_image(iteration, [painted, images, *made])
