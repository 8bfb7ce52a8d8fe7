"""Auxiliary classifier: a small convolutional network, trained on real images, that tells an image's label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

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

MAX_CLASSIFIER_PX = 64
"""A label is a matter of colour, texture and layout, which this size still shows."""


class ClassifierSettings(FitSettings):
    """The settings of a classifier; its cache is keyed by them, by the data and by the labels."""

    epochs: int = Field(30, ge=1)
    size_px: int = Field(64, ge=8, description="side of the images it sees")
    width: int = Field(24, ge=4)


class Classifier(nn.Module):
    """RGB ``(B, 3, H, W)`` -> logits ``(B, L)``.

    Four convolutions (w, 2w, 2w, 4w), each at half the side of the last, then the mean.
    """

    def __init__(self, labels: int, width: int = 24) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 2 * width, 4 * width]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
            )
            for c_in, c_out in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], labels)

    def forward(self, images: Tensor) -> Tensor:
        h = images
        for number, layer in enumerate(self.layers):
            h = layer(F.max_pool2d(h, 2) if number else h)
        logits: Tensor = self.head(h.mean(dim=(2, 3)))
        return logits


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier with the size of its images and its labels, in the order of its outputs."""

    network: Classifier
    size_px: int
    labels: tuple[str, ...]

    @torch.no_grad()
    def predict(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """The label's index of each uint8 image ``(N, s, s, 3)`` of the classifier's size: ``(N,)`` int64.

        Raises ValueError for another size.
        """
        if images.shape[1:3] != (self.size_px, self.size_px):
            raise ValueError(
                f"this classifier sees {self.size_px} px images, not {images.shape[1:3]}; resize them first"
            )
        device = self.network.head.weight.device
        parts = [
            images_as_tensor(images[start : start + batch_size]).to(device)
            for start in range(0, len(images), batch_size)
        ]
        return torch.cat([self.network(part).argmax(dim=1).cpu() for part in parts]).numpy()


def inverse_frequencies(targets: np.ndarray, labels: int) -> np.ndarray:
    """Weights ``(L,)`` by which every label that occurs has the same sum over ``targets`` ``(N,)``.

    Their mean over the images is 1.
    """
    counts = np.bincount(targets, minlength=labels).astype(np.float64)
    occurring = np.count_nonzero(counts)
    weights: np.ndarray = np.divide(counts.sum(), occurring * counts, out=np.zeros(labels), where=counts > 0)
    return weights


def train_classifier(
    images: np.ndarray,
    targets: np.ndarray,
    labels: Sequence[str],
    settings: ClassifierSettings,
    *,
    has_up: bool,
    device: torch.device | str = "cpu",
    on_iteration: OnIteration | None = None,
) -> TrainedClassifier:
    """Trains on uint8 images ``(N, s, s, 3)`` and their labels' indices ``(N,)``, by weighted cross-entropy.

    Rare labels weigh more, see :func:`inverse_frequencies`.
    """
    device = torch.device(device)
    torch.manual_seed(settings.seed)
    network = to_channels_last(Classifier(len(labels), settings.width), device)
    weights = torch.tensor(inverse_frequencies(targets, len(labels)), dtype=torch.float32, device=device)

    def loss_of(batch: Batch) -> Tensor:
        target = torch.from_numpy(targets[batch.rows]).to(device)
        losses = F.cross_entropy(network(batch.images(images, device)), target, reduction="none")
        # the plain mean: torch's own weighted one would undo the weights in a batch of one label
        return (losses * weights[target]).mean()

    fit(network, len(images), settings, loss_of, has_up=has_up, on_iteration=on_iteration)
    return TrainedClassifier(network, settings.size_px, tuple(labels))


def cached_classifier(
    data: TrainingSet,
    label_of: dict[str, str],
    labels: Sequence[str],
    settings: ClassifierSettings,
    cache: Path,
    *,
    has_up: bool | None = None,
    device: torch.device | str = "cpu",
    on_iteration: OnIteration | None = None,
) -> TrainedClassifier:
    """The classifier of training images ``label_of`` (stem -> one of ``labels``), from ``cache`` or newly trained."""
    up = data.has_up if has_up is None else has_up
    content = data.content_sha256(list(label_of), masks=False)
    key = {
        "settings": settings.model_dump(),
        "content": content,
        "label_of": label_of,
        "labels": list(labels),
        "has_up": up,
        "fit": data.fit.model_dump(mode="json"),
    }
    path = cached_path(cache, f"classifier-{settings.size_px}px", key)
    network = to_channels_last(Classifier(len(labels), settings.width), device)
    if load_cached(path, network):
        return TrainedClassifier(network, settings.size_px, tuple(labels))
    stems = list(label_of)
    images, _ = data.arrays("train", settings.size_px, stems)
    targets = np.array([list(labels).index(label_of[stem]) for stem in stems], dtype=np.int64)
    trained = train_classifier(images, targets, labels, settings, has_up=up, device=device, on_iteration=on_iteration)
    save_cached(path, trained.network)
    return trained
