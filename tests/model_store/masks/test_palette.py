"""The F-RGB palette: its round trip, how far apart its colours are, and what becomes of unpaintable pixels."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.masks.palette import (
    fibonacci_rgb,
    least_distance,
    nearest_class,
    paint,
)


@pytest.mark.parametrize("count", range(2, 65))
def test_every_class_of_2_to_64_survives_painting_rounding_and_decoding(count: int) -> None:
    colours = fibonacci_rgb(count)
    mask = np.arange(count, dtype=np.uint8).repeat(3).reshape(1, -1)
    as_8_bit = np.rint((paint(mask, colours) + 1) * 127.5)  # what an 8-bit image of the mask stores
    assert np.array_equal(as_8_bit.astype(np.uint8)[0, ::3], colours)
    assert np.array_equal(nearest_class(as_8_bit / 127.5 - 1, colours), mask)


def test_thirteen_classes_lie_at_least_109_steps_apart_and_vocs_21_further_than_vocs_own_colours() -> None:
    assert least_distance(fibonacci_rgb(13)) == pytest.approx(109, abs=1)
    voc = [[0, 0, 0]]
    for label in range(1, 21):  # Pascal VOC's colour map: bits of the label spread over R, G, B from the top down
        voc.append([sum(((label >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)])
    assert least_distance(np.array(voc)) == pytest.approx(64, abs=1)
    assert least_distance(fibonacci_rgb(21)) > least_distance(np.array(voc))


def test_a_class_colour_withstands_noise_of_less_than_half_the_least_distance() -> None:
    colours = fibonacci_rgb(13)
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 13, (64, 64)).astype(np.uint8)
    offset = rng.normal(size=(64, 64, 3))
    offset *= 0.49 * least_distance(colours) / 127.5 / np.linalg.norm(offset, axis=-1, keepdims=True)
    assert np.array_equal(nearest_class(paint(mask, colours) + offset, colours), mask)


def test_ignored_pixels_are_painted_equally_far_from_all_classes() -> None:
    colours = fibonacci_rgb(6)
    grey = paint(np.array([[255]], dtype=np.uint8), colours)[0, 0]
    distances = np.linalg.norm(colours / 127.5 - 1 - grey, axis=1)
    assert distances.max() - distances.min() < 0.02


@pytest.mark.parametrize("count", [0, 1, 256])
def test_palettes_outside_2_to_255_classes_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"not {count}"):
        fibonacci_rgb(count)
