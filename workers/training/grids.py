"""Sample grids of CoSimGen: pairs made for a few conditions, as one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_store.card import SamplerConvention
from model_store.cosimgen.network import CoSimGenNetwork
from model_store.diffusion.ddim import DDIM
from model_store.diffusion.sampling import sample


def pairs_image(x: Tensor) -> np.ndarray:
    """``(B, 6, h, w)`` in [-1, 1] -> one ``(2 h, B w, 3)`` uint8 image: images above, painted masks below."""
    pixels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().permute(0, 2, 3, 1).numpy()
    return np.concatenate(
        [np.concatenate(list(pixels[..., :3]), axis=1), np.concatenate(list(pixels[..., 3:]), axis=1)], axis=0
    )


def sample_grid(
    network: CoSimGenNetwork,
    convention: SamplerConvention,
    multi_hot: Tensor,
    path: Path,
    *,
    steps: int = 25,
    guidance_scale: float = 1.0,
) -> None:
    """Samples one pair for each class set ``(B, K)``, seeds 0..B-1, and writes their image to ``path``."""
    with torch.no_grad():
        condition, null = (
            network.class_encoder(multi_hot).float(),
            network.class_encoder(torch.zeros_like(multi_hot)).float(),
        )
        made = sample(
            lambda x, t, condition: network(x, t, condition["class"]),
            DDIM(convention, multi_hot.device),
            {"class": condition},
            {"class": null},
            range(len(multi_hot)),
            network.config.sample_shape,
            steps=steps,
            guidance_scale=guidance_scale,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pairs_image(made)).save(path)
