"""The contact sheet: colours are the card's, a mask is never blended, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFont

from model_store.card import ClassEntry
from service.kit.contact_sheet import (
    MAX_TWINS,
    SheetTwin,
    draw_contact_sheet,
    fit_text,
    paint_mask,
)

CLASSES = (
    ClassEntry(index=0, name="land", colour=(200, 40, 40)),
    ClassEntry(index=1, name="water", colour=(40, 60, 220)),
)


def twin(folder: Path, number: int = 0, *, mask: bytes = bytes([0, 1, 1, 255])) -> SheetTwin:
    """A twin of 2 by 2 pixels, its image all (100, 100, 100)."""
    image_path, mask_path = folder / f"image-{number}.png", folder / f"mask-{number}.png"
    Image.new("RGB", (2, 2), (100, 100, 100)).save(image_path)
    Image.frombytes("L", (2, 2), mask).save(mask_path)
    return SheetTwin(image_path, mask_path, f"{number}   land 25 %")


def test_a_mask_is_painted_in_its_classes_colours() -> None:
    painted = paint_mask(Image.frombytes("L", (2, 2), bytes([0, 1, 1, 255])), CLASSES)
    assert [painted.getpixel((x, y)) for y in (0, 1) for x in (0, 1)][:3] == [
        (200, 40, 40),
        (40, 60, 220),
        (40, 60, 220),
    ]
    assert painted.getpixel((1, 1)) == (70, 70, 74)


def test_the_palette_inside_a_png_does_not_matter_only_its_indices() -> None:
    mask = Image.frombytes("P", (2, 1), bytes([1, 0]))
    mask.putpalette([9, 9, 9] * 256)
    assert paint_mask(mask, CLASSES).getpixel((0, 0)) == (40, 60, 220)


def test_a_foreign_index_and_a_colour_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="index 2, but the classes are 0 to 1"):
        paint_mask(Image.frombytes("L", (1, 1), bytes([2])), CLASSES)
    with pytest.raises(ValueError, match="mode RGB"):
        paint_mask(Image.new("RGB", (1, 1)), CLASSES)


def test_a_row_is_image_mask_and_overlay(tmp_path: Path) -> None:
    sheet = draw_contact_sheet([twin(tmp_path)], CLASSES, title="A photo of land", tile_px=100)
    # One group of three 100 px tiles, 6 px apart, within margins of 28 px.
    assert sheet.width == 2 * 28 + 3 * 100 + 2 * 6
    top = sheet.height - 28 - 6 - 24 - 100
    left_of = [28, 28 + 106, 28 + 212]
    assert sheet.getpixel((left_of[0] + 50, top + 50)) == (100, 100, 100)
    # The mask is enlarged by repetition: either side of the middle there is one class's colour and nothing between.
    assert sheet.getpixel((left_of[1] + 49, top + 20)) == (200, 40, 40)
    assert sheet.getpixel((left_of[1] + 50, top + 20)) == (40, 60, 220)
    # The overlay has 45 % of the class's colour, and the image alone where no class is sure.
    assert sheet.getpixel((left_of[2] + 20, top + 20)) == pytest.approx((145, 73, 73), abs=1)
    assert sheet.getpixel((left_of[2] + 80, top + 80)) == (100, 100, 100)


def test_pictures_that_are_not_square_keep_their_proportions(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2), (100, 100, 100)).save(tmp_path / "image.png")
    Image.frombytes("L", (4, 2), bytes([0, 0, 1, 1] * 2)).save(tmp_path / "mask.png")
    twins = [SheetTwin(tmp_path / "image.png", tmp_path / "mask.png", "")]
    sheet = draw_contact_sheet(twins, CLASSES, title="t", tile_px=100, ignored="ignore")
    grey = [
        place
        for place in ((x, y) for x in range(sheet.width) for y in range(sheet.height))
        if sheet.getpixel(place) == (100,) * 3
    ]
    across, down = zip(*grey, strict=True)
    assert (max(across) - min(across), max(down) - min(down)) == (99, 49)


def test_a_line_of_text_stays_one() -> None:
    font = ImageFont.load_default(14)
    assert fit_text("new\nline\u202e", font, 300) == r"new\nline\u202e"
    cut = fit_text("long " * 10_000, font, 100)
    assert cut.endswith("...")
    assert font.getlength(cut) <= 100 < font.getlength("long " + cut)


def test_many_twins_stand_in_two_groups_and_only_the_first_are_drawn(tmp_path: Path) -> None:
    twins = [twin(tmp_path, number) for number in range(MAX_TWINS + 5)]
    full = draw_contact_sheet(twins, CLASSES, title="all", tile_px=90)
    assert full.size == draw_contact_sheet(twins[:MAX_TWINS], CLASSES, title="all", tile_px=90).size
    few = draw_contact_sheet(twins[:3], CLASSES, title="all", tile_px=90)
    assert full.width == 2 * few.width - 2 * 28 + 28
    assert full.height - few.height == (MAX_TWINS // 2 - 3) * (90 + 24 + 6)


def test_images_without_masks_stand_alone_up_to_six_a_row(tmp_path: Path) -> None:
    alone = [SheetTwin(twin(tmp_path, number).image, None, str(number)) for number in range(8)]
    sheet = draw_contact_sheet(alone, CLASSES, title="only images", tile_px=100)
    # Two rows of four images, 28 px apart, and no legend of classes.
    assert sheet.width == 2 * 28 + 4 * 100 + 3 * 28
    assert sheet.height == 28 + 30 + 24 + 8 + 2 * (100 + 24 + 6) + 28
    top = sheet.height - 28 - 6 - 24 - 100
    for column in range(4):
        assert sheet.getpixel((28 + column * 128 + 50, top + 50)) == (100, 100, 100)
        assert sheet.getpixel((28 + column * 128 + 50, top - 80)) == (100, 100, 100)
    assert (200, 40, 40) not in {colour for _, colour in sheet.getcolors(1 << 20) or []}
    one = draw_contact_sheet(alone[:1], CLASSES, title="one image", tile_px=100)
    assert one.width == 2 * 28 + 3 * 100 + 2 * 6


def test_an_image_without_a_mask_leaves_its_places_empty_among_others(tmp_path: Path) -> None:
    first, second = twin(tmp_path, 0), twin(tmp_path, 1)
    sheet = draw_contact_sheet([first, SheetTwin(second.image, None, "1")], CLASSES, title="both", tile_px=100)
    top = sheet.height - 28 - 6 - 24 - 100
    assert sheet.getpixel((28 + 50, top + 50)) == (100, 100, 100)
    assert sheet.getpixel((28 + 106 + 50, top + 50)) == (250, 250, 248)
    assert sheet.getpixel((28 + 106 + 20, top - 130 + 20)) == (200, 40, 40)


def test_a_long_prompt_is_wrapped_and_cut_rather_than_painted_over_the_edge(tmp_path: Path) -> None:
    prompt = "A photo of " + "very " * 200 + "long roads"
    sheet = draw_contact_sheet([twin(tmp_path)], CLASSES, title=prompt, tile_px=100)
    margin = sheet.crop((sheet.width - 28, 0, sheet.width, 140))
    assert margin.getcolors() == [(28 * 140, (250, 250, 248))]


def test_no_twins_and_twins_of_two_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one twin"):
        draw_contact_sheet([], CLASSES, title="none")
    odd = twin(tmp_path)
    Image.new("L", (4, 4)).save(odd.mask)
    with pytest.raises(ValueError, match="one size"):
        draw_contact_sheet([odd], CLASSES, title="odd")
