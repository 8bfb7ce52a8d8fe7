"""A chart of a dataset's statistics: frequencies, co-occurrence, and heat maps of each class. Needs only pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.datasets.statistics_values import ClassStatistics, DatasetStatistics
from service.kit.contact_sheet import fit_text

MAX_CLASSES = 24
"""Only the classes in the most images are shown, so that the chart fits on a screen."""
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
_PAPER, _INK, _FAINT, _EMPTY = (250, 250, 248), (28, 28, 30), (120, 120, 124), (232, 232, 228)
_HOT = np.array([(247, 247, 242), (253, 208, 130), (231, 111, 81), (97, 24, 62)], dtype=np.float64)
_MARGIN, _ROW, _NAME, _BAR, _CELL, _HEAT, _CAPTION = 28, 26, 190, 220, 26, 96, 390


def draw_statistics(statistics: DatasetStatistics, *, title: str = "Dataset") -> Image.Image:
    """The chart, RGB: each class's share of pixels and of images, the matrix P(column | row), and its heat map."""
    order = sorted(statistics.classes, key=lambda one: (-one.images, one.entry.index))[:MAX_CLASSES]
    shown = sorted(order, key=lambda one: one.entry.index)
    count = len(shown)
    matrix_left = _MARGIN + _NAME + 2 * (_BAR + 70) + 40
    width = max(matrix_left + max(_NAME + count * _CELL, _CAPTION) + _MARGIN, 2 * _MARGIN + 8 * (_HEAT + 16))
    per_row = (width - 2 * _MARGIN) // (_HEAT + 16)
    heat_top = _MARGIN + 108 + max(count * _ROW, count * _CELL) + 30
    height = heat_top + 30 + -(-count // per_row) * (_HEAT + 34) + _MARGIN
    chart = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(chart)
    bold, plain, small = (ImageFont.load_default(size) for size in (22, 15, 12))
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=bold)
    hidden = len(statistics.classes) - count
    subtitle = f"{statistics.images} images, {statistics.ignored_share:.1%} of pixels ignored"
    draw.text(
        (_MARGIN, _MARGIN + 32),
        subtitle + (f"; {hidden} rarer classes not shown" if hidden else ""),
        fill=_FAINT,
        font=plain,
    )
    top = _MARGIN + 108
    _bars(draw, shown, top, plain, small)
    _matrix(draw, statistics, shown, matrix_left, top, plain, small)
    draw.text((_MARGIN, heat_top), "Position of each class, in the images that have it", fill=_INK, font=plain)
    for number, one in enumerate(shown):
        row, column = divmod(number, per_row)
        left, y = _MARGIN + column * (_HEAT + 16), heat_top + 28 + row * (_HEAT + 34)
        heat = np.array(one.heat)
        tile = Image.fromarray(_hot(heat / max(heat.max(), 1e-9))).resize((_HEAT, _HEAT), Image.Resampling.NEAREST)
        chart.paste(tile, (left, y))
        draw.text((left, y + _HEAT + 3), fit_text(one.entry.name, small, _HEAT), fill=_INK, font=small)
    return chart


def _bars(
    draw: ImageDraw.ImageDraw,
    shown: list[ClassStatistics],
    top: int,
    font: _Font,
    small: _Font,
) -> None:
    for column, text in enumerate(("share of pixels", "share of images")):
        draw.text((_MARGIN + _NAME + column * (_BAR + 70), top - 22), text, fill=_FAINT, font=small)
    for number, one in enumerate(shown):
        y = top + number * _ROW
        draw.rectangle((_MARGIN, y + 4, _MARGIN + 14, y + 18), fill=one.entry.colour, outline=_FAINT)
        draw.text((_MARGIN + 22, y + 2), fit_text(one.entry.name, font, _NAME - 30), fill=_INK, font=font)
        for column, share in enumerate((one.pixel_share, one.image_share)):
            left = _MARGIN + _NAME + column * (_BAR + 70)
            draw.rectangle((left, y + 4, left + _BAR, y + 18), fill=_EMPTY)
            draw.rectangle((left, y + 4, left + round(_BAR * share), y + 18), fill=one.entry.colour, outline=_FAINT)
            draw.text((left + _BAR + 8, y + 3), f"{share:.1%}", fill=_INK, font=small)


def _matrix(
    draw: ImageDraw.ImageDraw,
    statistics: DatasetStatistics,
    shown: list[ClassStatistics],
    left: int,
    top: int,
    font: _Font,
    small: _Font,
) -> None:
    draw.text(
        (left, top - 66),
        "Co-occurrence: probability of the column's class in images with the row's",
        fill=_FAINT,
        font=small,
    )
    first = left + _NAME
    for number, row in enumerate(shown):
        y = top + number * _CELL
        draw.text((left, y + 4), fit_text(row.entry.name, font, _NAME - 10), fill=_INK, font=font)
        draw.text((first + number * _CELL + 4, top - 20), str(row.entry.index), fill=_FAINT, font=small)
        for index, column in enumerate(shown):
            probability = statistics.cooccurrence[row.entry.index][column.entry.index]
            box = (first + index * _CELL, y, first + (index + 1) * _CELL - 2, y + _CELL - 2)
            if probability is None:
                draw.rectangle(box, fill=_EMPTY)
                continue
            draw.rectangle(box, fill=tuple(_hot(np.array(probability)).tolist()))
            ink = _PAPER if probability > 0.6 else _INK
            draw.text((box[0] + 2, y + 6), f"{100 * probability:.0f}", fill=ink, font=small)


def _hot(values: np.ndarray) -> np.ndarray:
    """Values ``(...)`` in 0..1 as colours ``(..., 3)`` uint8, from pale to dark."""
    position = np.clip(values, 0, 1) * (len(_HOT) - 1)
    low = np.minimum(position.astype(int), len(_HOT) - 2)
    share = (position - low)[..., None]
    mixed: np.ndarray = np.rint(_HOT[low] * (1 - share) + _HOT[low + 1] * share)
    return mixed.astype(np.uint8)
