"""From a PNG to the class index of every pixel.

A file tells classes by index, by the card's colours, or in black and white. Where it is not said which, and a file can
be read in two ways that differ, it is refused: a mask that is silently read wrong spoils every twin made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from model_store.card import IGNORE_INDEX, ModelCard
from service.kit.validation import join_list
from service.masks.png_file import RGB, RGB_ALPHA, MaskRefused, PngFile, in_pixels
from service.masks.raster import Colour, Raster, TooManyColours, read_raster
from service.masks.types import MaskEncoding

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
_NAMES_SHOWN = 12
_SAVE_INDICES = "or save its class indices as an 8-bit PNG of one channel"

Table = dict[int, int]
"""The class index of each sample that occurs."""


def read_labels(file: PngFile, card: ModelCard, encoding: MaskEncoding) -> np.ndarray:
    """The class indices ``(s, s)`` uint8 of a mask for the model of ``card``, all of them classes of it.

    Raises :class:`MaskRefused` for a file that cannot be read so.
    """
    if encoding == "index" and file.colour in (RGB, RGB_ALPHA):
        raise MaskRefused(
            "is an RGB picture, which holds no class indices; give mask_encoding 'colours', " + _SAVE_INDICES
        )
    try:
        raster = read_raster(file)
    except TooManyColours as soup:
        raise MaskRefused(
            _no_classes_colour(*soup.unknown_labels(_told_by_colour(card, encoding)), card, encoding)
        ) from None
    readers = {"auto": _auto, "index": _by_index, "colours": _by_colours, "binary": _binary}
    table = readers[encoding](raster, card)
    classes = np.zeros(256, dtype=np.uint8)
    classes[list(table)] = list(table.values())
    return classes[raster.samples]


def _auto(raster: Raster, card: ModelCard) -> Table:
    shows = _if_it_fits(_by_colours, raster, card)
    if shows is None and len(card.classes) == 2:
        shows = _if_it_fits(_binary, raster, card)
    # One bit of grey is what a picture in black and white comes in, and no sign that its samples were meant as indices.
    if raster.kind == "rgb" or (raster.kind == "grey" and raster.depth == 1):
        return shows or _nothing_fits(raster, card)
    stores = _if_it_fits(_by_index, raster, card)
    if raster.kind == "palette" and stores and shows and stores != shows:
        sample = next(sample for sample in stores if stores[sample] != shows[sample])
        raise MaskRefused(
            f"can be read in two ways: by index its label {sample} is {_named(stores[sample], card)}, by the colour of its "
            f"palette {_named(shows[sample], card)}; say which with mask_encoding 'index', 'colours' or 'binary'"
        )
    return stores or shows or _nothing_fits(raster, card)


def _by_index(raster: Raster, card: ModelCard) -> Table:
    last = len(card.classes) - 1
    has = f"{card.id} has classes 0 to {last}: {_names(card)}"
    faults = []
    if unknown_labels := [str(sample) for sample in raster.counts if sample > last and sample != IGNORE_INDEX]:
        faults.append(f"holds labels that the model does not have, {join_list(unknown_labels)}; {has}")
    if unsure := raster.counts.get(IGNORE_INDEX):
        faults.append(
            f"holds 255, 'ignore', at {in_pixels(unsure)}, and a model cannot draw 'ignore'; give each a class. {has}"
        )
    if faults:
        raise MaskRefused("; it ".join(faults))
    return {sample: sample for sample in raster.counts}


def _by_colours(raster: Raster, card: ModelCard) -> Table:
    classes = {entry.colour: entry.index for entry in card.classes}
    return _table(raster, classes, card, "colours")


def _binary(raster: Raster, card: ModelCard) -> Table:
    if raster.kind == "palette" and set(raster.counts) <= {0, 255} and set(raster.colours.values()) - {BLACK, WHITE}:
        return {sample: int(sample == 255) for sample in raster.counts}
    return _table(raster, {BLACK: 0, WHITE: 1}, card, "binary")


def _table(raster: Raster, classes: dict[Colour, int], card: ModelCard, encoding: MaskEncoding) -> Table:
    """The class of each sample by its colour. Raises :class:`MaskRefused` naming the first colour that has none."""
    unknown_labels = [sample for sample, colour in raster.colours.items() if colour not in classes]
    if unknown_labels:
        sample, place = raster.first_of(unknown_labels)
        colour = raster.colours[sample]
        if colour is None:
            x, y = place
            raise MaskRefused(f"has index {sample} at x {x}, y {y}, for which its palette has no colour; save it anew")
        raise MaskRefused(_no_classes_colour(len(unknown_labels), colour, place, card, encoding))
    return {sample: classes[colour] for sample, colour in raster.colours.items() if colour is not None}


def _told_by_colour(card: ModelCard, encoding: MaskEncoding) -> Sequence[Colour]:
    return (BLACK, WHITE) if encoding == "binary" else [entry.colour for entry in card.classes]


def _no_classes_colour(
    count: int, colour: Colour, place: tuple[int, int], card: ModelCard, encoding: MaskEncoding
) -> str:
    """What is wrong with a picture of which ``count`` colours stand for nothing, ``colour`` at ``place`` the first."""
    x, y = place
    where = f"has the colour {_hex(colour)} at x {x}, y {y}"
    are = "is" if count == 1 else "are"
    if encoding == "binary":
        return f"{where}; {count} of its colours {are} neither black nor white, and a binary mask has these alone: draw a threshold"
    colours = join_list([f"{_hex(entry.colour)} {entry.name}" for entry in card.classes], most=_NAMES_SHOWN)
    return (
        f"{where}; {count} of its colours {are} no class's. Paint it in exactly those of {card.id}, without smoothing "
        f"({colours}), {_SAVE_INDICES}"
    )


def _if_it_fits(read: Callable[[Raster, ModelCard], Table], raster: Raster, card: ModelCard) -> Table | None:
    try:
        return read(raster, card)
    except MaskRefused:
        return None


def _nothing_fits(raster: Raster, card: ModelCard) -> Table:
    """Raises :class:`MaskRefused` with the reason that says most about a picture which is read in no way."""
    two_tone = set(raster.colours.values()) <= {BLACK, WHITE}
    only_of_two = (
        f"black and white tell classes apart only where a model has two, and {card.id} has {len(card.classes)}"
    )
    if raster.kind == "grey" and raster.depth == 1:
        raise MaskRefused(
            f"is of 1 bit a pixel, and {only_of_two}; save its class indices as an 8-bit PNG, or give mask_encoding 'index' "
            "for black as class 0 and white as class 1"
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
    return join_list([entry.name for entry in card.classes], most=_NAMES_SHOWN)


def _named(index: int, card: ModelCard) -> str:
    return f"{index} ({card.classes[index].name})"


def _hex(colour: Colour) -> str:
    return f"#{bytes(colour).hex()}"
