"""Training recipe of a base: text-to-image diffusion on latents (Rombach et al. 2022), on which mask systems build.

L = E |target - U-Net(z_t, t, tokens of a caption)|^2, the caption dropped for "" with p_uncond
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from model_store.card import SamplerConvention
from model_store.diffusion.schedule import alphas_cumprod
from model_store.latent.autoencoder import AutoencoderConfig
from model_store.latent.base import BASE_ABOUT, BASE_WEIGHTS
from model_store.latent.denoiser import (
    DenoiserConfig,
    build_unet,
    denoise,
    pathdiff_denoiser,
    small_denoiser,
    stable_diffusion_denoiser,
)
from model_store.latent.text import TokenEncoder
from model_store.weights import to_device
from workers.data.captions import (
    CaptionBank,
    caption_repeats,
    read_texts,
    repeats_deviation,
)
from workers.data.pixels import draw_turns
from workers.data.stream import InputOptions, PairStream
from workers.data.training_set import TrainingSet
from workers.training.card_parts import fit_deviation, joined_licences, versions, weights_file
from workers.training.input import as_draws, drawn_rows, training_rows
from workers.training.latents import LatentSource, grid, latent_data, noise_latents, sample_images
from workers.training.loop import attention_kernel, iteration_generator
from workers.training.network_trainer import CaptionedRun, NetworkTrainer

STABLE_DIFFUSION_CONVENTION = SamplerConvention(
    schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    timestep_spacing="leading",
    steps_offset=1,
    set_alpha_to_one=False,
    clip_sample=False,
)
# Stable Diffusion's schedule leaves 7 % of a latent at its last step, enough to read there whether an image is dark or
# bright, which sampling, from pure noise, must learn from the text (Lin et al. 2023, Common diffusion noise schedules
# are flawed)
SMALL_CONVENTION = SamplerConvention(schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False)
PREVIEWS = 6


class BaseTraining(CaptionedRun):
    """The settings of a run."""

    p_uncond: float = Field(0.1, ge=0, le=1, description='how often the caption is dropped for ""')
    convention: SamplerConvention
    network: DenoiserConfig

    @property
    def deviations(self) -> tuple[str, ...]:
        """The deviations of every model on this base, as sentences for the card."""
        network, found = self.network, []
        found.append(
            f"The base is our own text-to-image model, not a published one: U-Net widths {list(network.widths)}, "
            f"{network.layers_per_block} layers a level, latents of {network.latent_channels} x {network.latent_px} x "
            f"{network.latent_px}."
        )
        if self.convention.prediction_type != "epsilon":
            found.append("The networks predict velocity, not noise.")
        if self.convention.schedule == "squaredcos_cap_v2":
            found.append("The noise follows the cosine schedule, which ends in pure noise, not Stable Diffusion's.")
        if self.convention.timestep_spacing != "leading":
            found.append(
                f"Sampling takes {self.convention.timestep_spacing} timesteps, from the last one on, not leading ones."
            )
        return (*found, *fit_deviation(self.fit), *repeats_deviation(0.0 if self.fit.tile_px else self.repeat_below))


def preset_base(
    preset: str, autoencoder: AutoencoderConfig, size_px: int, text_dims: int, *, paper: str = "siamese", **changes: Any
) -> BaseTraining:
    """The settings of a preset, with those ``changes`` that are not None.

    ``paper`` builds the U-Net of a paper (siamese or pathdiff); ``small`` the one for CPUs.

    Raises ValueError if the paper's U-Net does not fit the autoencoder.
    """
    latent_px = size_px // autoencoder.factor
    values: dict[str, Any] = {"preset": preset}
    if preset == "paper":
        network = stable_diffusion_denoiser(latent_px) if paper == "siamese" else pathdiff_denoiser()
        network = network.model_copy(update={"latent_px": latent_px})
        if network.text_dims != text_dims:
            raise ValueError(
                f"the paper's U-Net reads text of {network.text_dims} dimensions and this encoder gives {text_dims}; "
                "name a CLIP by --clip"
            )
        values |= {"iterations": 200_000, "batch_size": 48, "learning_rate": 1e-4, "weight_decay": 1e-2, "warmup": 1000}
        values |= {"ema_decay": 0.9999, "convention": STABLE_DIFFUSION_CONVENTION}
    else:
        network = small_denoiser(latent_px, text_dims).model_copy(
            update={"latent_channels": autoencoder.latent_channels}
        )
        values |= {"iterations": 20_000, "learning_rate": 4e-4, "warmup": 200, "decay_from": 0.5, "ema_decay": 0.999}
        values |= {"repeat_below": 0.2, "clip_norm": 1.0, "convention": SMALL_CONVENTION}
    settings = BaseTraining(
        **(values | {"network": network} | {key: value for key, value in changes.items() if value is not None})
    )
    if settings.network.latent_channels != autoencoder.latent_channels:
        raise ValueError(
            f"the U-Net denoises {settings.network.latent_channels} channels and the autoencoder makes "
            f"{autoencoder.latent_channels}; "
            "train an autoencoder of the same paper (--for), or take --preset small"
        )
    return settings


class BaseObjective(nn.Module):
    """The U-Net, called by position, as data parallelism needs it."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return denoise(self.unet, z, t, text)


class BaseTrainer(NetworkTrainer[UNet2DConditionModel]):
    """A run of a base: latents and captions by iteration, network, optimiser."""

    settings: BaseTraining

    def __init__(
        self,
        data: TrainingSet,
        out: Path,
        settings: BaseTraining,
        accelerator: Accelerator,
        *,
        autoencoder: tuple[AutoencoderKL, AutoencoderConfig, dict[str, Any]],
        tokens: TokenEncoder,
        has_up: bool | None = None,
        input_options: InputOptions | None = None,
    ) -> None:
        """``autoencoder`` is network, shape and provenance; ``has_up`` overrides the dataset's.

        Raises :class:`workers.data.listings.DatasetInvalid` for an image without a caption.
        """
        super().__init__(out, settings, accelerator)
        data, options = data.with_fit(settings.fit), input_options or InputOptions()
        self.data, self.tokens = data, tokens
        self.turns = 1 if (data.has_up if has_up is None else has_up) else 8
        stems = data.stems()
        self.captions = CaptionBank(read_texts(data, stems), tokens)
        network, self.autoencoder_config, self.autoencoder_about = autoencoder
        self.autoencoder = to_device(network, accelerator.device).eval().requires_grad_(False)
        self.size_px = settings.network.latent_px * self.autoencoder_config.factor
        pairs = data.pairs(self.size_px, stems, cache_bytes=options.cache_bytes)
        self.latents = LatentSource(
            self.autoencoder,
            pairs,
            self.turns,
            tiles=data.fit.kind == "tiles",
            max_bytes=options.cache_bytes,
            show=accelerator.is_main_process,
        )
        self.rows = training_rows(
            data, stems, settings.seed, lambda: caption_repeats(self.captions.texts, settings.repeat_below)
        )
        self.stream = PairStream(pairs, lambda iteration: as_draws(self.rows_of(self.rows, iteration)), options)
        self.streams = (self.stream,)
        self.abar = alphas_cumprod(settings.convention).to(accelerator.device)
        unet = build_unet(settings.network)
        self.begin(unet, BaseObjective(unet))

    @property
    def notices(self) -> Sequence[str]:
        return self.data.notices

    def identity(self) -> dict[str, Any]:
        return {
            "network": self.settings.network.model_dump(mode="json"),
            "autoencoder": self.autoencoder_about["files"],
            "text encoder": self.tokens.ref.model_dump(mode="json"),
            "convention": self.settings.convention.model_dump(mode="json"),
        }

    @property
    def dataset_name(self) -> str:
        return self.data.name_and_window

    def step(self, iteration: int) -> dict[str, float]:
        """One iteration; returns its loss."""
        settings, device = self.settings, self.accelerator.device
        generator = iteration_generator(settings.seed, iteration, self.accelerator.process_index)
        rows = drawn_rows(self.rows_of(self.rows, iteration))
        turns = draw_turns(len(rows), self.turns, generator)
        z0 = self.latents.draw(rows, turns, generator, lambda: self.stream.batch(iteration)[0])
        with_text = torch.rand(len(rows), generator=generator) >= settings.p_uncond
        text = self.captions.draw(rows, with_text, generator).to(device)
        noised = noise_latents(z0, self.abar, settings.convention.prediction_type, generator)
        self.set_rate(self.optimizer, iteration)
        with self.accelerator.autocast(), attention_kernel(device):
            output = self.model(noised.z, noised.t, text)
        loss = F.mse_loss(output.float(), noised.target)
        norm = self.optimise(loss, iteration)
        return {"denoising": loss.item(), "gradient_norm": norm}

    def save_samples(self, iteration: int) -> None:
        """Writes ``samples/{iteration}.png``: images for captions of the training data, without guidance and with 3."""
        chosen = np.random.default_rng(self.settings.seed).choice(len(self.captions.texts), PREVIEWS)
        device = self.accelerator.device
        condition = {
            "text": torch.stack([self.captions.encode(self.captions.texts[row][0]) for row in chosen]).to(device)
        }
        null = {"text": self.captions.encode("").expand(PREVIEWS, -1, -1).to(device)}
        with self.result() as unet, self.accelerator.autocast():
            columns = [
                sample_images(
                    lambda x, t, condition: denoise(unet, x, t, condition["text"]).float(),
                    self.autoencoder,
                    self.settings.convention,
                    condition,
                    null,
                    self.settings.network.latent_shape,
                    steps=25,
                    guidance_scale=scale,
                )
                for scale in (1.0, 3.0)
            ]
        path = self.out / "samples" / f"{iteration:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid(columns)).save(path)

    def finish(self, iterations: int, precision: str) -> dict[str, Any]:
        """Writes ``base.safetensors`` (float32) and ``base.json``; returns the content of the latter."""
        path = self.out / BASE_WEIGHTS
        with self.result() as unet:
            parts: dict[str, nn.Module] = {"autoencoder": self.autoencoder, "unet": unet}
            tensors = {
                f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
            }
            save_file({name: value.detach().cpu().contiguous().float() for name, value in tensors.items()}, path)
        data = [
            *self.autoencoder_about["data"],
            latent_data(self.data.name, self.data.licence, len(self.data.stems()), "base"),
        ]
        about = {
            "format": 1,
            "kind": "twinset",
            "name": self.out.resolve().name,
            "autoencoder": self.autoencoder_config.model_dump(mode="json"),
            "denoiser": self.settings.network.model_dump(mode="json"),
            "sampler": self.settings.convention.model_dump(mode="json"),
            "text_encoder": self.tokens.ref.model_dump(mode="json"),
            "files": {path.name: weights_file(path).sha256},
            "settings": self.settings.model_dump(mode="json", exclude={"network", "convention"}),
            "iterations": iterations,
            "precision": precision,
            "augmentation": "flips and right-angle turns" if self.turns == 8 else "none",
            "data": data,
            "fit": self.data.scale_about(self.size_px, self.data.stems()),
            "licence": joined_licences([self.autoencoder_about["licence"], self.data.licence]),
            "measured": {"autoencoder": self.autoencoder_about.get("measured", {})},
            "deviations": [*self.settings.deviations, *self.autoencoder_about["deviations"]],
            "versions": versions("torch", "accelerate", "diffusers", "twinset"),
        }
        (self.out / BASE_ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        return about
