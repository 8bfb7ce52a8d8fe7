"""A captioned dataset of bright squares (class 1) on a dark background (class 0), and a miniature base for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from model_store.card import SamplerConvention
from model_store.latent.autoencoder import build_autoencoder
from model_store.latent.base import LatentBase
from model_store.latent.denoiser import DenoiserConfig, build_unet
from tests.model_store.latent.tiny import (
    AUTOENCODER,
    DENOISER,
    SIZE_PX,
    LetterTokens,
)
from workers.training.training_log import read_log


def write_scenes(folder: Path, count: int = 8, *, seed: int = 0, **about: Any) -> Path:
    """``count`` pairs of 32 px with a caption each, all in train.txt."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    stems, captions = [], []
    for i in range(count):
        mask = np.zeros((SIZE_PX, SIZE_PX), dtype=np.uint8)
        top, left, side = rng.integers(2, 14), rng.integers(2, 14), rng.integers(8, 16)
        mask[top : top + side, left : left + side] = 1
        image = np.where(mask[..., None] == 1, [230, 190, 60], [20, 40, 70]) + rng.integers(
            -8, 9, (SIZE_PX, SIZE_PX, 3)
        )
        stems.append(f"scene{i:02d}")
        captions.append({"stem": stems[-1], "text": f"a square of {side} pixels"})
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{stems[-1]}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{stems[-1]}.png")
    classes = [{"index": 0, "name": "background"}, {"index": 1, "name": "square", "aliases": ["squares"]}]
    (folder / "dataset.json").write_text(json.dumps({"name": "scenes", "licence": "CC0", "classes": classes} | about))
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, captions)))
    (folder / "train.txt").write_text("\n".join(stems))
    return folder


def tiny_base(prediction_type: str = "epsilon", denoiser: DenoiserConfig = DENOISER, seed: int = 5) -> LatentBase:
    """An untrained base of 32 px over latents of 8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder, unet = build_autoencoder(AUTOENCODER), build_unet(denoiser)
        with torch.no_grad():
            # log variances of about -8: the latents tell images apart, as a trained autoencoder's do
            autoencoder.quant_conv.bias[AUTOENCODER.latent_channels :] = -8.0
    return LatentBase(
        autoencoder=autoencoder.eval(),
        autoencoder_config=AUTOENCODER,
        unet=unet,
        denoiser_config=denoiser,
        convention=SamplerConvention(
            schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            prediction_type=prediction_type,
        ),
        tokens=LetterTokens(),
        size_px=SIZE_PX,
        about={
            "kind": "twinset",
            "name": "tiny",
            "files": {"base.safetensors": str(seed)},
            "data": [],
            "licence": "CC BY 4.0",
            "deviations": ["Tiny."],
        },
    )


def awaken(network: torch.nn.Module) -> None:
    """Gives weights to the layers that start at zero, so that gradients reach what lies behind them."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def accelerator() -> Accelerator:
    return Accelerator(cpu=True, mixed_precision="no")


def logged(out: Path, name: str) -> list[float]:
    """One figure of a run's log, line by line."""
    return [line[name] for line in read_log(out / "log.jsonl")]
