"""Copies are found and other images are not; the search is exact, and can be restored from bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from service.augmentations.fingerprints import distance, fingerprint, fingerprint_of
from service.augmentations.near_duplicates import DEFAULT_BITS, NearDuplicates, NearestMatch

SHEETS = Path(__file__).parents[3] / "model_store" / "bundled"


def tiles_of_the_sheet() -> list[Image.Image]:
    """Quarters of the aerial images on the bundled model's sample sheet."""
    (sheet_file,) = (SHEETS / "cosimgen-dubai").glob("*/samples.png")
    with Image.open(sheet_file) as opened:
        sheet = opened.convert("RGB")
    corners = [(left, top) for left in (22, 562) for top in (114, 307, 500, 692)]
    quarters = [(x + across, y + down) for x, y in corners for across in (0, 83) for down in (0, 83)]
    return [sheet.crop((x, y, x + 83, y + 83)) for x, y in quarters]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(io.BytesIO(out.getvalue()))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": lambda image: jpeg(image, 50),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.12),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "half": lambda image: image.resize((80, 80), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((240, 240), Image.Resampling.BICUBIC),
}


def test_copies_are_near_and_other_images_are_far() -> None:
    tiles = tiles_of_the_sheet()
    marks = [fingerprint(tile) for tile in tiles]
    apart = [distance(one, other) for number, one in enumerate(marks) for other in marks[:number]]
    assert len(tiles) == 32
    assert min(apart) > 2 * DEFAULT_BITS
    assert np.median(apart) == pytest.approx(128, abs=6)
    for name, change in CHANGES.items():
        copied = [distance(fingerprint(change(tile)), mark) for tile, mark in zip(tiles, marks, strict=True)]
        assert max(copied) <= DEFAULT_BITS, name


def test_images_of_the_same_mask_are_not_copies() -> None:
    """Cells of one mask, each image with its own texture."""
    rows, columns = np.mgrid[:128, :128]
    rng = np.random.default_rng(3)
    mask = np.zeros((128, 128), dtype=np.uint8)
    for row, column in rng.uniform(0, 128, (14, 2)):
        mask[(rows - row) ** 2 + (columns - column) ** 2 < 120] = 1

    def drawn(seed: int) -> Image.Image:
        texture = Image.fromarray(np.random.default_rng(seed).normal(0, 9, (32, 32)).astype(np.float32))
        grey = np.where(mask == 1, 70.0, 180.0) + np.asarray(texture.resize((128, 128), Image.Resampling.BICUBIC))
        return Image.fromarray(np.stack([grey, 0.8 * grey, grey], axis=-1).clip(0, 255).astype(np.uint8))

    one, other = drawn(1), drawn(2)
    assert distance(fingerprint(one), fingerprint(other)) <= DEFAULT_BITS
    assert distance(fingerprint(one, mask), fingerprint(other, mask)) > 2 * DEFAULT_BITS
    for name, change in CHANGES.items():
        # also with another size than the mask
        assert distance(fingerprint(change(one), mask), fingerprint(one, mask)) <= DEFAULT_BITS, name
    flat = np.zeros((9, 9), dtype=np.uint8)
    assert distance(fingerprint(one, flat), fingerprint(one)) <= 2


def test_the_fingerprint_against_an_explicit_cosine_transform() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    side = np.arange(64)
    waves = np.cos(np.pi * (2 * side[None, :] + 1) * np.arange(16)[:, None] / 128)
    frequencies = np.array([[float((np.outer(down, across) * pixels).sum()) for across in waves] for down in waves])
    frequencies[0] /= np.sqrt(2)
    frequencies[:, 0] /= np.sqrt(2)
    flat = frequencies.reshape(-1)
    expected = flat > np.median(flat[1:])
    found = np.unpackbits(fingerprint(Image.fromarray(pixels)).view(np.uint8), bitorder="little").astype(bool)
    clear = np.abs(flat - np.median(flat[1:])) > 1
    assert np.array_equal(found[clear], expected[clear])
    assert clear.sum() > 250


def test_image_files_and_undecodable_bytes() -> None:
    (tile, *_) = tiles_of_the_sheet()
    out = io.BytesIO()
    tile.save(out, "PNG")
    assert np.array_equal(fingerprint_of(out.getvalue()), fingerprint(tile))
    for bad in (b"", b"no image", out.getvalue()[:200]):
        with pytest.raises(ValueError, match="cannot be decoded"):
            fingerprint_of(bad)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 700), st.integers(0, 256))
def test_the_search_finds_the_nearest(seed: int, count: int, within: int) -> None:
    rng = np.random.default_rng(seed)
    # few different words, so that there are near ones, equal ones and ties
    words = rng.integers(0, 2**64, (count, 4), dtype=np.uint64) & np.uint64(0x0F0F000F000000FF)
    index = NearDuplicates()
    assert [index.add(word) for word in words] == list(range(count))
    query = rng.integers(0, 2**64, 4, dtype=np.uint64) & np.uint64(0x0F0F000F000000FF)
    apart = [distance(query, word) for word in words]
    best = min(apart, default=999)
    expected = NearestMatch(apart.index(best), best) if best <= within else None
    assert index.find(query, within) == expected
    again = NearDuplicates.from_bytes(index.to_bytes())
    assert len(again) == len(index) == count
    assert again.find(query, within) == expected
    assert again.add(query) == count
    assert again.find(query, 0) == NearestMatch(apart.index(0) if 0 in apart else count, 0)


def test_bytes_of_another_kind_are_refused() -> None:
    index = NearDuplicates()
    index.add(np.arange(4, dtype=np.uint64))
    good = index.to_bytes()
    assert len(good) == 16 + 32
    for bad in (b"", good[:-1], good + b"\0", b"XXXX" + good[4:], good[:4] + b"\x09" + good[5:]):
        with pytest.raises(ValueError, match="compute them again"):
            NearDuplicates.from_bytes(bad)
