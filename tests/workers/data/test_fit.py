"""Fits forwards and back: pixels where nothing was resampled, labels that are there, sizes and aspect."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from model_store.masks.resize import majority_resize
from workers.data.fit import Fit, centre_box, chosen_fit, fit_image, fit_mask, put_back, unstretch, whole_box

CROP, STRETCH = Fit(), Fit(kind="stretch")


def pair(width: int, height: int, labels: tuple[int, ...] = (0, 3, 9, 255)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(width * height)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.choice(np.array(labels, dtype=np.uint8), (height, width))


def test_the_crop_of_a_rectangle_is_its_centre_unchanged_at_its_own_size() -> None:
    image, mask = pair(48, 32)
    box = whole_box(CROP, (48, 32))
    assert box == (8, 0, 40, 32)
    assert np.array_equal(fit_image(image, box, 32), image[:, 8:40])
    assert np.array_equal(fit_mask(mask, box, 32), mask[:, 8:40])
    assert np.array_equal(put_back(image, fit_image(image, box, 32), box), image)
    assert np.array_equal(put_back(mask, fit_mask(mask, box, 32), box), mask)


def test_a_stretched_pair_comes_back_at_its_size_and_exactly_where_nothing_was_resampled() -> None:
    image, mask = pair(32, 32)
    box = whole_box(STRETCH, (32, 32))
    square = fit_image(image, box, 32), fit_mask(mask, box, 32)
    back = unstretch(*square, (32, 32))
    assert np.array_equal(back[0], image)
    assert np.array_equal(back[1], mask)
    image, mask = pair(61, 34)
    box = whole_box(STRETCH, (61, 34))
    assert box == (0, 0, 61, 34)
    squeezed = fit_image(image, box, 16), fit_mask(mask, box, 16)
    assert squeezed[0].shape == (16, 16, 3)
    back = unstretch(*squeezed, (61, 34))
    assert (back[0].shape, back[1].shape) == ((34, 61, 3), (34, 61))
    assert set(np.unique(back[1])) <= set(np.unique(mask))


def test_an_object_keeps_its_share_of_both_sides_when_it_is_stretched() -> None:
    mask = np.zeros((20, 80), dtype=np.uint8)
    mask[5:15, 20:60] = 4
    square = fit_mask(mask, whole_box(STRETCH, (80, 20)), 40)
    assert np.argwhere(square == 4).min(axis=0).tolist() == [10, 10]
    assert np.argwhere(square == 4).max(axis=0).tolist() == [29, 29]
    image = np.repeat(mask[..., None] * 50, 3, axis=-1)
    _, back = unstretch(fit_image(image, (0, 0, 80, 20), 40), square, (80, 20))
    assert np.array_equal(back, mask)


@pytest.mark.parametrize("size", [(7, 13), (31, 5), (64, 9), (100, 100)])
def test_no_label_is_invented_at_any_size(size: tuple[int, int]) -> None:
    _, mask = pair(40, 24)
    resized = majority_resize(mask, size)
    assert resized.shape == size[::-1]
    assert set(np.unique(resized)) <= set(np.unique(mask))


def test_a_tile_at_the_images_own_scale_has_its_pixels() -> None:
    image, mask = pair(90, 70)
    fit = Fit(kind="tiles", tile_px=32)
    box = whole_box(fit, (90, 70))
    assert box == centre_box((90, 70), 32) == (29, 19, 61, 51)
    assert fit.scale(32) == 1.0
    assert fit.scale(64) == 2.0
    assert np.array_equal(put_back(image, fit_image(image, box, 32), box), image)
    assert np.array_equal(put_back(mask, fit_mask(mask, box, 32), box), mask)


def test_options_that_do_not_go_together_are_refused_with_what_to_give() -> None:
    assert chosen_fit(None, None, None, {}, 64) == CROP
    assert chosen_fit("tiles", None, None, {}, 64).tile_px == 64
    assert chosen_fit("tiles", None, 2 / 3, {}, 64).tile_px == 96
    with pytest.raises(ValueError, match=r"--tile-px 96 and --scale 0.5 say the same; give one"):
        chosen_fit("tiles", 96, 0.5, {}, 64)
    with pytest.raises(ValueError, match="give --fit tiles with them"):
        chosen_fit("crop", 96, None, {}, 64)
    with pytest.raises(ValidationError, match=r"add up to at most 1, not .*; lower them"):
        chosen_fit("tiles", 96, None, {"a": 0.7, "b": 0.6}, 64)
    with pytest.raises(ValidationError, match="greater than or equal to 8"):
        chosen_fit("tiles", 4, None, {}, 64)
