"""Mask files as class indices, all masks of a dataset by the encoding that was decided for them.

Every mask is checked against the decision, and one that does not fit it is refused by name: a mask that is misread in
silence spoils all that is learnt from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_store.masks.encodings import Form, by_black_and_white, by_index
from service.datasets.classes import IGNORE, ClassList
from service.datasets.reading.mask_encoding import (
    MAX_BETWEEN,
    THRESHOLD,
    MaskEncoding,
    between,
    decide_encoding,
    form_of,
    look_again,
    meaning_of,
    mostly_light,
    spread,
)
from service.datasets.reading.mask_samples import STEPS, MaskSamples, MaskSummary, read_mask_samples
from service.datasets.reading.report import EntryFault

NamedMask = tuple[str, Path | bytes]
"""A mask file, or its bytes, with its name for messages."""
_MAX_NAMED = 5


@dataclass(frozen=True)
class DecodedMask:
    """The class indices ``(H, W)`` uint8 of a mask, 255 to ignore, and sentences on what was assumed to read it."""

    labels: np.ndarray
    assumed: tuple[str, ...] = ()


class MaskDecoder:
    """Reads the masks of one dataset, all by the same encoding."""

    def __init__(self, classes: ClassList, encoding: MaskEncoding = "index", *, own: bool = False) -> None:
        self.classes = classes
        self._own = own
        self.encoding: MaskEncoding = encoding
        self._meaning = meaning_of(classes)
        self._mostly_light = False

    @classmethod
    def of(
        cls, masks: Sequence[NamedMask], classes: ClassList, *, own: bool = False, by_palette: bool = True
    ) -> MaskDecoder:
        """The reader for a dataset, by a sample of its ``masks``; a few of another kind among many do not decide.

        ``own`` masks are of a Twinset export: class indices and 255, unless they were painted. With ``by_palette``,
        masks whose palette holds only colours of classes, but of other classes than their indices, are read by colour:
        some tools number colours in the order in which they occur. Raises InvalidDataset if no encoding gives the
        masks a meaning.
        """
        sampled: dict[str, MaskSummary] = {}
        for name, source in spread(masks):
            try:
                sampled[name] = read_mask_samples(source).summary
            except (EntryFault, OSError):
                continue  # it is reported when its entry is read
        encoding = decide_encoding(sampled, classes, own=own, by_palette=by_palette)
        if not own:
            look_again(sampled, classes, encoding)
        found = cls(classes, encoding, own=own)
        found._mostly_light = encoding == "binary" and mostly_light(sampled)
        return found

    def read(self, source: Path | bytes, name: str) -> DecodedMask:
        """The class indices of a mask file. Raises EntryFault that names it."""
        try:
            mask = read_mask_samples(source)
            read = self._read(mask)
            self._check_opaque(mask, read.labels)
        except EntryFault as fault:
            raise EntryFault(fault.kind, f"its mask {name}: {fault.detail}") from None
        return read

    def _read(self, mask: MaskSamples) -> DecodedMask:
        if self.encoding == "alpha":
            return self._by_alpha(mask)
        one_bit = mask.kind == "grey" and mask.depth == 1 and self._meaning.count == 2
        if self.encoding == "binary" or (self.encoding == "index" and one_bit):
            return self._in_black_and_white(mask)
        if mask.lossy:
            raise EntryFault(
                "unknown_labels",
                f"it is a {mask.lossy}, whose compression changes class indices and colours; save it as PNG from its "
                "source. If that is lost, set each pixel to the nearest of the classes' values, and save that as PNG",
            )
        return DecodedMask(self._by_colour(mask)) if self.encoding == "colours" else self._by_index(mask)

    def _by_index(self, mask: MaskSamples) -> DecodedMask:
        if mask.kind == "rgb":
            raise EntryFault(
                "unknown_labels", "it is a colour image, but the other masks hold class indices; save its class indices"
            )
        # black and white of one bit are levels of 0 and 255, as other masks have them with 8 bits
        values = mask.summary.levels if mask.depth == 1 else mask.summary.counts
        if by_index(Form(mask.kind, mask.depth, dict.fromkeys(values)), self._meaning) is None:
            unknown = {value: n for value, n in values.items() if value != IGNORE and not self._is_label(value)}
            last = len(self.classes) - 1
            raise EntryFault(
                "unknown_labels",
                f"it holds {_listed(unknown)}; the classes are 0 to {last}, and 255 is to be ignored. Write the index "
                "of a class in place of each of these values, and list the class if it is missing",
            )
        labels = (mask.samples * 255 if mask.depth == 1 else mask.samples).astype(np.uint8)
        if self._own or self._meaning.count != 2 or set(values) != {0, IGNORE}:
            return DecodedMask(labels)
        return DecodedMask(
            labels,
            ("its mask holds 0 and 255 alone: 255 is read as pixels to ignore, for other masks hold class indices",),
        )

    def _by_colour(self, mask: MaskSamples) -> np.ndarray:
        if mask.kind == "rgb":
            codes, table = mask.samples, _by_code(self._meaning.colours)
        else:
            # a mask without objects is grey, or a palette of the same colours was saved
            colours = mask.summary.colours
            codes = mask.samples.astype(np.int64)
            table = {
                int(sample): self._meaning.colours[colour]
                for sample, colour in colours.items()
                if colour is not None and colour in self._meaning.colours
            }
        known = np.array(sorted(table) or [-1], dtype=np.int64)
        place = np.searchsorted(known, codes).clip(max=len(known) - 1)
        unknown = known[place] != codes
        if unknown.any():
            row, column = divmod(int(unknown.argmax()), unknown.shape[1])
            colour = mask.colour_of(mask.samples[row, column].item())
            shown = "an index without a colour" if colour is None else f"#{bytes(colour).hex()}"
            raise EntryFault(
                "unknown_labels",
                f"{int(unknown.sum())} px have colours of no class, the first {shown} at x {column}, y {row}. The "
                f"classes' colours are {self._colours()}: list that colour, or paint exactly in these, without "
                "smoothing",
            )
        labels: np.ndarray = np.array([table[code] for code in known.tolist()], dtype=np.uint8)[place]
        return labels

    def _in_black_and_white(self, mask: MaskSamples) -> DecodedMask:
        if mask.kind == "rgb":
            raise EntryFault("unknown_labels", "it is a colour image, but the other masks are black and white")
        if mask.kind == "palette":
            table = by_black_and_white(form_of(mask.summary), self._meaning)
            if table is None or len(set(table.values())) < len(table):
                raise EntryFault(
                    "unknown_labels", "its palette has other colours than black and white; save it as grey"
                )
            lookup = np.zeros(256, dtype=np.uint8)
            lookup[[int(sample) for sample in table]] = list(table.values())
            return DecodedMask(lookup[mask.samples])
        levels = mask.samples * STEPS.get(mask.depth, 1)
        return self._by_threshold(levels, mask.summary.levels, mask.lossy)

    def _by_alpha(self, mask: MaskSamples) -> DecodedMask:
        if mask.alpha is None or len(mask.summary.counts) > 1:
            raise EntryFault(
                "unknown_labels",
                "the other masks have one colour, and their transparency tells the classes; this one has "
                + ("no transparency" if mask.alpha is None else "several colours"),
            )
        values, counts = np.unique(mask.alpha, return_counts=True)
        return self._by_threshold(mask.alpha, dict(zip(values.tolist(), counts.tolist(), strict=True)), mask.lossy)

    def _by_threshold(self, levels: np.ndarray, counts: Mapping[float, int], lossy: str | None) -> DecodedMask:
        """Levels 0 to 255 as the two classes. Raises EntryFault unless nearly all are as good as black or white."""
        grey = {level: count for level, count in counts.items() if level not in (0, 255)}
        without_white = max(counts) < THRESHOLD and max(counts) > (8 if lossy else 0)
        if without_white or (not lossy and set(grey) == {1}) or between(counts) > MAX_BETWEEN:
            raise EntryFault(
                "unknown_labels",
                f"it holds {_listed(grey)}, but the other masks are black and white: 0 and 255. Write 255 for "
                f"{self.classes.names[self._meaning.light]} and 0 for {self.classes.names[self._meaning.dark]}",
            )
        labels = np.where(levels >= THRESHOLD, self._meaning.light, self._meaning.dark).astype(np.uint8)
        assumed = []
        if grey:
            cause = f"the compression of {lossy}" if lossy else "smoothing"
            assumed.append(
                f"its mask has levels between black and white at {sum(grey.values())} px, as {cause} leaves them; "
                f"{THRESHOLD} and more are read as white, so borders may be a pixel off"
            )
        if self._mostly_light:
            assumed.append(
                f"white, which is read as {self.classes.names[self._meaning.light]}, covers most of every mask; if "
                "black is the object, list the colours of the classes, as lines name,r,g,b in class_dict.csv"
            )
        return DecodedMask(labels, tuple(assumed))

    def _check_opaque(self, mask: MaskSamples, labels: np.ndarray) -> None:
        """Raises EntryFault if transparent pixels would get a class: what was meant there is not in the file."""
        if self.encoding == "alpha" or mask.alpha is None or not mask.summary.see_through:
            return
        background = self.classes.background
        empty = (IGNORE,) if background is None else (IGNORE, background.index)
        classed = (mask.alpha == 0) & ~np.isin(labels, empty)
        if classed.any():
            row, column = divmod(int(classed.argmax()), classed.shape[1])
            name = self.classes.names[int(labels[row, column])]
            raise EntryFault(
                "unknown_labels",
                f"it is transparent at {int(classed.sum())} px that would be {name}, the first at x {column}, y {row}; "
                "save it without transparency, with each pixel of the class that is meant",
            )

    def _is_label(self, value: float) -> bool:
        return 0 <= value < len(self.classes) and value == int(value)

    def _colours(self) -> str:
        listed = [f"#{bytes(entry.colour).hex()} {entry.name}" for entry in self.classes.classes[:_MAX_NAMED]]
        more = len(self.classes) - _MAX_NAMED
        return ", ".join(listed) + (f" and {more} more" if more > 0 else "")


def _by_code(colours: Mapping[tuple[int, int, int], int]) -> dict[int, int]:
    return {red << 16 | green << 8 | blue: index for (red, green, blue), index in colours.items()}


def _listed(values: Mapping[float, int]) -> str:
    """Values with their numbers of pixels, the first few of them."""
    named = ", ".join(f"{value:g} ({count} px)" for value, count in list(values.items())[:_MAX_NAMED])
    return named + (" and more" if len(values) > _MAX_NAMED else "")
