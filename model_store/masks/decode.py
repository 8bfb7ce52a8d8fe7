"""Decoding of painted masks to class indices, without ghost classes, with a confidence for every pixel.

A blend of two class colours can be near a third class's colour (62 % of the pairs of 13 classes do), so that
blended borders, which every upscaling makes, would grow thin lines of classes that are not there. Hence: decode the
mask at the generated size first; above it, a pixel may only take a class that occurs in the 3 x 3 low-resolution pixels
around it. The paper decodes by the nearest colour alone; the local rule and the confidence are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.card import IGNORE_INDEX

_BAND_ROWS = 256
"""Low-resolution rows that are decoded at once."""


@dataclass(frozen=True)
class Twin:
    """A decoded pair of an image and its mask.

    Image ``(H, W, 3)`` uint8, mask ``(H, W)`` uint8 (255 = ignore), confidence ``(H, W)`` float32 in [0, 1].

    Where the model makes images alone, mask and confidence are None.
    """

    image: np.ndarray
    mask: np.ndarray | None = None
    confidence: np.ndarray | None = None


def colour_distances(painted: Tensor, colours: Tensor) -> Tensor:
    """Euclidean distances of painted pixels to class colours, ``(B, K, H, W)`` float32.

    painted ``(B, 3, H, W)`` and colours ``(K, 3)`` in [-1, 1].
    """
    difference = painted.float()[:, None] - colours.float()[None, :, :, None, None]
    return difference.square().sum(dim=2).sqrt()


def local_classes(low_mask: Tensor, count: int, factor: int) -> Tensor:
    """The classes that occur in the 3 x 3 low-resolution pixels around each pixel.

    low_mask ``(B, h, w)`` int64 class indices -> ``(B, count, h * factor, w * factor)`` bool.
    """
    one_hot = F.one_hot(low_mask, count).permute(0, 3, 1, 2).float()
    near = F.max_pool2d(one_hot, kernel_size=3, stride=1, padding=1)
    return F.interpolate(near, scale_factor=factor, mode="nearest") > 0


def choose(distances: Tensor, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest allowed class of every pixel and the confidence in it.

    distances ``(B, K, H, W)``; allowed ``(B, K, H, W)`` bool, None for all. Returns the class ``(B, H, W)`` int64 and
    the confidence ``(B, H, W)`` in [0, 1]: (d2 - d1) / (d2 + d1), with d1 the distance to the chosen colour and d2 to
    the nearest other allowed colour, or to the nearest other colour of all if only one is allowed.
    """
    candidates = distances if allowed is None else distances.masked_fill(~allowed, torch.inf)
    first, chosen = candidates.min(dim=1)
    rivals = candidates.scatter(1, chosen[:, None], torch.inf).amin(dim=1)
    if allowed is not None:
        others = distances.scatter(1, chosen[:, None], torch.inf).amin(dim=1)
        rivals = torch.where(rivals.isinf(), others, rivals)
    confidence = (rivals - first) / (rivals + first).clamp(min=1e-6)
    return chosen, confidence.clamp(0.0, 1.0)


def decode_masks(high: Tensor, low: Tensor, colours: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Class indices of painted masks at high resolution, free of ghost classes.

    high ``(B, 3, H, W)`` and low ``(B, 3, h, w)`` in [-1, 1], H a multiple of h (equal: plain decoding); colours ``(K,
    3)`` in [-1, 1]. Returns masks ``(B, H, W)`` uint8, 255 where the confidence is below ``threshold``, and the
    confidence.
    """
    factor = high.shape[-1] // low.shape[-1]
    if factor == 1:
        chosen, confidence = choose(colour_distances(high, colours))
    else:
        low_mask, _ = choose(colour_distances(low, colours))
        allowed = local_classes(low_mask, len(colours), factor)
        chosen, confidence = choose(colour_distances(high, colours), allowed)
    masks = chosen.to(torch.uint8).masked_fill(confidence < threshold, IGNORE_INDEX)
    return masks, confidence


def to_pixels(images: Tensor) -> np.ndarray:
    """``(B, 3, H, W)`` in [-1, 1] (beyond is clipped) -> ``(B, H, W, 3)`` uint8."""
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def decode_pairs(high: Tensor, low: Tensor, colours: Tensor, threshold: float) -> list[Twin]:
    """One :class:`Twin` for each pair ``(B, 6, H, W)``, given the pairs ``(B, 6, h, w)`` that were enlarged to them.

    A tall one is decoded in bands of rows, as distances to all colours take many times its own memory.
    """
    factor, rows = high.shape[-2] // low.shape[-2], low.shape[-2]
    bands = []
    for top in range(0, rows, _BAND_ROWS):
        end = min(rows, top + _BAND_ROWS)
        # a pixel's class depends on the next low-resolution row, above and below
        above, below = min(top, 1), min(rows - end, 1)
        painted = high[:, 3:, (top - above) * factor : (end + below) * factor]
        decoded = decode_masks(painted, low[:, 3:, top - above : end + below], colours, threshold)
        bands.append([part[:, above * factor : (above + end - top) * factor] for part in decoded])
    masks, confidence = (torch.cat(parts, dim=1) for parts in zip(*bands, strict=True))
    images = to_pixels(high[:, :3])
    return [
        Twin(image, mask, sure)
        for image, mask, sure in zip(images, masks.cpu().numpy(), confidence.float().cpu().numpy(), strict=True)
    ]
