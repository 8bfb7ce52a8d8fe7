"""How the masks of a dataset encode classes: decided once, from a sample of them.

A single mask of only 0 and 255 may be black and white, or class 0 with pixels to ignore; the other masks show which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

from model_store.masks.encodings import BLACK, WHITE, Form, Meaning, by_black_and_white, by_colours, by_index
from service.datasets.classes import IGNORE, ClassList
from service.datasets.reading.mask_samples import MaskSummary
from service.errors import InvalidDataset

T = TypeVar("T")
MaskEncoding = Literal["index", "colours", "binary", "alpha"]
"""``alpha``: one colour everywhere, transparent where the background is."""
THRESHOLD = 128
"""The level from which a smoothed black-and-white mask counts as white."""
MAX_BETWEEN = 0.2
"""The maximum share of pixels that are neither nearly black nor nearly white in a black-and-white mask."""
MAX_SAMPLED = 64
_DARK, _LIGHT = 32, 224
_IGNORE_COLOURS = (WHITE, (224, 224, 192))
"""White, which Twinset uses, and Pascal VOC's void, unless a class has that colour."""


def meaning_of(classes: ClassList) -> Meaning:
    """What samples may stand for. Black is the background of two classes, unless their own colours say otherwise."""
    colours = {entry.colour: entry.index for entry in classes.classes}
    dark = 0 if classes.background is None or len(classes) != 2 else classes.background.index
    if BLACK in colours and WHITE in colours:
        dark = colours[BLACK]
    return Meaning(len(classes), dict.fromkeys(_IGNORE_COLOURS, IGNORE) | colours, dark, 1 - dark, ignore=True)


def form_of(mask: MaskSummary) -> Form:
    """The samples that occur in a mask, with their colours."""
    return Form(mask.kind, mask.depth, mask.colours)


def spread(masks: Sequence[T]) -> list[T]:
    """Up to :data:`MAX_SAMPLED` of the masks, evenly from the first to the last."""
    if len(masks) <= MAX_SAMPLED:
        return list(masks)
    return [masks[position * (len(masks) - 1) // (MAX_SAMPLED - 1)] for position in range(MAX_SAMPLED)]


def between(levels: Mapping[float, int]) -> float:
    """The share of a grey mask's pixels that are neither nearly black nor nearly white, 0 to 1.

    It is 1 if they outnumber the nearly white ones: borders are narrower than what they surround.
    """
    grey = sum(count for level, count in levels.items() if not (0 <= level < _DARK or _LIGHT <= level <= 255))
    light = sum(count for level, count in levels.items() if _LIGHT <= level <= 255)
    return 1.0 if grey > light else grey / sum(levels.values())


def decide_encoding(
    sampled: Mapping[str, MaskSummary], classes: ClassList, *, own: bool, by_palette: bool
) -> MaskEncoding:
    """The encoding of a dataset's masks, by name. Raises InvalidDataset if only transparency tells several classes."""
    meaning = meaning_of(classes)
    if not own and _only_alpha_tells(sampled):
        if len(classes) != 2:
            raise InvalidDataset(
                f"the masks, {_first(sampled)}, have one colour and tell classes by transparency alone, which "
                f"stands for two classes, but {len(classes)} are listed; save the class index of each pixel as an "
                "8-bit grey PNG"
            )
        return "alpha"
    coloured = sum(_is_coloured(mask, meaning, by_palette) for mask in sampled.values())
    if coloured:
        plain = sum(
            set(mask.counts) != {0} and not _is_coloured(mask, meaning, by_palette) for mask in sampled.values()
        )
        return "colours" if coloured >= plain else "index"
    return "index" if own else _of_grey(sampled, meaning, classes)


def _of_grey(sampled: Mapping[str, MaskSummary], meaning: Meaning, classes: ClassList) -> MaskEncoding:
    """The encoding of masks without colours, or of palettes that say nothing."""
    masks = [mask for mask in sampled.values() if set(mask.counts) != {0}]
    indexed = [mask for mask in masks if _holds_indices(mask, meaning)]
    if not masks or any(IGNORE in mask.counts for mask in indexed):
        return "index"  # classes beside pixels to ignore: 255 is no white
    own_colours = Meaning(len(classes), {entry.colour: entry.index for entry in classes.classes})
    if not indexed and all(by_colours(form_of(mask), own_colours) for mask in masks):
        return "colours"
    two_tone = [mask for mask in masks if mask not in indexed and _is_two_tone(mask, meaning)]
    white = any(mask.kind == "palette" or mask.lossy or max(mask.levels) >= THRESHOLD for mask in two_tone)
    return "binary" if white and len(classes) == 2 and len(two_tone) > len(indexed) else "index"


def look_again(sampled: Mapping[str, MaskSummary], classes: ClassList, encoding: MaskEncoding) -> None:
    """Raises InvalidDataset if nothing sensible would come out of masks by this encoding, whatever each of them is."""
    meaning, listed = meaning_of(classes), ", ".join(classes.names[:5])
    values = {value for mask in sampled.values() if mask.kind != "rgb" for value in mask.levels}
    if encoding == "index" and len(classes) == 1 and values - {0}:
        raise InvalidDataset(
            f"the only class that is listed is {listed}, and the masks hold {_values(values)}: list the background "
            f"too, before it, such as 'background' and '{listed}'"
        )
    indices = {value for mask in sampled.values() if mask.kind != "rgb" for value in mask.counts} - {IGNORE}
    if encoding == "index" and classes.background is None and max(indices, default=0) == len(classes) > 1:
        raise InvalidDataset(
            f"the masks hold {_values(indices)}, but {len(classes)} classes are listed, for 0 to {len(classes) - 1} "
            f"({listed}{', ...' if len(classes) > 5 else ''}), and none is the background: list it too, before them, "
            f"such as 'background' and '{classes.names[0]}'"
        )
    if encoding == "index" and len(classes) > 2 and IGNORE in values and values <= {0, IGNORE}:
        raise InvalidDataset(
            f"the masks, {_first(sampled)}, are black and white (0 and 255), which stands for two classes, but "
            f"{len(classes)} are listed: {listed}{', ...' if len(classes) > 5 else ''}. Write the index of its class "
            "in place of 255, or list only the two that the masks tell apart"
        )
    if encoding == "colours" and ClassList.of(classes.names).colours == classes.colours:
        known = [mask for mask in sampled.values() if by_colours(form_of(mask), meaning) is not None]
        strange = {colour for mask in sampled.values() for colour in mask.colours.values() if colour} - set(
            meaning.colours
        )
        if not known and strange:
            raise InvalidDataset(
                f"the masks, {_first(sampled)}, are painted in colours such as "
                f"{', '.join('#' + bytes(colour).hex() for colour in sorted(strange)[:5])}, and the list of classes "
                "has no colours; list each class with its colour, as lines name,r,g,b in class_dict.csv"
            )


def mostly_light(sampled: Mapping[str, MaskSummary]) -> bool:
    """Whether white covers most of every black-and-white mask, as it does where the object is black."""
    shares = [
        sum(count for level, count in mask.levels.items() if level >= THRESHOLD) / sum(mask.counts.values())
        for mask in sampled.values()
        if mask.kind == "grey"
    ]
    return bool(shares) and min(shares) > 0.5


def _only_alpha_tells(sampled: Mapping[str, MaskSummary]) -> bool:
    see_through = [mask for mask in sampled.values() if mask.see_through]
    return 2 * len(see_through) > len(sampled) and all(len(mask.counts) == 1 for mask in see_through)


def _is_coloured(mask: MaskSummary, meaning: Meaning, by_palette: bool) -> bool:
    return mask.kind == "rgb" or (by_palette and mask.kind == "palette" and _has_own_numbering(mask, meaning))


def _has_own_numbering(mask: MaskSummary, meaning: Meaning) -> bool:
    """Whether a palette's used entries are colours of classes, but not in the order of their indices."""
    table = by_colours(form_of(mask), meaning)
    return table is not None and any(sample != index for sample, index in table.items())


def _holds_indices(mask: MaskSummary, meaning: Meaning) -> bool:
    """Whether a mask holds class indices, and one above 0 among them."""
    if mask.lossy or mask.depth == 1 or (mask.kind == "palette" and _is_two_tone(mask, meaning)):
        return False
    table = by_index(form_of(mask), meaning)
    return table is not None and any(0 < index < meaning.count for index in table.values())


def _is_two_tone(mask: MaskSummary, meaning: Meaning) -> bool:
    if mask.kind == "palette":
        # a palette that has black for several indices tells nothing
        table = by_black_and_white(form_of(mask), meaning)
        return table is not None and len(set(table.values())) == len(table)
    return mask.kind == "grey" and between(mask.levels) <= MAX_BETWEEN


def _first(sampled: Mapping[str, MaskSummary]) -> str:
    names = list(sampled)
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _values(values: Iterable[float]) -> str:
    listed = sorted(values)
    return ", ".join(f"{value:g}" for value in listed[:5]) + (" and more" if len(listed) > 5 else "")
