"""From a PNG to the class index of every pixel.

A file encodes classes by index, by the card's colours, or in black and white. If the request does not say which, and
two readings differ, the file is refused: a mask that is silently misread spoils every twin made from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model_store.card import IGNORE_INDEX, ModelCard
from model_store.masks.encodings import (
    BLACK,
    WHITE,
    AmbiguousSamples,
    Form,
    Meaning,
    Table,
    by_black_and_white,
    by_colours,
    only_reading,
)
from service.kit.validation import join_list
from service.masks.png_file import RGB, RGB_ALPHA, MaskRefused, PngFile, in_pixels
from service.masks.raster import Colour, Raster, TooManyColours, read_raster
from service.masks.types import MaskEncoding

_MAX_NAMES = 12
_SAVE_INDICES = "or save its class indices as an 8-bit PNG of one channel"

_TWO = Meaning(2)
"""Black is class 0 and white class 1."""


def read_labels(file: PngFile, card: ModelCard, encoding: MaskEncoding) -> np.ndarray:
    """The class indices ``(s, s)`` uint8 of a mask, all of them classes of ``card``.

    Raises :class:`MaskRefused` for a file that cannot be read in this encoding.
    """
    if encoding == "index" and file.colour in (RGB, RGB_ALPHA):
        raise MaskRefused("is an RGB image, which has no class indices; give mask_encoding 'colours', " + _SAVE_INDICES)
    try:
        raster = read_raster(file)
    except TooManyColours as error:
        raise MaskRefused(
            _unknown_colour(*error.unknown_colours(_known_colours(card, encoding)), card, encoding)
        ) from None
    readers = {"auto": _auto, "index": _by_index, "colours": _by_colours, "binary": _binary}
    table = readers[encoding](raster, card)
    classes = np.zeros(256, dtype=np.uint8)
    classes[[int(sample) for sample in table]] = list(table.values())
    labels: np.ndarray = classes[raster.samples]
    return labels


def _auto(raster: Raster, card: ModelCard) -> Table:
    try:
        return only_reading(_form(raster), _meaning(card)) or _nothing_fits(raster, card)
    except AmbiguousSamples as error:
        raise MaskRefused(
            f"is ambiguous: by index its label {error.sample:g} is {_named(error.by_index, card)}, by palette colour "
            f"{_named(error.by_colour, card)}; say which with mask_encoding 'index', 'colours' or 'binary'"
        ) from None


def _by_index(raster: Raster, card: ModelCard) -> Table:
    last = len(card.classes) - 1
    has = f"{card.id} has classes 0 to {last}: {_names(card)}"
    faults = []
    if unknown_labels := [str(sample) for sample in raster.counts if sample > last and sample != IGNORE_INDEX]:
        faults.append(f"has labels that the model does not know: {join_list(unknown_labels)}; {has}")
    if unsure := raster.counts.get(IGNORE_INDEX):
        faults.append(
            f"has 255, 'ignore', at {in_pixels(unsure)}, which a model cannot draw; give each pixel a class. {has}"
        )
    if faults:
        raise MaskRefused("; it ".join(faults))
    return {sample: sample for sample in raster.counts}


def _by_colours(raster: Raster, card: ModelCard) -> Table:
    return by_colours(_form(raster), _meaning(card)) or _no_colour_of(raster, card, "colours")


def _binary(raster: Raster, card: ModelCard) -> Table:
    return by_black_and_white(_form(raster), _TWO) or _no_colour_of(raster, card, "binary")


def _form(raster: Raster) -> Form:
    return Form(raster.kind, raster.depth, raster.colours)


def _meaning(card: ModelCard) -> Meaning:
    return Meaning(len(card.classes), {entry.colour: entry.index for entry in card.classes})


def _no_colour_of(raster: Raster, card: ModelCard, encoding: MaskEncoding) -> Table:
    """Raises :class:`MaskRefused`, which names the first pixel whose colour is not one of the encoding."""
    known = _known_colours(card, encoding)
    unknown_labels = [sample for sample, colour in raster.colours.items() if colour not in known]
    sample, place = raster.first_of(unknown_labels)
    colour = raster.colours[sample]
    if colour is None:
        x, y = place
        raise MaskRefused(
            f"has index {sample} at x {x}, y {y}, for which its palette has no colour; save the file again"
        )
    raise MaskRefused(_unknown_colour(len(unknown_labels), colour, place, card, encoding))


def _known_colours(card: ModelCard, encoding: MaskEncoding) -> Sequence[Colour]:
    return (BLACK, WHITE) if encoding == "binary" else [entry.colour for entry in card.classes]


def _unknown_colour(count: int, colour: Colour, place: tuple[int, int], card: ModelCard, encoding: MaskEncoding) -> str:
    """The message for an image with ``count`` unknown colours, the first of them ``colour`` at ``place``."""
    x, y = place
    where = f"has the colour {_hex(colour)} at x {x}, y {y}"
    are = "is" if count == 1 else "are"
    if encoding == "binary":
        return (
            f"{where}; {count} of its colours {are} neither black nor white, and a binary mask has only these: "
            "apply a threshold"
        )
    colours = join_list([f"{_hex(entry.colour)} {entry.name}" for entry in card.classes], max_items=_MAX_NAMES)
    return (
        f"{where}; {count} of its colours {are} not a class's. Use exactly the colours of {card.id}, without smoothing "
        f"({colours}), {_SAVE_INDICES}"
    )


def _nothing_fits(raster: Raster, card: ModelCard) -> Table:
    """Raises :class:`MaskRefused` with the most helpful reason for an image that no encoding fits."""
    two_tone = set(raster.colours.values()) <= {BLACK, WHITE}
    only_of_two = f"black and white can stand only for two classes, and {card.id} has {len(card.classes)}"
    if raster.kind == "grey" and raster.depth == 1:
        raise MaskRefused(
            f"has 1 bit a pixel, and {only_of_two}; save its class indices as an 8-bit PNG, or give mask_encoding "
            "'index' for black as class 0 and white as class 1"
        )
    if raster.kind == "rgb":
        return _by_colours(raster, card)
    try:
        return _by_index(raster, card)
    except MaskRefused as by_index:
        if raster.kind == "palette":
            try:
                return _by_colours(raster, card)
            except MaskRefused as by_colours:
                raise MaskRefused(f"{by_index}; and by the colours of its palette, it {by_colours}") from None
        raise MaskRefused(
            f"{by_index}; {only_of_two}" if two_tone and len(card.classes) != 2 else str(by_index)
        ) from None


def _names(card: ModelCard) -> str:
    return join_list([entry.name for entry in card.classes], max_items=_MAX_NAMES)


def _named(index: int, card: ModelCard) -> str:
    return f"{index} ({card.classes[index].name})"


def _hex(colour: Colour) -> str:
    return f"#{bytes(colour).hex()}"
