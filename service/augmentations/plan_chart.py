"""A plan as an image: shares of each class, and real masks beside their transformed ones. Needs Pillow only."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from model_store.card import ClassEntry
from model_store.masks.resize import majority_resize
from service.augmentations.entries import PlanEntry
from service.augmentations.plan import Plan
from service.augmentations.plan_values import ClassShares, PlanShares
from service.augmentations.pool import FOUND_SHARE
from service.augmentations.set_counts import SetCounts
from service.augmentations.transforms.base import TransformArguments
from service.augmentations.transforms.compose import square
from service.kit.contact_sheet import fit_text, paint_mask

MAX_EXAMPLES = 12
MAX_CLASSES = 24
"""Only the classes with the largest targets are shown, so that the image fits a screen."""
_PAPER, _INK, _FAINT, _REAL = (250, 250, 248), (28, 28, 30), (120, 120, 124), (232, 232, 228)
_MARGIN, _GAP, _TILE, _EXAMPLES_PER_ROW = 28, 6, 128, 4
_BAR, _BAR_HEIGHT, _NAME, _LINE = 520, 9, 190, 22
_PAIR = 2 * _TILE + _GAP
_CAPTION = 40
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_NOT_SHOWN = frozenset({"resize", "fill_ignored"})


@dataclass(frozen=True, eq=False)
class Example:
    """A real mask ``(s, s)`` and the mask made from it ``(s, s)``, uint8 of the card's indices, and how in words."""

    real: np.ndarray
    made: np.ndarray
    how: str


def first_entries(plan: Plan) -> list[PlanEntry]:
    """The first entries of a plan, from which its examples are taken; none if the model draws all masks."""
    if False not in plan.candidates:
        return []
    return list(plan.next(SetCounts.empty(len(plan.card.classes)), 2 * MAX_EXAMPLES))


def examples(plan: Plan, first: Sequence[PlanEntry]) -> list[Example]:
    """Transformed masks of the ``first`` entries of a plan; if it has none, those of other sources."""
    made = [entry for entry in first if entry.labels is not None]
    shown = [entry for entry in made if entry.wanted.source == "transformed"] or made
    return [_example(plan, entry) for entry in shown[:MAX_EXAMPLES]]


def draw_plan(
    shares: PlanShares, shown: Sequence[Example], classes: Sequence[ClassEntry], *, title: str = "Augmentation plan"
) -> bytes:
    """Draws a plan as a PNG: the real, target and planned share of each class, the notes, and the examples."""
    font, bold, small = (ImageFont.load_default(size) for size in (15, 22, 12))
    order = sorted(shares.classes, key=lambda one: (-max(one.target or 0, one.real), one.index))[:MAX_CLASSES]
    shown_classes = sorted(order, key=lambda one: one.index)
    width = 2 * _MARGIN + max(_NAME + _BAR + 240, min(_EXAMPLES_PER_ROW, max(1, len(shown))) * (_PAIR + 3 * _GAP))
    notes = [line for note in shares.notes for line in _wrapped(note, font, width - 2 * _MARGIN)]
    class_height = 3 * _BAR_HEIGHT + 16
    bars_top = _MARGIN + 96
    notes_top = bars_top + len(shown_classes) * class_height + 12
    tiles_top = notes_top + len(notes) * _LINE + (14 if notes else 0)
    lines = -(-len(shown) // _EXAMPLES_PER_ROW)
    height = tiles_top + (32 + lines * (_TILE + _CAPTION) if shown else 0) + _MARGIN
    image = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, _MARGIN - 4), fit_text(title, bold, width - 2 * _MARGIN), fill=_INK, font=bold)
    draw.text((_MARGIN, _MARGIN + 28), _subtitle(shares), fill=_FAINT, font=font)
    _draw_legend(draw, bars_top - 30, shares, small)
    largest = max([0.01, *(value for one in shown_classes for value in (one.real, one.target or 0, one.planned))])
    for number, one in enumerate(shown_classes):
        _draw_class(draw, one, bars_top + number * class_height, largest, font, small)
    for number, line in enumerate(notes):
        draw.text((_MARGIN, notes_top + number * _LINE), line, fill=_INK, font=font)
    if shown:
        draw.text((_MARGIN, tiles_top), "Real masks, and the masks made from them", fill=_INK, font=font)
    for number, example in enumerate(shown):
        row, column = divmod(number, _EXAMPLES_PER_ROW)
        left, top = _MARGIN + column * (_PAIR + 3 * _GAP), tiles_top + 28 + row * (_TILE + _CAPTION)
        for place, labels in enumerate((example.real, example.made)):
            painted = paint_mask(Image.fromarray(labels), classes)
            tile = ImageOps.contain(painted, (_TILE, _TILE), Image.Resampling.NEAREST)
            image.paste(tile, (left + place * (_TILE + _GAP), top))
        for row, line in enumerate(_wrapped(example.how, small, _PAIR)[:2]):
            draw.text((left, top + _TILE + 3 + 14 * row), line, fill=_INK, font=small)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _example(plan: Plan, entry: PlanEntry) -> Example:
    assert entry.labels is not None
    labels, (height, width) = plan.pool.segmentation(entry.wanted.item).labels, entry.labels.shape
    real = square(labels, height) if height == width else majority_resize(labels, (width, height))
    return Example(real, entry.labels, _how(entry))


def _how(entry: PlanEntry) -> str:
    """The transforms of a mask in few words: "flip, rotate 7, clone 2"."""
    words = []
    for step in entry.applied:
        name = step["transform"]
        if name in _NOT_SHOWN:
            continue
        words.append(name + (_NUMBERS[name](step) if name in _NUMBERS else ""))
    return ", ".join(words) or "unchanged"


_NUMBERS: dict[str, Callable[[TransformArguments], str]] = {
    "scale": lambda step: f" x {step['factor']:.2f}",
    "rotate": lambda step: f" {step['degrees']:.0f}\N{DEGREE SIGN}",
    "shift": lambda step: f" {step['across_px']}, {step['down_px']} px",
    "drop": lambda step: f" {len(step['at'])}",
    "clone": lambda step: f" {len(step['clones'])}",
    "merge": lambda step: f" {len(step['objects'])}",
    "place": lambda step: f" {len(step['objects'])}",
    "resize_objects": lambda step: f" {len(step['objects'])}",
}
"""What to print of a transform's arguments behind its name."""


def _subtitle(shares: PlanShares) -> str:
    sources = ", ".join(
        f"{share:.0%} {'drawn by the model' if name == 'classes' else name}" for name, share in shares.sources.items()
    )
    return (
        f"{shares.count} twins, at most {shares.max_samples} samples, from {shares.items} real items; masks: {sources}"
    )


def _draw_legend(draw: ImageDraw.ImageDraw, top: int, shares: PlanShares, font: _Font) -> None:
    of = (
        "pixels; planned in the class's colour"
        if shares.by == "pixels"
        else f"images with {FOUND_SHARE:.1%} of it or more"
    )
    left = _MARGIN + _NAME
    for text, fill, outline in (("real", _REAL, _FAINT), ("target", _PAPER, _INK), ("planned", _FAINT, _FAINT)):
        draw.rectangle((left, top + 3, left + 18, top + 3 + _BAR_HEIGHT), fill=fill, outline=outline)
        draw.text((left + 24, top), text, fill=_FAINT, font=font)
        left += 24 + round(font.getlength(text)) + 22
    draw.text((left, top), f"shares of {of}", fill=_FAINT, font=font)
    draw.text((_MARGIN + _NAME + _BAR + 12, top), "real, target, planned", fill=_FAINT, font=font)


def _draw_class(
    draw: ImageDraw.ImageDraw,
    one: ClassShares,
    top: int,
    largest: float,
    font: _Font,
    small: _Font,
) -> None:
    draw.rectangle((_MARGIN, top + 5, _MARGIN + 14, top + 19), fill=one.colour, outline=_FAINT)
    draw.text((_MARGIN + 22, top + 3), fit_text(one.name, font, _NAME - 30), fill=_INK, font=font)
    left = _MARGIN + _NAME
    bars = ((one.real, _REAL, _FAINT), (one.target, _PAPER, _INK), (one.planned, one.colour, _FAINT))
    for number, (share, fill, outline) in enumerate(bars):
        y = top + number * (_BAR_HEIGHT + 1)
        if share is not None:
            draw.rectangle(
                (left, y, left + max(1, round(_BAR * share / largest)), y + _BAR_HEIGHT), fill=fill, outline=outline
            )
    target = "free" if one.target is None else f"{one.target:.1%}"
    figures = f"{one.real:.1%}, {target}, {one.planned:.1%}" + ("" if one.met else "  not met")
    draw.text((left + _BAR + 12, top + 8), figures, fill=_INK if one.met else (176, 42, 34), font=small)


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    """The text in lines of at most ``width`` pixels; a wider word is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(fit_text(word, font, width))
    return [line for line in lines if line]
