from __future__ import annotations

import numpy as np
import pytest
import torch

from model_store.masks.palette import nearest_class
from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet
from workers.training.superres_data import degrade, gaussian_blur, patch_batch, read_pyramid, supported_sizes


def test_low_and_high_patches_show_the_same_place_under_every_turn(shapes: TrainingSet) -> None:
    pyramid = read_pyramid(shapes, "train", (16, 32, 64))
    generator = torch.Generator().manual_seed(5)
    for size in (16, 32):
        low, high = patch_batch(pyramid, size, batch=32, patch_px=8, turns=8, generator=generator)
        assert low.shape == (32, 6, 8, 8)
        assert high.shape == (32, 6, 16, 16)
        reduced = torch.nn.functional.avg_pool2d(high[:, :3], 2)
        # equal up to the rounding of two averages to 8 bits
        assert (reduced - low[:, :3]).abs().max().item() <= 1.01 * 2 / 127.5


def test_masks_of_patches_are_painted_in_pure_class_colours(shapes: TrainingSet) -> None:
    pyramid = read_pyramid(shapes, "train", (16, 32))
    low, _ = patch_batch(pyramid, 16, batch=8, patch_px=16, turns=1, generator=torch.Generator().manual_seed(1))
    painted = low[:, 3:].permute(0, 2, 3, 1).numpy()
    colours = pyramid.colours / 127.5 - 1.0
    assert np.abs(painted - colours[nearest_class(painted, pyramid.colours)]).max() < 1e-6


def test_degrading_is_the_same_for_the_same_generator_and_within_its_bounds() -> None:
    low = torch.zeros(64, 6, 16, 16)
    one = degrade(low, noise=0.1, blur_px=1.0, generator=torch.Generator().manual_seed(3))
    two = degrade(low, noise=0.1, blur_px=1.0, generator=torch.Generator().manual_seed(3))
    assert torch.equal(one, two)
    spreads = one.flatten(1).std(dim=1)
    assert spreads.max() < 0.105
    assert spreads.min() < 0.02
    assert 0.03 < spreads.mean() < 0.07
    assert torch.equal(degrade(low, noise=0.0, blur_px=0.0, generator=torch.Generator()), low)


def test_blur_spreads_a_point_as_a_gaussian_of_the_samples_own_sigma() -> None:
    x = torch.zeros(2, 6, 15, 15)
    x[:, :, 7, 7] = 1.0
    blurred = gaussian_blur(x, torch.tensor([1e-9, 0.8]))
    assert torch.equal(blurred[0], x[0])
    assert blurred[1, 0].sum().item() == pytest.approx(1.0, abs=1e-5)
    assert (blurred[1, 2, 7, 8] / blurred[1, 2, 7, 7]).item() == pytest.approx(np.exp(-0.5 / 0.64), rel=1e-4)
    flat = torch.full((1, 6, 9, 9), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, torch.tensor([0.7])), flat)


def test_sizes_that_the_images_do_not_have_are_left_out(shapes: TrainingSet) -> None:
    assert supported_sizes(shapes, "train", (16, 32, 64)) == (16, 32, 64)
    assert supported_sizes(shapes, "train", (32, 64, 128)) == (32, 64)
    with pytest.raises(DatasetInvalid, match="needs at least 128 px"):
        supported_sizes(shapes, "train", (64, 128, 256))
