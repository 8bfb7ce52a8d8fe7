"""PathDiff's joint training (section 3.2, Algorithm 1): control copy and hint network, on unpaired text and masks.

L = E |target - eps_theta(z_t, t, c_m, c_t)|^2, where each sample has its text, or its mask, or neither, and the U-Net
is frozen
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from workers.data.files import listed_stems
from workers.data.image_folder import (
    ImageFolder,
    as_indices,
    check_unpaired,
    draw_turns,
)
from workers.data.segmentation_folder import SegmentationFolder
from workers.training.controlled import PREVIEWS, ControlledTrainer, base_deviations, class_palette, palette_tensor
from workers.training.latents import LatentBank, noise_latents
from workers.training.loop import EndlessRows, attention_kernel, iteration_generator
from workers.training.network_trainer import CaptionedRun

PAPER_PX, PAPER_EPOCHS, PAPER_BATCH, PAPER_RATE = 256, 60, 72, 3.75e-5
GUIDANCE_SCALE = 1.5
HINT_WIDTHS = {1: (16,), 2: (16, 32), 4: (16, 32, 96), 8: (16, 32, 96, 256)}
"""The shallow CNN for latents of each factor, as ControlNet's; the paper's is 4."""
OPEN_DETAILS = (
    "The null mask has a channel of its own that marks where a label is; the authors' null mask is a colour, nearly "
    "black.",
    "Masks are normalised to [-1, 1] (the authors feed 0 to 255), with the edges of the label map, not those of "
    "single instances.",
    "Guidance may also strengthen the mask, or both; the paper's strengthens the text.",
)


class PathDiffTraining(CaptionedRun):
    """The settings of a run, stored in the checkpoint and in the model's card."""

    p_split: float = Field(P_SPLIT, ge=0, le=1, description="how often a sample comes from the text dataset")
    p_uncond: float = Field(P_UNCOND, ge=0, le=1, description="how often a sample's condition is dropped")
    hint: PathDiffHintConfig

    def deviations(self, base: LatentBase) -> tuple[str, ...]:
        """Where this training differs from the paper, or settles what it leaves open, as sentences for the card."""
        found = [*OPEN_DETAILS, *base_deviations(base, PAPER_PX)]
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
        return (*found, *repeats_deviation(self.repeat_below))


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
    """A PathDiff run: two datasets' latents, captions of one and masks of the other in memory, network, optimiser."""

    settings: PathDiffTraining
    guidance_scale = GUIDANCE_SCALE

    def __init__(
        self,
        text_data: ImageFolder,
        mask_data: SegmentationFolder,
        base: LatentBase,
        out: Path,
        settings: PathDiffTraining,
        accelerator: Accelerator,
        *,
        mask_list: Path | None = None,
        has_up: bool | None = None,
    ) -> None:
        """``mask_list`` replaces the mask dataset's train.txt; ``has_up`` overrides both datasets'.

        Raises :class:`workers.data.files.DatasetInvalid` for an image in both, or a text image without a
        caption.
        """
        super().__init__(base, settings.hint, out, settings, accelerator)
        self.text_data, self.mask_data, device = text_data, mask_data, accelerator.device
        texts, self.mask_stems = text_data.stems(), mask_stems(mask_data, mask_list)
        check_unpaired(
            (text_data.folder, [text_data.path(stem) for stem in texts]),
            (mask_data.folder, [mask_data.image_path(stem) for stem in self.mask_stems]),
        )
        self.captions = CaptionBank(read_texts(text_data.folder, texts), base.tokens)
        self.text_images = text_data.images(texts, base.size_px)
        self.mask_images, self.masks = mask_data.training_arrays(base.size_px, self.mask_stems)
        self.mask_data = mask_data.trained_on(np.isin(np.arange(len(mask_data.classes)), self.masks))
        self.text_turns, self.mask_turns = (
            1 if (up if has_up is None else has_up) else 8 for up in (text_data.has_up, mask_data.has_up)
        )
        show = accelerator.is_main_process
        self.text_latents = LatentBank(self.autoencoder, self.text_images, self.text_turns, show=show)
        self.mask_latents = LatentBank(self.autoencoder, self.mask_images, self.mask_turns, show=show)
        self.text_rows = EndlessRows(
            len(texts), settings.seed, caption_repeats(self.captions.texts, settings.repeat_below)
        )
        self.mask_rows = EndlessRows(len(self.masks), settings.seed + 1)
        self.colours = palette_tensor(len(mask_data.classes)).to(device)
        self.begin(PathDiffNetwork(base.unet, build_hint(settings.hint)))

    @property
    def notices(self) -> Sequence[str]:
        return [*self.text_data.notices, *self.mask_data.notices]

    def about(self) -> dict[str, Any]:
        return {"turns": [self.text_turns, self.mask_turns]}

    def batch(self, iteration: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """z_0 ``(B, c, h, w)`` and text ``(B, L, d)`` on the CPU, and hints of masks ``(B, 7, H, W)`` on the device.

        Every place in the batch has a row of each dataset, and takes one of them.
        """
        texts, masks = self.rows_of(self.text_rows, iteration), self.rows_of(self.mask_rows, iteration)
        drawn = draw_conditions(len(texts), generator, p_split=self.settings.p_split, p_uncond=self.settings.p_uncond)
        text_turns, turns = (draw_turns(len(texts), count, generator) for count in (self.text_turns, self.mask_turns))
        of_text, of_mask = (
            bank.draw(rows, chosen, generator)
            for bank, rows, chosen in ((self.text_latents, texts, text_turns), (self.mask_latents, masks, turns))
        )
        z0 = torch.where(drawn.from_text.view(-1, 1, 1, 1), of_text, of_mask)
        text = self.captions.draw(texts, drawn.with_text, generator)
        hints = mask_hint(as_indices(self.masks[masks], turns).to(self.colours.device), self.colours)
        with_mask = drawn.with_mask.to(hints.device).view(-1, 1, 1, 1)
        return z0, text, torch.where(with_mask, hints, null_hint(1, self.base.size_px, hints.device))

    @property
    def dataset_name(self) -> str:
        return f"{self.text_data.name} for text, {self.mask_data.name} for masks"

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
        count = min(PREVIEWS, len(self.masks), len(self.captions.texts))
        masks, texts = (
            random.choice(size, count, replace=False) for size in (len(self.masks), len(self.captions.texts))
        )
        captions = torch.stack([self.captions.encode(self.captions.texts[row][0]) for row in texts]).to(device)
        empty = self.captions.encode("").to(device).expand_as(captions)
        indices = torch.from_numpy(self.masks[masks]).long().to(device)
        with self.result() as network, self.accelerator.autocast(), attention_kernel(device):
            given, null = (
                network.hint(hint).float()
                for hint in (mask_hint(indices, self.colours), null_hint(count, self.base.size_px, device))
            )
            made = [
                self.sampled(network, {"text": text, "hint": hint}, {"text": empty, "hint": hint})
                for text, hint in ((empty, given), (captions, null), (captions, given))
            ]
        painted = np.concatenate([class_palette(len(self.colours)), np.zeros((256 - len(self.colours), 3), np.uint8)])[
            self.masks[masks]
        ]
        self.write_sample_image(iteration, [painted, self.mask_images[masks], *made])


def mask_stems(data: SegmentationFolder, listing: Path | None) -> tuple[str, ...]:
    """The mask dataset's stems: those of a listing, or of its train split."""
    return data.stems("train") if listing is None else listed_stems(listing)
