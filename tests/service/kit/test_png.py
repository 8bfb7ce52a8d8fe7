"""PNG: lossless against an independent decoder, with palette and text, and always the same bytes."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.kit.png import encode_image, encode_mask

COLOURS = [(200, 40, 40), (40, 60, 220), (60, 220, 80)]


def smooth(height: int, width: int) -> np.ndarray:
    """A picture with gradients and edges, so that every filter is some row's best."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 3 + y, y * 5, (x * y) // 7], axis=-1).astype(np.uint8)
    image[height // 2 :, : width // 2] = np.random.default_rng(0).integers(
        0, 256, (height - height // 2, width // 2, 3)
    )
    return image


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_an_image_of_any_size_comes_back_as_it_was(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(encode_image(image, {}))) as decoded:
        assert decoded.mode == "RGB"
        assert np.array_equal(np.asarray(decoded), image)


def test_filters_are_used_and_make_a_smooth_image_small() -> None:
    image = smooth(64, 64)
    data = encode_image(image, {"index": 3})
    with Image.open(io.BytesIO(data)) as decoded:
        assert np.array_equal(np.asarray(decoded), image)
    with_pillow = io.BytesIO()
    Image.fromarray(image).save(with_pillow, "PNG")
    assert len(data) < 1.05 * len(with_pillow.getvalue())


def test_a_mask_keeps_its_indices_and_shows_the_cards_colours() -> None:
    mask = np.zeros((9, 7), dtype=np.uint8)
    mask[2:4], mask[5, 5], mask[8] = 1, 2, 255
    with Image.open(io.BytesIO(encode_mask(mask, COLOURS, {}))) as decoded:
        assert decoded.mode == "P"
        assert np.array_equal(np.asarray(decoded), mask)
        shown = np.asarray(decoded.convert("RGB"))
    assert tuple(shown[2, 0]) == COLOURS[1]
    assert tuple(shown[8, 0]) == (255, 255, 255)


def test_the_provenance_is_readable_text_whatever_the_prompt_is_written_in() -> None:
    provenance = {"model": "tiny@1.0.0", "prompt": "eine Straße, 道路 🛰", "seed": 2**53 - 1, "index": 0}
    for data in (
        encode_image(smooth(4, 4), provenance),
        encode_mask(np.zeros((4, 4), dtype=np.uint8), COLOURS, provenance),
    ):
        with Image.open(io.BytesIO(data)) as decoded:
            decoded.load()
            assert json.loads(decoded.text["twinset"]) == provenance


def test_the_order_of_the_provenance_does_not_change_the_bytes() -> None:
    image = smooth(8, 8)
    assert encode_image(image, {"a": 1, "b": 2}) == encode_image(image, {"b": 2, "a": 1})


def test_pixels_that_are_no_image_and_indices_of_no_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not .* float64"):
        encode_image(np.zeros((2, 2, 3)), {})
    with pytest.raises(ValueError, match=r"\(2, 2, 4\)"):
        encode_image(np.zeros((2, 2, 4), dtype=np.uint8), {})
    with pytest.raises(ValueError, match="index 7; there are 3 classes"):
        encode_mask(np.full((2, 2), 7, dtype=np.uint8), COLOURS, {})
