"""Data of super-resolution: real pairs at every size it is used at, and batches of their degraded patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.masks.palette import fibonacci_rgb, paint
from workers.data.listings import DatasetInvalid
from workers.data.pairs import DEFAULT_CACHE_BYTES, FittedPairs, Pair, stacked
from workers.data.pixels import dihedral
from workers.data.tiles import PairDraw, TilePlan
from workers.data.training_set import TrainingSet
from workers.training.input import as_draws, training_rows


@dataclass(frozen=True)
class Pyramid:
    """The same pairs at sizes that double, read when they are asked for; the last ones stay in memory."""

    sizes: tuple[int, ...]
    read: dict[int, FittedPairs]
    draws: tuple[PairDraw, ...]
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.draws)

    def pair(self, size: int, row: int) -> Pair:
        """Image ``(s, s, 3)`` and mask ``(s, s)`` of a row."""
        return self.read[size].pair(self.draws[row])

    def stack(self, size: int, rows: slice | list[int]) -> Pair:
        """Images ``(B, s, s, 3)`` and masks ``(B, s, s)`` of rows."""
        chosen = self.draws[rows] if isinstance(rows, slice) else [self.draws[row] for row in rows]
        return stacked(self.read[size], chosen)

    def pairs(self, size: int, rows: slice | list[int]) -> Tensor:
        """Whole pairs as the network sees them: ``(B, 6, size, size)`` float32 in [-1, 1]."""
        return as_pair(*self.stack(size, rows), self.colours)


def as_pair(images: np.ndarray, masks: np.ndarray, colours: np.ndarray) -> Tensor:
    """uint8 images ``(B, H, W, 3)`` and class indices ``(B, H, W)`` -> ``(B, 6, H, W)`` float32 in [-1, 1]."""
    joined = np.concatenate([images.astype(np.float32) / 127.5 - 1.0, paint(masks, colours)], axis=-1)
    return torch.from_numpy(joined).permute(0, 3, 1, 2).contiguous()


def supported_sizes(data: TrainingSet, split: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Those of ``sizes`` that at least half of the images, or all tiles, have.

    An enlarged image holds no detail to learn from. Raises :class:`DatasetInvalid` when fewer than two sizes are left.
    """
    sides = data.index.sizes[data.rows(data.stems(split))].min(axis=1)
    side = data.fit.tile_px or int(np.median(sides))
    kept = tuple(size for size in sizes if size <= side)
    if len(kept) < 2:
        what = "tiles" if data.fit.tile_px else f"{split} images"
        raise DatasetInvalid(
            f"the {what} of {data.source} are about {side} px; super-resolution from {sizes[0]} px needs at least "
            f"{sizes[1]} px. Give a smaller --base-px, or larger images or tiles"
        )
    return kept


def read_pyramid(
    data: TrainingSet,
    split: str,
    sizes: tuple[int, ...],
    stems: Sequence[str] | None = None,
    *,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    seed: int = 0,
) -> Pyramid:
    """A split (or only ``stems``) at every size: images area-averaged, masks by majority, from full pixels.

    Of tiles, as many are drawn as cover the split once.
    """
    chosen = data.stems(split) if stems is None else tuple(stems)
    share = cache_bytes // sum(4**level for level in range(len(sizes)))
    read = {size: data.pairs(size, chosen, cache_bytes=share * 4**level) for level, size in enumerate(sizes)}
    rows = training_rows(data, chosen, seed)
    count = rows.tiles if isinstance(rows, TilePlan) else len(chosen)
    draws = as_draws([rows[i] for i in range(count)] if isinstance(rows, TilePlan) else range(count))
    return Pyramid(sizes, read, tuple(draws), fibonacci_rgb(len(data.classes)))


def patch_batch(
    pyramid: Pyramid,
    low_size: int,
    *,
    batch: int,
    patch_px: int,
    turns: int,
    generator: torch.Generator,
    factor: int = 2,
) -> tuple[Tensor, Tensor]:
    """Random patches of two sizes: low ``(B, 6, p, p)`` and high ``(B, 6, factor p, factor p)``, clean.

    ``turns``: how many of the 8 flips and right-angle turns are drawn from; 1 leaves every patch as it is.
    """
    patch = min(patch_px, low_size)

    def draw(limit: int) -> list[int]:
        return torch.randint(limit, (batch,), generator=generator).tolist()

    low: list[tuple[np.ndarray, np.ndarray]] = []
    high: list[tuple[np.ndarray, np.ndarray]] = []
    places = low_size - patch + 1
    for row, y, x, turn in zip(draw(len(pyramid)), draw(places), draw(places), draw(turns), strict=True):
        for scale, out in ((1, low), (factor, high)):
            size = scale * low_size
            ys, xs = slice(scale * y, scale * (y + patch)), slice(scale * x, scale * (x + patch))
            image, mask = pyramid.pair(size, row)
            out.append((dihedral(image[ys, xs], turn), dihedral(mask[ys, xs], turn)))
    low_pairs, high_pairs = (
        as_pair(np.stack([image for image, _ in cut]), np.stack([mask for _, mask in cut]), pyramid.colours)
        for cut in (low, high)
    )
    return low_pairs, high_pairs


def degrade(low: Tensor, *, noise: float, blur_px: float, generator: torch.Generator) -> Tensor:
    """Blurs and noises clean pairs as a generator's output is: soft, and with a small Gaussian noise.

    Each sample of ``(B, 6, h, w)`` is blurred by a sigma from U(0, ``blur_px``), then gets noise of a sigma from
    U(0, ``noise``). The paper adds the noise alone (section 3.6).
    """
    count = len(low)
    sigmas = torch.rand((2, count), generator=generator)
    if blur_px > 0.0:
        low = gaussian_blur(low, sigmas[0] * blur_px)
    drawn = torch.randn(low.shape, generator=generator)
    return low + (sigmas[1] * noise).view(-1, 1, 1, 1) * drawn


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int = 3) -> Tensor:
    """Blurs each sample of ``(B, C, h, w)`` by its own sigma, ``(B,)`` in pixels; edges are repeated outwards."""
    batch, channels = x.shape[:2]
    at = torch.arange(-radius, radius + 1, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / sigma.clamp(min=1e-3).view(-1, 1)) ** 2)
    # one row of taps for each (sample, channel), so that one grouped convolution serves the whole batch
    taps = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = F.pad(x.reshape(1, batch * channels, *x.shape[2:]), (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, taps[:, None, None, :], groups=batch * channels)
    return F.conv2d(flat, taps[:, None, :, None], groups=batch * channels).reshape(x.shape)
