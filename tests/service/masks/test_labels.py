"""From PNG to class indices: each encoding gives exactly the classes meant, and what is none is refused with its
reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.card import ModelCard
from service.kit.png import encode_mask
from service.masks.labels import read_labels
from service.masks.png_file import MaskRefused, check_png
from service.masks.types import MaskEncoding
from tests.service.api.support import card as plain_card
from tests.service.api.support import mask_card
from tests.service.masks.support import (
    COLOURS,
    POLYPS,
    TISSUE,
    chunk,
    grey_file,
    painted,
    palette_file,
    pillow_file,
    stripes,
)

FOUR, TWO = stripes(classes=4), stripes(classes=2)
GREYS = [(level, level, level) for level in range(256)]
TWO_PAINTED = painted(TWO, [entry.colour for entry in POLYPS.classes])


def read(data: bytes, card: ModelCard = TISSUE, encoding: MaskEncoding = "auto") -> np.ndarray:
    return read_labels(check_png(data, max_side_px=4096), card, encoding)


def with_alpha(pixels: np.ndarray, alpha: int = 255) -> np.ndarray:
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), alpha, dtype=np.uint8)], axis=-1)


def pillow_palette(labels: np.ndarray, palette: list[tuple[int, int, int]]) -> bytes:
    image = Image.fromarray(labels).convert("L")
    image.putpalette([channel for colour in palette for channel in colour])
    return pillow_file(image)


TURNED = [COLOURS[index] for index in (2, 3, 0, 1)]
READ_AS_FOUR: dict[str, tuple[bytes, MaskEncoding]] = {
    "grey indices": (pillow_file(FOUR), "auto"),
    "grey indices of 2 bits": (grey_file(FOUR, depth=2), "auto"),
    "grey indices of 4 bits": (grey_file(FOUR, depth=4), "index"),
    "a palette in the card's order": (pillow_palette(FOUR, COLOURS), "auto"),
    "a palette of 2 bits": (palette_file(FOUR, COLOURS, depth=2), "auto"),
    "a palette of other colours": (pillow_palette(FOUR, [(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)]), "auto"),
    "a palette that is too short for its indices": (palette_file(FOUR, [(1, 2, 3)]), "auto"),
    "one of Twinset's own masks": (encode_mask(FOUR, COLOURS, {"seed": 1}), "auto"),
    "a palette whose indices do not fit": (palette_file(FOUR + 100, [(9, 9, 9)] * 100 + COLOURS), "auto"),
    "a palette by colour, where indices fit too": (palette_file((FOUR + 2) % 4, TURNED), "colours"),
    "a palette by index, whatever its colours": (palette_file(FOUR, TURNED), "index"),
    "the card's colours": (pillow_file(painted(FOUR)), "auto"),
    "the card's colours, said so": (pillow_file(painted(FOUR)), "colours"),
    "the card's colours, opaque": (pillow_file(with_alpha(painted(FOUR))), "auto"),
    "grey and opaque": (pillow_file(np.stack([FOUR, np.full_like(FOUR, 255)], axis=-1)), "auto"),
    "a palette with opaque entries": (palette_file(FOUR, COLOURS, chunk(b"tRNS", b"\xff\xff")), "auto"),
    "a palette whose see-through entry is not used": (
        palette_file(FOUR, [*COLOURS, (0, 0, 0)], chunk(b"tRNS", b"\xff" * 4 + b"\0")),
        "auto",
    ),
    "a see-through grey that is not used": (grey_file(FOUR, chunk(b"tRNS", b"\0\x09")), "auto"),
}


@pytest.mark.parametrize("case", READ_AS_FOUR)
def test_each_encoding_of_four_classes_gives_the_very_same_indices(case: str) -> None:
    data, encoding = READ_AS_FOUR[case]
    labels = read(data, encoding=encoding)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, FOUR)


READ_AS_TWO: dict[str, tuple[bytes, MaskEncoding]] = {
    "one bit": (pillow_file(Image.fromarray(TWO * 255).convert("1")), "auto"),
    "one bit, said so": (pillow_file(Image.fromarray(TWO * 255).convert("1")), "binary"),
    "one bit, as indices": (grey_file(TWO, depth=1), "index"),
    "grey 0 and 255": (pillow_file(TWO * 255), "auto"),
    "grey 0 and 1": (pillow_file(TWO), "auto"),
    "grey 0 and 3 of 2 bits": (grey_file(TWO * 3, depth=2), "auto"),
    "RGB black and white": (pillow_file(painted(TWO, [(0, 0, 0), (255, 255, 255)])), "auto"),
    "palette black and white": (palette_file(TWO, [(0, 0, 0), (255, 255, 255)], depth=1), "auto"),
    "palette white and black, said to be binary": (
        palette_file(1 - TWO, [(255, 255, 255), (0, 0, 0)], depth=1),
        "binary",
    ),
    "palette indices 0 and 255": (palette_file(TWO * 255, GREYS), "auto"),
    "palette indices 0 and 255, in colours": (palette_file(TWO * 255, [(0, 0, 0)] * 255 + [(255, 0, 0)]), "auto"),
    "the card's colours": (pillow_file(TWO_PAINTED), "auto"),
}


@pytest.mark.parametrize("case", READ_AS_TWO)
def test_each_encoding_of_two_classes_gives_the_very_same_indices(case: str) -> None:
    data, encoding = READ_AS_TWO[case]
    assert np.array_equal(read(data, POLYPS, encoding), TWO)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 40), st.integers(0, 2**32 - 1))
def test_any_mask_comes_back_by_index_and_by_colour(side: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (side, side), dtype=np.uint8)
    for data in (
        pillow_file(labels),
        pillow_file(painted(labels)),
        encode_mask(labels, COLOURS, {}),
        grey_file(labels, depth=2),
    ):
        assert np.array_equal(read(data), labels)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def with_pixel(pixels: np.ndarray, x: int, y: int, value: Any) -> np.ndarray:
    changed = pixels.copy()
    changed[y, x] = value
    return changed


REFUSED: dict[str, tuple[bytes, ModelCard, MaskEncoding, list[str]]] = {
    "ignore": (
        pillow_file(with_pixel(with_pixel(FOUR, 3, 2, 255), 4, 4, 255)),
        TISSUE,
        "auto",
        [
            "has 255, 'ignore', at 2 pixels",
            "which a model cannot draw",
            "classes 0 to 3: building, water, vegetation, unlabelled",
        ],
    ),
    "labels of no class": (
        pillow_file(with_pixel(with_pixel(FOUR, 3, 2, 9), 4, 4, 7)),
        TISSUE,
        "auto",
        ["labels that the model does not know: 7, 9; tissue@1.0.0 has classes 0 to 3"],
    ),
    "labels of no class, and ignore": (
        pillow_file(with_pixel(with_pixel(FOUR, 3, 2, 255), 4, 4, 4)),
        TISSUE,
        "index",
        ["does not know: 4;", "; it has 255, 'ignore', at 1 pixel,"],
    ),
    "black and white for four classes": (
        pillow_file(TWO * 255),
        TISSUE,
        "auto",
        ["'ignore'", "black and white can stand only for two classes, and tissue@1.0.0 has 4"],
    ),
    "one bit for four classes": (
        pillow_file(Image.fromarray(TWO * 255).convert("1")),
        ModelCard.model_validate(
            mask_card(classes=[{**entry, "colour": [9, entry["index"], 9]} for entry in mask_card()["classes"]])
        ),
        "auto",
        ["1 bit a pixel", "has 4", "mask_encoding 'index' for black as class 0 and white as class 1"],
    ),
    "an odd colour": (
        pillow_file(with_pixel(painted(FOUR), 5, 9, (18, 52, 86))),
        TISSUE,
        "auto",
        ["has the colour #123456 at x 5, y 9; 1 of its colours is not a class's", "#0000ff water", "without smoothing"],
    ),
    "colour soup": (
        pillow_file(noise()),
        TISSUE,
        "auto",
        [f"#{bytes(noise()[0, 0]).hex()} at x 0, y 0; {len(np.unique(noise().reshape(-1, 3), axis=0))} of its colours"],
    ),
    "colour soup for black and white": (
        pillow_file(noise()),
        POLYPS,
        "binary",
        ["neither black nor white", "threshold"],
    ),
    "RGB for indices": (pillow_file(painted(FOUR)), TISSUE, "index", ["is an RGB image", "mask_encoding 'colours'"]),
    "grey between black and white": (
        pillow_file(with_pixel(TWO * 255, 2, 3, 128)),
        POLYPS,
        "binary",
        ["#808080 at x 2, y 3; 1 of its colours is neither black nor white"],
    ),
    "grey indices for colours": (pillow_file(FOUR), TISSUE, "colours", ["#010101 at x 4, y 0; 3 of its colours"]),
    "a palette of neither": (
        palette_file(FOUR + 4, [(1, 1, 1)] * 8),
        TISSUE,
        "auto",
        ["does not know: 4, 5, 6, 7", "and by the colours of its palette, it has the colour #010101 at x 0, y 0"],
    ),
    "a palette that ends before its index": (
        palette_file(FOUR, COLOURS[:2]),
        TISSUE,
        "colours",
        ["index 2 at x 8, y 0", "no colour"],
    ),
    "a palette whose colours say otherwise": (
        palette_file(FOUR, TURNED),
        TISSUE,
        "auto",
        [
            "is ambiguous",
            "label 0 is 0 (building)",
            "2 (vegetation)",
            "mask_encoding 'index', 'colours' or 'binary'",
        ],
    ),
    "a palette of white and black": (
        palette_file(TWO, [(255, 255, 255), (0, 0, 0)], depth=1),
        POLYPS,
        "auto",
        ["is ambiguous", "label 0 is 0 (ground), by palette colour 1 (polyp)"],
    ),
    "see-through": (
        pillow_file(with_pixel(with_pixel(with_alpha(painted(FOUR)), 3, 2, 0), 7, 6, (255, 0, 0, 254))),
        TISSUE,
        "auto",
        ["is not opaque at 2 pixels, the first at x 3, y 2; save it without transparency"],
    ),
    "see-through grey": (
        pillow_file(np.stack([FOUR, with_pixel(np.full_like(FOUR, 255), 1, 1, 9)], axis=-1)),
        TISSUE,
        "auto",
        ["is not opaque at 1 pixel, the first at x 1, y 1"],
    ),
    "a see-through index": (
        palette_file(FOUR, COLOURS, chunk(b"tRNS", b"\xff\0")),
        TISSUE,
        "auto",
        [f"is not opaque at {int((FOUR == 1).sum())} pixels, the first at x 4, y 0"],
    ),
    "a see-through level": (
        grey_file(FOUR, chunk(b"tRNS", b"\0\x02"), depth=2),
        TISSUE,
        "auto",
        ["the first at x 8, y 0"],
    ),
    "a see-through colour": (
        pillow_file(Image.fromarray(painted(FOUR)), transparency=(0, 0, 0)),
        TISSUE,
        "auto",
        [f"is not opaque at {int((FOUR == 3).sum())} pixels, the first at x 12, y 0"],
    ),
    "transparency of odd length": (
        grey_file(FOUR, chunk(b"tRNS", b"\0")),
        TISSUE,
        "auto",
        ["transparency has 1 bytes, not 2"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_mask_of_the_model_is_refused_with_value_and_remedy(case: str) -> None:
    data, card, encoding, words = REFUSED[case]
    with pytest.raises(MaskRefused) as refused:
        read(data, card, encoding)
    for word in words:
        assert word in str(refused.value)


def test_rows_that_pillow_cannot_unfilter_are_refused() -> None:
    import zlib

    from tests.service.masks.support import file, header

    rows = b"".join(b"\x09" + bytes(16) for _ in range(16))
    with pytest.raises(MaskRefused, match=r"cannot be decoded .*save the file again"):
        read(file(header(16, 16), chunk(b"IDAT", zlib.compress(rows))))


def test_colours_that_are_black_and_white_are_the_cards_before_they_are_binary() -> None:
    classes = [{"index": 0, "name": "sky", "colour": [255, 255, 255]}, {"index": 1, "name": "ink", "colour": [0, 0, 0]}]
    drawn = ModelCard.model_validate(mask_card(classes=classes, palette={"kind": "listed", "count": 2}))
    assert np.array_equal(read(encode_mask(TWO, [(255, 255, 255), (0, 0, 0)], {}), drawn), TWO)
    assert np.array_equal(read(pillow_file(painted(TWO, [(255, 255, 255), (0, 0, 0)])), drawn), TWO)
    assert np.array_equal(read(pillow_file(TWO * 255), drawn, "binary"), TWO)


def test_a_mask_of_one_class_is_read_too() -> None:
    for index in range(4):
        flat = np.full((8, 8), index, dtype=np.uint8)
        assert np.array_equal(read(pillow_file(flat)), flat)
        assert np.array_equal(read(pillow_file(painted(flat))), flat)


def test_the_largest_card_is_read_by_index_and_by_colour() -> None:
    classes = [{"index": i, "name": f"c{i}", "colour": [i, 255 - i, (7 * i) % 256]} for i in range(255)]
    many = ModelCard.model_validate(
        plain_card(classes=classes, inputs=["mask"], palette={"kind": "listed", "count": 255})
    )
    labels = (np.arange(64 * 64) % 255).astype(np.uint8).reshape(64, 64)
    assert np.array_equal(read(pillow_file(labels), many), labels)
    assert np.array_equal(read(pillow_file(painted(labels, [tuple(c["colour"]) for c in classes])), many), labels)
