"""Pixels of pairs in training: turns, tensors, and the shares of classes in masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PRESENT_SHARE = 0.005
"""A class counts as present in a mask from this share of its pixels on."""


def class_counts(mask: np.ndarray, count: int) -> np.ndarray:
    """The pixels of each class in a mask, ``(count,)`` uint32; those of no class are in none."""
    return np.bincount(mask.reshape(-1), minlength=256)[:count].astype(np.uint32)


def present_classes(masks: np.ndarray, count: int, share: float = PRESENT_SHARE) -> np.ndarray:
    """``(N, H, W)`` masks -> ``(N, count)`` bool: which classes hold at least ``share`` of the pixels."""
    flat = masks.reshape(len(masks), -1)
    return np.stack([(flat == index).mean(axis=1) >= share for index in range(count)], axis=1)


def clear_rows(shares: np.ndarray, queryable: np.ndarray, margin: float) -> np.ndarray:
    """The rows of class shares ``(N, K)`` in which every queryable class is clearly present or clearly absent.

    ``queryable`` is ``(K,)`` bool. Unclear is a share from :data:`PRESENT_SHARE` / ``margin`` up to it times
    ``margin``: such a class set says little of the image, and a model that learns it draws specks. All rows are
    returned if less than half of them would be left.
    """
    everything = np.arange(len(shares))
    if margin <= 1.0:
        return everything
    asked = shares[:, queryable]
    unclear = ((asked > PRESENT_SHARE / margin) & (asked < PRESENT_SHARE * margin)).any(axis=1)
    return everything if unclear.mean() > 0.5 else everything[~unclear]


def repeat_factors(present: np.ndarray, below: float) -> np.ndarray:
    """The number of times to draw each row, ``(N,)`` float: max(1, sqrt(below / f)) for a class set of frequency f.

    The repeat factors of LVIS (Gupta et al. 2019, section 5), for whole class sets in place of single classes: a model
    that seldom sees a combination draws its more common neighbour instead.
    """
    _, inverse, counts = np.unique(present, axis=0, return_inverse=True, return_counts=True)
    return np.sqrt(below * len(present) / counts[inverse.reshape(-1)]).clip(min=1.0)


def dihedral(pairs: np.ndarray, turn: int) -> np.ndarray:
    """One of the 8 flips and right-angle turns of ``(H, W, ...)``: ``turn`` 0..7, 0 leaves it unchanged."""
    turned = np.rot90(pairs, turn % 4, axes=(0, 1))
    return turned[:, ::-1] if turn >= 4 else turned


def as_images(pixels: np.ndarray, turns: Sequence[int] | None = None) -> Tensor:
    """Images ``(B, s, s, 3)`` uint8 as ``(B, 3, s, s)`` float32 in [-1, 1], flipped and rotated by ``turns`` 0..7."""
    turned = pixels if turns is None else [dihedral(image, turn) for image, turn in zip(pixels, turns, strict=True)]
    return (
        torch.from_numpy(np.stack([np.ascontiguousarray(image) for image in turned])).permute(0, 3, 1, 2).float()
        / 127.5
        - 1.0
    )


def as_indices(masks: np.ndarray, turns: Sequence[int]) -> Tensor:
    """Masks ``(B, s, s)`` uint8 as class indices ``(B, s, s)`` int64, flipped and rotated by ``turns`` 0..7."""
    return torch.from_numpy(
        np.stack([np.ascontiguousarray(dihedral(mask, turn)) for mask, turn in zip(masks, turns, strict=True)])
    ).long()


def draw_turns(count: int, turns: int, generator: torch.Generator) -> list[int]:
    """``count`` random ones of the first ``turns`` flips and right-angle turns; 1 leaves every image unchanged."""
    return torch.randint(turns, (count,), generator=generator).tolist()
