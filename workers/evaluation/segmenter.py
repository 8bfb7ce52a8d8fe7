"""Auxiliary segmenter: a small U-Net, trained on real pairs, that tells what an image shows.

Image and mask of a twin agree if the segmenter finds in the image what the mask says; measured as mIoU against its mIoU
on real test images at the same size. It is cached, as training it takes minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from model_store.card import IGNORE_INDEX
from model_store.weights import to_channels_last
from workers.data.training_set import TrainingSet
from workers.evaluation.cache import (
    cached_path,
    load_cached,
    save_cached,
)
from workers.evaluation.fit import (
    Batch,
    FitSettings,
    OnIteration,
    fit,
)
from workers.evaluation.sampling import images_as_tensor


class SegmenterSettings(FitSettings):
    """The settings of a segmenter; its cache is keyed by them and by the data."""

    size_px: int = Field(64, ge=16, description="side of the images it sees, a multiple of 8")
    width: int = Field(32, ge=4)


def _conv(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Segmenter(nn.Module):
    """U-Net of four levels (width w, 2w, 4w, 6w): RGB ``(B, 3, H, W)`` in [-1, 1] -> logits ``(B, K, H, W)``."""

    def __init__(self, num_classes: int, width: int = 32) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 6 * width]
        self.encoder = nn.ModuleList(
            nn.Sequential(_conv(c_in, c_out), _conv(c_out, c_out))
            for c_in, c_out in zip([3, *widths], widths, strict=False)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(_conv(low + high, high), _conv(high, high))
            for low, high in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        h, skips = images, []
        for i, level in enumerate(self.encoder):
            h = level(F.max_pool2d(h, 2) if i else h)
            skips.append(h)
        for level, skip in zip(self.decoder, skips[-2::-1], strict=True):
            h = level(torch.cat([F.interpolate(h, scale_factor=2.0, mode="nearest"), skip], dim=1))
        logits: Tensor = self.head(h)
        return logits


@dataclass(frozen=True)
class TrainedSegmenter:
    """A segmenter with the size of its images and the classes it may answer."""

    network: Segmenter
    size_px: int
    answerable: tuple[int, ...]

    @torch.no_grad()
    def predict(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Classes of uint8 images ``(N, s, s, 3)`` of its size -> ``(N, s, s)`` uint8; only answerable classes.

        Raises ValueError for another size.
        """
        if images.shape[1:3] != (self.size_px, self.size_px):
            raise ValueError(
                f"this segmenter sees {self.size_px} px images, not {images.shape[1:3]}; resize them first"
            )
        device = self.network.head.weight.device
        allowed = torch.tensor(self.answerable, device=device)
        found = []
        for start in range(0, len(images), batch_size):
            logits = self.network(images_as_tensor(images[start : start + batch_size]).to(device)).float()
            found.append(allowed[logits[:, allowed].argmax(dim=1)].to(torch.uint8).cpu())
        return torch.cat(found).numpy()


def labels_of(masks: np.ndarray, answerable: tuple[int, ...]) -> np.ndarray:
    """Masks with 255 in place of every class that is not answerable: such pixels are neither learnt nor counted."""
    return np.where(np.isin(masks, answerable), masks, IGNORE_INDEX).astype(np.uint8)


def train_segmenter(
    images: np.ndarray,
    masks: np.ndarray,
    num_classes: int,
    answerable: tuple[int, ...],
    settings: SegmenterSettings,
    *,
    has_up: bool,
    device: torch.device | str = "cpu",
    on_iteration: OnIteration | None = None,
) -> TrainedSegmenter:
    """Trains on uint8 images ``(N, s, s, 3)`` and masks ``(N, s, s)``: cross-entropy over the answerable classes.

    Turned and flipped where the scenes have no up, else only mirrored. The same settings and data give the same weights
    on the same machine.
    """
    device = torch.device(device)
    torch.manual_seed(settings.seed)
    network = to_channels_last(Segmenter(num_classes, settings.width), device)
    labels = labels_of(masks, answerable)
    unanswerable = torch.tensor([index not in answerable for index in range(num_classes)], device=device).view(
        1, -1, 1, 1
    )

    def loss_of(batch: Batch) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(batch.images(images, device))
        target = batch.masks(labels, device)
        return F.cross_entropy(logits.float().masked_fill(unanswerable, -1e9), target, ignore_index=IGNORE_INDEX)

    fit(network, len(images), settings, loss_of, has_up=has_up, on_iteration=on_iteration)
    return TrainedSegmenter(network, settings.size_px, answerable)


def cached_segmenter(
    data: TrainingSet,
    settings: SegmenterSettings,
    cache: Path,
    *,
    answerable: Sequence[int] | None = None,
    has_up: bool | None = None,
    device: torch.device | str = "cpu",
    on_iteration: OnIteration | None = None,
) -> TrainedSegmenter:
    """The segmenter of this data's train split, from ``cache`` or newly trained.

    ``answerable``: the classes it learns and may answer; by default those that a request may name, so no background.
    """
    classes = (
        tuple(entry.index for entry in data.classes if entry.queryable) if answerable is None else tuple(answerable)
    )
    up = data.has_up if has_up is None else has_up
    stems = data.stems("train")
    content = data.content_sha256(stems)
    key = {
        "settings": settings.model_dump(),
        "classes": len(data.classes),
        "content": content,
        "answerable": classes,
        "has_up": up,
        "fit": data.fit.model_dump(mode="json"),
    }
    path = cached_path(cache, f"segmenter-{settings.size_px}px", key)
    network = to_channels_last(Segmenter(len(data.classes), settings.width), device)
    if load_cached(path, network):
        return TrainedSegmenter(network, settings.size_px, classes)
    images, masks = data.arrays("train", settings.size_px, stems)
    trained = train_segmenter(
        images, masks, len(data.classes), classes, settings, has_up=up, device=device, on_iteration=on_iteration
    )
    save_cached(path, trained.network)
    return trained
