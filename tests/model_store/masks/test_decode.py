"""Decoding painted masks: ghost classes at blended borders, and the confidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model_store.masks.decode import (
    choose,
    colour_distances,
    decode_masks,
    decode_pairs,
)
from model_store.masks.palette import fibonacci_rgb, nearest_class, paint

COLOURS = fibonacci_rgb(13)
POINTS = torch.from_numpy(COLOURS).float() / 127.5 - 1


def blobs(size: int, seed: int, classes: int = 13) -> np.ndarray:
    """A smooth random map of regions, the same at every size: the class whose low-frequency field is highest."""
    fields = torch.randn(1, classes, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (
        F.interpolate(fields, size=(size, size), mode="bicubic", align_corners=False)[0]
        .argmax(dim=0)
        .numpy()
        .astype(np.uint8)
    )


def test_blended_borders_grow_no_class_that_is_not_there_where_plain_nearest_colour_does() -> None:
    wrong = {"plain": 0.0, "ours": 0.0, "blocks": 0.0}
    ghosts = {"plain": 0.0, "ours": 0.0}
    for seed in range(6):
        truth = blobs(256, seed)
        low_mask = blobs(64, seed)
        low = torch.from_numpy(paint(low_mask, COLOURS)).permute(2, 0, 1)[None]
        high = F.interpolate(low, scale_factor=4, mode="bicubic", align_corners=False)
        plain = nearest_class(high[0].permute(1, 2, 0).numpy(), COLOURS)
        ours = decode_masks(high, low, POINTS, threshold=0.0)[0][0].numpy()
        near = (
            F.max_pool2d(F.one_hot(torch.from_numpy(truth).long(), 13).permute(2, 0, 1)[None].float(), 13, 1, 6)[0] > 0
        )
        wrong["blocks"] += float((low_mask.repeat(4, 0).repeat(4, 1) != truth).mean()) / 6
        for name, found in (("plain", plain), ("ours", ours)):
            wrong[name] += float((found != truth).mean()) / 6
            there = near.gather(0, torch.from_numpy(found).long()[None])[0]
            ghosts[name] += float((~there).float().mean()) / 6
    assert ghosts["plain"] > 0.005  # the trouble is real
    assert ghosts["ours"] == 0.0
    # plain decoding of the enlarged colours is worse than repeating low-resolution pixels; ours is better than that
    assert wrong["ours"] < wrong["blocks"] < wrong["plain"]
    assert wrong["ours"] < 0.75 * wrong["plain"]


def test_more_than_half_of_the_class_pairs_blend_to_a_third_class() -> None:
    pairs = [(i, j) for i in range(13) for j in range(i)]
    midpoints = torch.stack([(POINTS[i] + POINTS[j]) / 2 for i, j in pairs]).T[None, :, None]
    chosen, _ = choose(colour_distances(midpoints, POINTS))
    third = sum(int(c) not in pair for c, pair in zip(chosen[0, 0], pairs, strict=True))
    assert third / len(pairs) == pytest.approx(0.62, abs=0.03)


def test_confidence_is_1_on_a_class_colour_and_0_halfway_between_two() -> None:
    halfway = (POINTS[0] + POINTS[1]) / 2
    distances = colour_distances(torch.stack([POINTS[0], halfway])[:, :, None, None], POINTS[:2])
    _, confidence = choose(distances)
    assert confidence[0].item() == pytest.approx(1.0, abs=1e-4)
    assert confidence[1].item() == pytest.approx(0.0, abs=1e-4)


def test_confidence_by_hand() -> None:
    # distances 0.2 and 0.6 -> (0.6 - 0.2) / (0.6 + 0.2); where one class alone is allowed, its rival is the nearest
    # other
    distances = torch.tensor([0.2, 0.6, 0.3]).view(1, 3, 1, 1)
    assert choose(distances[:, :2])[1].item() == pytest.approx(0.5)
    allowed = torch.tensor([False, True, False]).view(1, 3, 1, 1)
    chosen, confidence = choose(distances, allowed)
    assert chosen.item() == 1
    assert confidence.item() == 0.0  # a forbidden class lies nearer: no confidence at all


def test_pixels_below_the_threshold_become_ignore_and_the_others_keep_their_class() -> None:
    painted = torch.stack([POINTS[3], (POINTS[3] + POINTS[8]) / 2 + 1e-3], dim=1)[None, :, None]
    masks, _ = decode_masks(painted, painted, POINTS[[3, 8]], threshold=0.1)
    assert masks[0, 0].tolist() == [0, 255]


def test_the_given_image_comes_back_to_the_8_bit_value() -> None:
    mask = blobs(32, 0)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    pair = np.concatenate([image / 127.5 - 1, paint(mask, COLOURS)], axis=-1)
    x0 = torch.from_numpy(pair).float().permute(2, 0, 1)[None]
    (twin,) = decode_pairs(x0, x0, POINTS, threshold=0.1)
    assert np.array_equal(twin.image, image)
    assert np.array_equal(twin.mask, mask)
    assert twin.confidence.min() > 0.99
