"""Figures of a super-resolution network against bicubic images and nearest-pixel masks, and its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_store.card import IGNORE_INDEX
from model_store.cosimgen.superres import ESPCN, upscale
from model_store.masks.decode import decode_masks, to_pixels
from model_store.masks.palette import nearest_class
from workers.data.image_quality import error_rate, psnr
from workers.training.card_parts import ExportImpossible
from workers.training.superres_data import Pyramid

WEIGHTS_FILE = "superres.safetensors"
ABOUT_FILE = "superres.json"


def bicubic(pair: Tensor, factor: int) -> Tensor:
    """The plain enlargement to compare with: ``(B, C, h, w)`` in [-1, 1] -> ``factor`` times the size."""
    return F.interpolate(pair, scale_factor=factor, mode="bicubic", align_corners=False).clamp(-1.0, 1.0)


def measure(network: ESPCN, pyramid: Pyramid, *, batch_size: int = 8) -> dict[str, Any]:
    """Measures every enlargement among the pyramid's sizes, from clean real pairs.

    Per "64->128" and so on: the images' PSNR in dB (mean over images, 8-bit pixels) of the network and of bicubic; and
    the share of mask pixels that are wrong, decoded free of ghosts, decoded by the nearest colour alone, and for the
    low mask repeated pixel by pixel. The low masks are true ones, so the last is what a mask decoded before enlarging
    would score.
    """
    return {
        f"{low}->{high}": _measure_scale(network, pyramid, low, high, batch_size)
        for i, low in enumerate(pyramid.sizes)
        for high in pyramid.sizes[i + 1 :]
    }


def _measure_scale(network: ESPCN, pyramid: Pyramid, low_size: int, high_size: int, batch_size: int) -> dict[str, Any]:
    factor = high_size // low_size
    colours = torch.from_numpy(pyramid.colours.astype(np.float32) / 127.5 - 1.0)
    ratios: dict[str, list[float]] = {"psnr_db": [], "psnr_bicubic_db": []}
    masks: dict[str, list[np.ndarray]] = {"mask_error": [], "mask_error_nearest_colour": [], "mask_error_repeated": []}
    true: list[np.ndarray] = []
    for start in range(0, len(pyramid), batch_size):
        rows = slice(start, start + batch_size)
        low = pyramid.pairs(low_size, rows)
        high = upscale(network, low, factor.bit_length() - 1)
        real, true_masks = pyramid.stack(high_size, rows)
        true.append(true_masks)
        for name, images in (("psnr_db", high[:, :3]), ("psnr_bicubic_db", bicubic(low[:, :3], factor))):
            ratios[name] += [psnr(a, b, 255.0) for a, b in zip(real, to_pixels(images), strict=True)]
        masks["mask_error"].append(decode_masks(high[:, 3:], low[:, 3:], colours, 0.0)[0].numpy())
        masks["mask_error_nearest_colour"].append(
            nearest_class(high[:, 3:].permute(0, 2, 3, 1).numpy(), pyramid.colours)
        )
        masks["mask_error_repeated"].append(pyramid.stack(low_size, rows)[1].repeat(factor, 1).repeat(factor, 2))
    real_masks = np.concatenate(true)
    figures = {name: round(float(np.mean(values)), 3) for name, values in ratios.items()}
    figures |= {
        name: round(error_rate(real_masks, np.concatenate(found), (IGNORE_INDEX,)), 5) for name, found in masks.items()
    }
    return figures | {"pairs": len(pyramid)}


def comparison_image(network: ESPCN, pyramid: Pyramid) -> np.ndarray:
    """All pairs of a small pyramid, from its smallest size to its largest, as one uint8 RGB image.

    A row a pair: the image repeated, bicubic, by the network, real; then the painted mask repeated, by the network,
    real.
    """
    low_size, high_size = pyramid.sizes[0], pyramid.sizes[-1]
    factor = high_size // low_size
    low = pyramid.pairs(low_size, slice(None))
    repeated = F.interpolate(low, scale_factor=factor, mode="nearest")
    high = upscale(network.cpu(), low, factor.bit_length() - 1)
    real = pyramid.pairs(high_size, slice(None))
    columns = [
        repeated[:, :3],
        bicubic(low, factor)[:, :3],
        high[:, :3],
        real[:, :3],
        repeated[:, 3:],
        high[:, 3:],
        real[:, 3:],
    ]
    wide = np.concatenate([to_pixels(column) for column in columns], axis=2)
    return wide.reshape(-1, *wide.shape[2:])


def load_result(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights of :func:`save_result`. Raises :class:`ExportImpossible` if one is missing or damaged."""
    try:
        about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
        return about, load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError:
        raise ExportImpossible(
            f"{folder} lacks {ABOUT_FILE} or {WEIGHTS_FILE}; give a folder of `twinset train superres`"
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ExportImpossible(f"the super-resolution in {folder} cannot be read ({error}); train it again") from None


def save_result(network: ESPCN, folder: Path, about: dict[str, Any]) -> None:
    """Writes ``superres.safetensors`` (float32, plain names) and ``superres.json`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.detach().contiguous().float() for name, value in network.state_dict().items()},
        folder / WEIGHTS_FILE,
    )
    about = {"format": 1, "network": network.config.model_dump(mode="json"), **about}
    (folder / ABOUT_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
