"""Grids of images with headings and captions, for a look at what the figures measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model_store.card import ClassEntry
from service.kit.contact_sheet import paint_mask

TILE_PX = 160
_PAPER, _INK, _FAINT = (250, 250, 248), (28, 28, 30), (120, 120, 124)
_MARGIN, _GAP, _GROUP_GAP, _LINE_PX, _SMALL_PX = 24, 6, 28, 28, 22


@dataclass(frozen=True)
class Row:
    """Tiles side by side, and a line under them."""

    tiles: Sequence[Image.Image]
    caption: str = ""


def image_tile(image: np.ndarray, tile_px: int = TILE_PX) -> Image.Image:
    """An image ``(s, s, 3)`` uint8 at the size of a tile."""
    return Image.fromarray(image).resize((tile_px, tile_px), Image.Resampling.LANCZOS)


def mask_tile(mask: np.ndarray, classes: Sequence[ClassEntry], tile_px: int = TILE_PX) -> Image.Image:
    """A mask ``(s, s)`` uint8 in its classes' colours; not interpolated, as a blend may be a third class's colour."""
    return paint_mask(Image.fromarray(mask), classes).resize((tile_px, tile_px), Image.Resampling.NEAREST)


def draw_grid(
    rows: Sequence[Row],
    headings: Sequence[str],
    *,
    title: str,
    lines: Sequence[str] = (),
    groups: int = 1,
    tile_px: int = TILE_PX,
) -> Image.Image:
    """A sheet: title, ``lines`` of text, then the rows under their ``headings``, in ``groups`` side by side.

    Every row has at most as many tiles as there are headings. Raises ValueError if there are no rows.
    """
    if not rows:
        raise ValueError("a grid needs at least one row of images, and none is given")
    groups = min(groups, len(rows))
    down = -(-len(rows) // groups)
    group_width = len(headings) * (tile_px + _GAP) - _GAP
    width = 2 * _MARGIN + max(groups * (group_width + _GROUP_GAP) - _GROUP_GAP, 4 * TILE_PX)
    top = _MARGIN + _LINE_PX + _SMALL_PX * len(lines) + 2 * _GAP + _SMALL_PX
    row_px = tile_px + _GAP + (_SMALL_PX if any(row.caption for row in rows) else 0)
    sheet = Image.new("RGB", (width, top + down * row_px + _MARGIN), _PAPER)
    draw, font, bold = ImageDraw.Draw(sheet), ImageFont.load_default(14), ImageFont.load_default(20)
    draw.text((_MARGIN, _MARGIN), _fitted(title, bold, width - 2 * _MARGIN), fill=_INK, font=bold)
    for number, line in enumerate(lines):
        corner = (_MARGIN, _MARGIN + _LINE_PX + number * _SMALL_PX)
        draw.text(corner, _fitted(line, font, width - 2 * _MARGIN), fill=_FAINT, font=font)
    for number, row in enumerate(rows):
        group, place = divmod(number, down)
        left, y = _MARGIN + group * (group_width + _GROUP_GAP), top + place * row_px
        for column, (tile, heading) in enumerate(zip(row.tiles, headings, strict=False)):
            x = left + column * (tile_px + _GAP)
            if place == 0:
                draw.text((x, y - _SMALL_PX), _fitted(heading, font, tile_px), fill=_FAINT, font=font)
            sheet.paste(tile, (x, y))
        draw.text((left, y + tile_px + 2), _fitted(row.caption, font, group_width), fill=_INK, font=font)
    return sheet


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, cut with an ellipsis to fit ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."
