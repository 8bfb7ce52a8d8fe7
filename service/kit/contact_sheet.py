"""A contact sheet: twins side by side as image, painted mask and overlay, with the prompt and a legend of classes.

Images without a mask stand alone.

Needs pillow alone, so that the service floor can draw one anywhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from model_store.card import IGNORE_INDEX, ClassEntry
from service.kit.image_files import open_image_file
from service.kit.validation import escape_control

MAX_TWINS = 24
"""More would make an image too large for any screen."""

_IGNORE_COLOUR = (70, 70, 74)
_PAPER, _INK, _FAINT = (250, 250, 248), (28, 28, 30), (120, 120, 124)
_OVERLAY_OPACITY = 0.45
_MARGIN, _GAP, _GROUP_GAP, _CAPTION_PX, _LINE_PX = 28, 6, 28, 24, 30
_COLUMNS = ("image", "mask", "overlay")
_IMAGES_A_ROW = 6


@dataclass(frozen=True)
class SheetTwin:
    """One twin on the sheet: its image and mask files (PNG), or the image alone, and a caption."""

    image: Path
    mask: Path | None
    caption: str


def draw_contact_sheet(
    twins: Sequence[SheetTwin],
    classes: Sequence[ClassEntry],
    *,
    title: str,
    subtitle: str = "",
    tile_px: int = 224,
    ignored: str = "unsure",
) -> Image.Image:
    """The sheet as an RGB image: a title, a subtitle, a legend, then one row of three tiles for each twin.

    More than three twins stand in two groups of columns. Where no twin has a mask there are images alone, up to six a
    row, and no legend. The first :data:`MAX_TWINS` are drawn. ``classes`` are the card's; mask pixels of value 255
    belong to none and are painted dark grey, which the legend calls ``ignored``. Raises ValueError where there is no
    twin, or where a mask is not single-channel 8-bit or holds an index that is no class.
    """
    if not twins:
        raise ValueError("a contact sheet needs at least one twin, and was given none")
    shown = twins[:MAX_TWINS]
    drawn = [_tiles(twin, classes) for twin in shown]

    columns = max(len(tiles) for tiles in drawn)
    max_groups = _IMAGES_A_ROW if columns == 1 else 1 if len(shown) <= 3 else 2
    rows = -(-len(shown) // max_groups)
    groups = -(-len(shown) // rows)
    group_width = columns * tile_px + (columns - 1) * _GAP
    # Never narrower than one twin with its mask: the title needs room.
    width = 2 * _MARGIN + max(groups * group_width + (groups - 1) * _GROUP_GAP, 3 * tile_px + 2 * _GAP)
    font, bold, small = _font(16), _font(22), _font(14)
    title_lines = _wrap(title, bold, width - 2 * _MARGIN, max_lines=3)
    legend = _legend_rows(classes, ignored, font, width - 2 * _MARGIN) if columns > 1 else []
    grid_top = _MARGIN + _LINE_PX * (len(title_lines) + bool(subtitle) + len(legend)) + _CAPTION_PX + 8
    row_px = tile_px + _CAPTION_PX + _GAP
    sheet = Image.new("RGB", (width, grid_top + rows * row_px + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)

    y = _MARGIN
    for line in title_lines:
        draw.text((_MARGIN, y), line, fill=_INK, font=bold)
        y += _LINE_PX
    if subtitle:
        draw.text((_MARGIN, y), fit_text(subtitle, font, width - 2 * _MARGIN), fill=_FAINT, font=font)
        y += _LINE_PX
    for entries in legend:
        _draw_legend_row(draw, entries, y, font)
        y += _LINE_PX

    for number, (twin, tiles) in enumerate(zip(shown, drawn, strict=True)):
        group, row = divmod(number, rows)
        left, top = _MARGIN + group * (group_width + _GROUP_GAP), grid_top + row * row_px
        for column, (name, tile) in enumerate(zip(_COLUMNS, tiles, strict=False)):
            x = left + column * (tile_px + _GAP)
            if row == 0:
                draw.text((x, top - _CAPTION_PX), name, fill=_FAINT, font=small)
            # A mask is never interpolated: a blend of two classes would be the colour of a third.
            how = Image.Resampling.LANCZOS if name == "image" else Image.Resampling.NEAREST
            fitted = tile.resize(_within(tile.size, tile_px), how)
            sheet.paste(fitted, (x + (tile_px - fitted.width) // 2, top + (tile_px - fitted.height) // 2))
        draw.text((left, top + tile_px + 3), fit_text(twin.caption, small, group_width), fill=_INK, font=small)
    return sheet


def paint_mask(mask: Image.Image, classes: Sequence[ClassEntry]) -> Image.Image:
    """A mask of class indices (8-bit, one channel) painted in the classes' colours, RGB; 255 becomes dark grey.

    Raises ValueError for another image mode, or an index that is no class.
    """
    if mask.mode not in ("L", "P"):
        raise ValueError(f"a mask is an 8-bit image of one channel (mode L or P), and this one has mode {mask.mode}")
    colours = {entry.index: entry.colour for entry in classes} | {IGNORE_INDEX: _IGNORE_COLOUR}
    unknown_labels = sorted(set(mask.tobytes()) - colours.keys())
    if unknown_labels:
        raise ValueError(
            f"the mask holds index {unknown_labels[0]}, but the classes are 0 to {len(classes) - 1} (255: none)"
        )
    indices = Image.frombytes("P", mask.size, mask.tobytes())
    indices.putpalette([channel for index in range(256) for channel in colours.get(index, (0, 0, 0))])
    return indices.convert("RGB")


def _tiles(twin: SheetTwin, classes: Sequence[ClassEntry]) -> tuple[Image.Image, ...]:
    """Image, painted mask and overlay; or the image alone."""
    with open_image_file(twin.image) as opened:
        image = opened.convert("RGB")
    if twin.mask is None:
        return (image,)
    with open_image_file(twin.mask) as mask:
        painted = paint_mask(mask, classes)
        opacity = bytes(0 if index == IGNORE_INDEX else round(255 * _OVERLAY_OPACITY) for index in range(256))
        cover = Image.frombytes("L", mask.size, mask.tobytes().translate(opacity))
    if painted.size != image.size:
        raise ValueError(f"{twin.image.name} is {image.size} px, but its mask {painted.size}; twins are of one size")
    return image, painted, Image.composite(painted, image, cover)


def _within(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """The largest size with the same aspect ratio that fits in a square."""
    longest = max(size)
    return max(1, round(size[0] * side_px / longest)), max(1, round(size[1] * side_px / longest))


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def fit_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text on one line, cut with an ellipsis to fit ``width`` pixels; control characters are escaped."""
    text = escape_control(text)
    # no letter is narrower than a pixel, and texts of any length come here
    if len(text) <= width and font.getlength(text) <= width:
        return text
    fits = bisect_left(
        range(min(len(text), width)), True, key=lambda length: font.getlength(text[: length + 1] + "...") > width
    )
    return text[:fits].rstrip() + "..."


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, *, max_lines: int) -> list[str]:
    """The text in at most ``max_lines`` lines that fit ``width`` pixels, the last one cut."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < max_lines - 1:
        taken = 1
        while taken < len(words) and font.getlength(" ".join(words[: taken + 1])) <= width:
            taken += 1
        lines.append(fit_text(" ".join(words[:taken]), font, width))
        words = words[taken:]
    return lines + ([fit_text(" ".join(words), font, width)] if words else [])


def _legend_rows(
    classes: Sequence[ClassEntry], ignored: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[list[tuple[int, str, tuple[int, int, int]]]]:
    """The legend's entries as rows of (x, name, colour), as many to a row as fit."""
    rows: list[list[tuple[int, str, tuple[int, int, int]]]] = [[]]
    x = 0
    for name, colour in [(escape_control(entry.name), entry.colour) for entry in classes] + [(ignored, _IGNORE_COLOUR)]:
        needed = 24 + round(font.getlength(name)) + 22
        if x and x + needed > width:
            rows.append([])
            x = 0
        rows[-1].append((_MARGIN + x, name, colour))
        x += needed
    return rows


def _draw_legend_row(
    draw: ImageDraw.ImageDraw,
    row: Sequence[tuple[int, str, tuple[int, int, int]]],
    y: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    for x, name, colour in row:
        draw.rectangle((x, y + 2, x + 16, y + 18), fill=colour, outline=_FAINT)
        draw.text((x + 24, y + 1), name, fill=_INK, font=font)
