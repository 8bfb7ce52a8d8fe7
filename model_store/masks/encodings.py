"""How the samples of a mask file stand for classes: by index, by the classes' colours, or in black and white.

One set of rules for the masks of requests, of datasets and of training. A reading is a table from sample to class
index; it exists if every sample of the file has a meaning in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Colour = tuple[int, int, int]
Table = dict[float, int]
"""The class index, or 255, of each sample that occurs."""
Reading = Literal["index", "colours", "binary"]
Kind = Literal["grey", "palette", "rgb"]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
IGNORE = 255


@dataclass(frozen=True)
class Form:
    """A file's samples, each with its colour; None where a palette has none. ``depth`` is the bits of a sample."""

    kind: Kind
    depth: int
    colours: Mapping[int, Colour | None] | Mapping[float, Colour | None]


@dataclass(frozen=True)
class Meaning:
    """What samples may stand for: ``count`` classes, with their ``colours`` by index or 255.

    ``dark`` and ``light`` are the classes that black and white stand for, if there are two. ``ignore`` says whether 255
    is a label.
    """

    count: int
    colours: Mapping[Colour, int] = field(default_factory=dict)
    dark: int = 0
    light: int = 1
    ignore: bool = False


class AmbiguousSamples(ValueError):
    """A palette of which the indices say one class, and the colours another; ``sample`` is the first such index."""

    def __init__(self, sample: float, by_index: int, by_colour: int) -> None:
        super().__init__(f"sample {sample:g} is class {by_index} by index and {by_colour} by colour")
        self.sample = sample
        self.by_index = by_index
        self.by_colour = by_colour


def only_reading(form: Form, meaning: Meaning) -> Table | None:
    """What a single file's samples mean; None if no reading fits. Raises AmbiguousSamples if two of them differ."""
    coloured = by_colours(form, meaning) or by_black_and_white(form, meaning)
    # black-and-white images come as grey with one bit, so that is no sign that the samples are meant as indices
    if form.kind == "rgb" or (form.kind == "grey" and form.depth == 1):
        return coloured
    indexed = by_index(form, meaning)
    if form.kind == "palette" and indexed and coloured:
        for sample, index in indexed.items():
            if coloured[sample] != index:
                raise AmbiguousSamples(sample, index, coloured[sample])
    return indexed or coloured


def by_index(form: Form, meaning: Meaning) -> Table | None:
    """The samples as class indices."""
    if form.kind == "rgb":
        return None
    labels = {*range(meaning.count), *((IGNORE,) if meaning.ignore else ())}
    return {sample: int(sample) for sample in form.colours} if labels.issuperset(form.colours) else None


def by_colours(form: Form, meaning: Meaning) -> Table | None:
    """The classes of the samples' colours."""
    table = {}
    for sample, colour in form.colours.items():
        if colour is None or colour not in meaning.colours:
            return None
        table[sample] = meaning.colours[colour]
    return table


def by_black_and_white(form: Form, meaning: Meaning) -> Table | None:
    """Black as one of two classes and white as the other; of a palette of other colours, its indices 0 and 255."""
    if meaning.count != 2:
        return None
    if form.kind == "palette" and set(form.colours) <= {0, 255} and set(form.colours.values()) - {BLACK, WHITE}:
        return {sample: meaning.light if sample else meaning.dark for sample in form.colours}
    return by_colours(form, Meaning(2, {BLACK: meaning.dark, WHITE: meaning.light}))
