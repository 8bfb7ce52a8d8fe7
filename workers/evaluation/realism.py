"""Realism of made images, whatever their request: copying, diversity, and a Frechet distance."""

from __future__ import annotations

from typing import Any

import numpy as np

from model_store.features import FeatureNetwork, pooled_features
from workers.evaluation.metrics import frechet_distance, nearest_distances
from workers.evaluation.sampling import images_as_tensor, reduce_images

COPY_CHECK_PX = 16
"""Side to which images are reduced before distances are measured: layout and colour, not texture."""


def originality(made: np.ndarray, real: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
    """Median nearest distances (of [0, 1] pixel values, at 16 px) to the training images, of made and real test images.

    Each ``(N, s, s, 3)`` uint8; ``seen`` are the training images. A ratio far below 1 would be copying. ``diversity``
    is made images among themselves, over real test images among themselves.
    """
    a, b, c = (reduce_images(images, COPY_CHECK_PX).reshape(len(images), -1) / 255.0 for images in (made, real, seen))
    to_seen, real_to_seen = np.median(nearest_distances(a, c)), np.median(nearest_distances(b, c))
    figures = {"distance_to_training": rounded(to_seen), "real_test_distance_to_training": rounded(real_to_seen)}
    if min(len(a), len(b)) > 1:
        # the nearest of many is nearer than the nearest of few, so both sides get the same number
        count = min(len(a), len(b))
        among = np.median(nearest_distances(a[:count], a[:count], same=True))
        figures["diversity"] = rounded(among / np.median(nearest_distances(b[:count], b[:count], same=True)))
    return figures


def can_halve(made: np.ndarray, real: np.ndarray) -> bool:
    """Whether there are enough images for :func:`frechet`: both sides are halved, and a covariance takes two."""
    return min(len(made), len(real)) >= 4


def frechet(features: FeatureNetwork, made: np.ndarray, real: np.ndarray, seed: int) -> dict[str, Any]:
    """The Frechet distance of made to real test images in a named feature space, and that of halves of the real ones.

    Images ``(N, s, s, 3)`` uint8, at least 4 on each side; as many of each as the fewer are. Raises ValueError for
    fewer.
    """
    count = min(len(made), len(real))
    if not can_halve(made, real):
        raise ValueError(
            f"a Frechet distance of halves needs at least 4 images on each side, not {count}; leave it out, or "
            "request more"
        )
    a = _pooled(features, made[:count])
    b = _pooled(features, real[:count])
    order = np.random.default_rng(seed).permutation(count)
    half = count // 2
    return {
        "features": features.name,
        "images": count,
        "made_to_real": rounded(frechet_distance(a, b)),
        "made_half_to_real_half": rounded(frechet_distance(a[order[:half]], b[order[half : 2 * half]])),
        "real_half_to_real_half": rounded(frechet_distance(b[order[:half]], b[order[half : 2 * half]])),
    }


def rounded(value: float) -> float | None:
    """Four decimal places; None for NaN and infinity, as JSON has neither."""
    return round(float(value), 4) if np.isfinite(value) else None


def _pooled(features: FeatureNetwork, images: np.ndarray, batch_size: int = 16) -> np.ndarray:
    rows = [
        pooled_features(features, images_as_tensor(images[i : i + batch_size]))
        for i in range(0, len(images), batch_size)
    ]
    return np.concatenate([row.cpu().numpy() for row in rows])
