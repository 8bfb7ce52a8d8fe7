"""Training recipe of the latent autoencoder (Rombach et al. 2022, section 3.1): reconstruction, features, slight KL.

    L = MSE + lambda_p * feature distance + lambda_kl * KL(q(z|x) || N(0, 1)) / (3 H W)

The errors are means over an image's values, and so is the KL divergence, which makes lambda_kl the one of Rombach's
sums over both whatever the size; their patch discriminator is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from model_store.features import FALLBACK, FeatureNetwork, feature_distance, open_features
from model_store.latent.autoencoder import (
    AutoencoderConfig,
    build_autoencoder,
    pathdiff_autoencoder,
    small_autoencoder,
    stable_diffusion_autoencoder,
)
from model_store.masks.decode import to_pixels
from model_store.weights import to_channels_last
from workers.data.pairs import JoinedPairs
from workers.data.pixels import as_images, draw_turns
from workers.data.stream import InputOptions, PairStream
from workers.data.tiles import PairDraw
from workers.data.training_set import TrainingSet
from workers.training.autoencoder_result import latent_deviation, measured_psnr, reconstructed, save_autoencoder
from workers.training.input import as_draws, training_rows
from workers.training.latents import LatentBank, grid, latent_data
from workers.training.loop import EndlessRows, attention_kernel, iteration_generator
from workers.training.network_trainer import NetworkTrainer, RunSettings

PAPER_SHAPES = {"siamese": stable_diffusion_autoencoder, "pathdiff": pathdiff_autoencoder}
"""Which paper's autoencoder the paper preset builds: Stable Diffusion's f8, or LDM's f4."""


class AutoencoderTraining(RunSettings):
    """The settings of a run."""

    size_px: int = Field(ge=8, description="side of the images")
    kl_weight: float = Field(
        1e-6, ge=0, description="of a latent's KL divergence over the number of its image's values"
    )
    features: str = Field(FALLBACK, description="name of the feature network of the perceptual loss")
    perceptual_weight: float = Field(0.05, ge=0)
    network: AutoencoderConfig

    @property
    def deviations(self) -> tuple[str, ...]:
        """Where this training differs from Rombach's, as sentences for the card."""
        seen = f"a feature distance through {self.features}" if self.perceptual_weight else "no perceptual term"
        return (
            f"The autoencoder is our own: trained by MSE, {seen} and KL {self.kl_weight:g}, without a discriminator.",
        )


def preset_autoencoder(preset: str, size_px: int, *, paper: str = "siamese", **changes: Any) -> AutoencoderTraining:
    """The settings of a preset, with those ``changes`` that are not None.

    ``paper`` builds the network of a paper (siamese or pathdiff); ``small`` the one for CPUs.
    """
    values: dict[str, Any] = {"preset": preset, "size_px": size_px, "clip_norm": 1.0, "decay_from": 0.5}
    if preset == "paper":
        values |= {
            "iterations": 100_000,
            "learning_rate": 1e-4,
            "warmup": 1000,
            "ema_decay": 0.9999,
            "network": PAPER_SHAPES[paper](),
        }
    else:
        # at a weight of 1 % an error of 40 dB is noise of the latents'; at 5 % three channels of four are nothing else
        values |= {"iterations": 10_000, "learning_rate": 5e-4, "warmup": 200, "ema_decay": 0.999, "kl_weight": 1e-3}
        values |= {"network": small_autoencoder()}
    return AutoencoderTraining(**(values | {key: value for key, value in changes.items() if value is not None}))


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp logvar) || N(0, 1)) of ``(B, c, h, w)``, summed over each latent, averaged over the batch."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=(1, 2, 3)).mean()


class AutoencoderObjective(nn.Module):
    """Encoder and decoder in one forward, as data parallelism needs it."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images ``(B, 3, H, W)``, noise ``(B, c, h, w)`` -> reconstruction, and the latents' mean and log variance."""
        posterior = self.autoencoder.encode(images).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        return self.autoencoder.decode(mean + (0.5 * logvar).exp() * noise).sample, mean, logvar


class AutoencoderTrainer(NetworkTrainer[AutoencoderKL]):
    """An autoencoder run: images by iteration, network, optimiser."""

    settings: AutoencoderTraining

    def __init__(
        self,
        data: Sequence[TrainingSet],
        out: Path,
        settings: AutoencoderTraining,
        accelerator: Accelerator,
        *,
        features_weights: Path | None = None,
        has_up: bool | None = None,
        input_options: InputOptions | None = None,
    ) -> None:
        """``has_up`` overrides the datasets'. Raises ValueError for a size that the network cannot divide."""
        super().__init__(out, settings, accelerator)
        if settings.size_px % settings.network.factor:
            raise ValueError(
                f"--size {settings.size_px} is not a multiple of {settings.network.factor}, the factor by which the "
                "autoencoder reduces images"
            )
        self.data, options = tuple(folder.with_fit(settings.fit) for folder in data), input_options or InputOptions()
        up = any(folder.has_up for folder in data) if has_up is None else has_up
        self.turns = 1 if up else 8
        self.features: FeatureNetwork | None = None
        if settings.perceptual_weight:
            opened = open_features(settings.features, features_weights)
            self.features = to_channels_last(opened, accelerator.device)
        share = options.cache_bytes // len(data)
        self.pairs = JoinedPairs(
            [folder.pairs(settings.size_px, folder.stems(), cache_bytes=share) for folder in self.data]
        )
        # of several datasets each row is drawn as often; their tiles, each dataset as often
        self.rows = EndlessRows(len(self.pairs), settings.seed)
        self._tiles = [training_rows(folder, folder.stems(), settings.seed + n) for n, folder in enumerate(self.data)]
        self.stream = PairStream(self.pairs, self._draws, options)
        self.streams = (self.stream,)
        autoencoder = build_autoencoder(settings.network)
        self.begin(autoencoder, AutoencoderObjective(autoencoder))

    def _draws(self, iteration: int) -> list[PairDraw]:
        if self.settings.fit.kind != "tiles":
            return as_draws(self.rows_of(self.rows, iteration))
        size, count = max(1, self.settings.batch_size // self.accelerator.num_processes), len(self.data)
        first = (iteration * self.accelerator.num_processes + self.accelerator.process_index) * size
        drawn = []
        for position in range(first, first + size):
            (draw,) = as_draws([self._tiles[position % count][position // count]])
            drawn.append(draw._replace(row=draw.row + self.pairs.begin(position % count)))
        return drawn

    @property
    def notices(self) -> Sequence[str]:
        return [notice for folder in self.data for notice in folder.notices]

    def identity(self) -> dict[str, Any]:
        return {"network": self.settings.network.model_dump(mode="json"), "size": self.settings.size_px}

    @property
    def dataset_name(self) -> str:
        return " and ".join(dict.fromkeys(folder.name_and_window for folder in self.data))

    def step(self, iteration: int) -> dict[str, float]:
        """One iteration; returns its losses."""
        settings, device = self.settings, self.accelerator.device
        generator = iteration_generator(settings.seed, iteration, self.accelerator.process_index)
        read, _ = self.stream.batch(iteration)
        images = as_images(read, draw_turns(len(read), self.turns, generator))
        side = settings.size_px // settings.network.factor
        noise = torch.randn(len(read), settings.network.latent_channels, side, side, generator=generator)
        images, noise = images.to(device, memory_format=torch.channels_last), noise.to(device)
        self.set_rate(self.optimizer, iteration)
        with self.accelerator.autocast(), attention_kernel(device):
            made, mean, logvar = self.model(images, noise)
            losses = {"mse": F.mse_loss(made.float(), images), "kl": kl_divergence(mean.float(), logvar.float())}
            total = losses["mse"] + settings.kl_weight * losses["kl"] / images[0].numel()
            if self.features is not None:
                losses["perceptual"] = feature_distance(self.features, made, images)
                total = total + settings.perceptual_weight * losses["perceptual"]
        norm = self.optimise(total, iteration)
        return {key: value.item() for key, value in losses.items()} | {"gradient_norm": norm}

    def held_out(self) -> tuple[str, np.ndarray]:
        """(split, images) for samples and figures: the test split, or the train split if a dataset has no other."""
        split = "test" if all(folder.held_out_split == "test" for folder in self.data) else "train"
        return split, np.concatenate([folder.arrays(split, self.settings.size_px)[0] for folder in self.data])

    def save_samples(self, iteration: int) -> None:
        """Writes ``samples/{iteration}.png``: a few held-out images, real and reconstructed, a row each."""
        images = self.held_out()[1]
        images = images[:: max(1, len(images) // 8)][:8]
        with self.result() as network, self.accelerator.autocast():
            made = to_pixels(reconstructed(network, as_images(images).to(self.accelerator.device)))
        path = self.out / "samples" / f"{iteration:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid([images, made])).save(path)

    def finish(self, iterations: int, precision: str) -> dict[str, Any]:
        """Writes ``autoencoder.safetensors`` and ``autoencoder.json``; returns the content of the latter.

        The scaling factor, by which latents are multiplied, is 1 / std of the training images' latents (Rombach et al.,
        section G).
        """
        split, images = self.held_out()
        with self.result() as network:
            deviation = latent_deviation(LatentBank(network, self.pairs, 1), network.config["scaling_factor"])
            about = {
                "kind": "twinset",
                "name": self.out.resolve().name,
                "settings": self.settings.model_dump(mode="json", exclude={"network"}),
                "iterations": iterations,
                "precision": precision,
                "augmentation": "flips and right-angle turns" if self.turns == 8 else "none",
                "data": [
                    latent_data(folder.name, folder.licence, len(folder.stems()), "autoencoder") for folder in self.data
                ],
                "fit": [folder.scale_about(self.settings.size_px, folder.stems()) for folder in self.data],
                "measured_on": split,
                "measured": {
                    "psnr_db": measured_psnr(network, images),
                    "latent_std": round(deviation, 5),
                    "images": len(images),
                },
                "deviations": list(self.settings.deviations),
            }
            return save_autoencoder(network, self.settings.network, 1.0 / deviation, self.out, about)
