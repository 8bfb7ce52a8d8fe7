"""The auxiliary segmenter: a small U-Net trained on real pairs, a second opinion on what a picture shows.

A twin tells one story when the segmenter, shown the made image, finds what the made mask says; measured as mIoU against
its mIoU on real test images at the same size. It is cached, as training it takes minutes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model_store.card import IGNORE_INDEX
from workers.training.data import SegmentationFolder, dihedral
from workers.training.loop import iteration_generator, learning_rate


class SegmenterSettings(BaseModel):
    """All that decides a segmenter; its cache is keyed by them and by the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_px: int = Field(64, ge=16, description="side of the images it sees, a multiple of 8")
    width: int = Field(32, ge=4)
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    jitter: float = Field(0.15, ge=0, description="largest change of brightness and of contrast, of the range [-1, 1]")
    seed: int = 0


def _conv(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Segmenter(nn.Module):
    """U-Net of four levels (width w, 2w, 4w, 6w): RGB ``(B, 3, H, W)`` in [-1, 1] -> logits ``(B, K, H, W)``."""

    def __init__(self, num_classes: int, width: int = 32) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 6 * width]
        self.encoder = nn.ModuleList(
            nn.Sequential(_conv(c_in, c_out), _conv(c_out, c_out)) for c_in, c_out in zip([3, *widths], widths, strict=False)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(_conv(low + high, high), _conv(high, high)) for low, high in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        h, skips = images, []
        for i, level in enumerate(self.encoder):
            h = level(F.max_pool2d(h, 2) if i else h)
            skips.append(h)
        for level, skip in zip(self.decoder, skips[-2::-1], strict=True):
            h = level(torch.cat([F.interpolate(h, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return self.head(h)


@dataclass(frozen=True)
class TrainedSegmenter:
    """A segmenter with the size it works at and the classes it may answer."""

    network: Segmenter
    size_px: int
    answerable: tuple[int, ...]

    @torch.no_grad()
    def predict(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Classes of uint8 images ``(N, s, s, 3)`` of its own size -> ``(N, s, s)`` uint8; only answerable classes.

        Raises ValueError for another size.
        """
        if images.shape[1:3] != (self.size_px, self.size_px):
            raise ValueError(f"this segmenter sees {self.size_px} px images, not {images.shape[1:3]}; resize them first")
        allowed = torch.tensor(self.answerable)
        found = []
        for start in range(0, len(images), batch_size):
            logits = self.network(as_input(images[start : start + batch_size])).float()
            found.append(allowed[logits[:, allowed].argmax(dim=1)].to(torch.uint8))
        return torch.cat(found).numpy()


def as_input(images: np.ndarray) -> Tensor:
    """uint8 ``(B, H, W, 3)`` -> float32 ``(B, 3, H, W)`` in [-1, 1], channels last in memory."""
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1.0).permute(0, 3, 1, 2)


def labels_of(masks: np.ndarray, answerable: tuple[int, ...]) -> np.ndarray:
    """Masks with every class that is not answerable, and 255, as 255: what is neither learnt nor counted."""
    return np.where(np.isin(masks, answerable), masks, IGNORE_INDEX).astype(np.uint8)


def train_segmenter(
    images: np.ndarray,
    masks: np.ndarray,
    num_classes: int,
    answerable: tuple[int, ...],
    settings: SegmenterSettings,
    *,
    has_up: bool,
    on_iteration: Callable[[int, int, float], None] | None = None,
) -> TrainedSegmenter:
    """Trains on uint8 images ``(N, s, s, 3)`` and masks ``(N, s, s)``: cross-entropy over the answerable classes, AdamW, one cycle.

    Turned and flipped where the scenes have no up, else only mirrored. ``on_iteration`` is told (done, total, loss). The
    same settings and data give the same weights on the same machine.
    """
    torch.manual_seed(settings.seed)
    network = Segmenter(num_classes, settings.width).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    labels = labels_of(masks, answerable)
    unanswerable = torch.tensor([index not in answerable for index in range(num_classes)]).view(1, -1, 1, 1)
    turns = (0, 4) if has_up else tuple(range(8))
    rounds = max(1, len(images) // settings.batch_size)
    total = settings.epochs * rounds
    for iteration in range(total):
        generator = iteration_generator(settings.seed, iteration)
        if iteration % rounds == 0:
            order = torch.randperm(len(images), generator=generator).numpy()
        place = iteration % rounds * settings.batch_size
        rows = order[place : place + settings.batch_size]
        drawn = [turns[i] for i in torch.randint(len(turns), (len(rows),), generator=generator).tolist()]
        batch = as_input(np.stack([dihedral(images[row], turn) for row, turn in zip(rows, drawn, strict=True)]))
        target = torch.from_numpy(np.stack([dihedral(labels[row], turn) for row, turn in zip(rows, drawn, strict=True)])).long()
        change = (torch.rand(2, len(rows), 1, 1, 1, generator=generator) * 2 - 1) * settings.jitter
        batch = (batch * (1 + change[0]) + change[1]).to(memory_format=torch.channels_last)
        rate = learning_rate(iteration, base=settings.learning_rate, warmup=min(50, total // 10), total=total, decay_from=0.3)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(batch)
        loss = F.cross_entropy(logits.float().masked_fill(unanswerable, -1e9), target, ignore_index=IGNORE_INDEX)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if on_iteration is not None:
            on_iteration(iteration + 1, total, loss.item())
    return TrainedSegmenter(network.eval(), settings.size_px, answerable)


def cached_segmenter(
    data: SegmentationFolder,
    settings: SegmenterSettings,
    cache: Path,
    *,
    has_up: bool | None = None,
    on_iteration: Callable[[int, int, float], None] | None = None,
) -> TrainedSegmenter:
    """The segmenter of this data's train split, from ``cache`` if it lies there, else trained now and put there."""
    answerable = tuple(entry.index for entry in data.classes if entry.queryable)
    up = data.has_up if has_up is None else has_up
    key = {"settings": settings.model_dump(), "data": data.name, "stems": data.stems("train"), "answerable": answerable, "has_up": up}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"segmenter-{settings.size_px}px-{digest}.safetensors"
    if path.is_file():
        network = Segmenter(len(data.classes), settings.width).to(memory_format=torch.channels_last)
        network.load_state_dict(load_file(path))
        return TrainedSegmenter(network.eval(), settings.size_px, answerable)
    images, masks = data.arrays("train", settings.size_px)
    trained = train_segmenter(images, masks, len(data.classes), answerable, settings, has_up=up, on_iteration=on_iteration)
    cache.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    save_file({name: value.contiguous() for name, value in trained.network.state_dict().items()}, fresh)
    fresh.replace(path)
    return trained
