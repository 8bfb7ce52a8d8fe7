"""Mask images decoded to class indices: they encode classes by index, by colour, or in black and white."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from service.datasets.classes import IGNORE, ClassList
from service.datasets.items import decoding_fault
from service.datasets.reading.report import EntryFault

MaskEncoding = Literal["index", "colours", "binary"]
MAX_PIXELS = 1 << 27
"""134 million: an image of half a gigabyte when decoded."""
_IGNORE_COLOURS = ((255, 255, 255), (224, 224, 192))
"""White, which Twinset uses, and Pascal VOC's void, unless a class has that colour."""
_THRESHOLD = 128


def open_image(source: Path | bytes) -> Image.Image:
    """The decoded image of a file or its bytes. Raises EntryFault for one that cannot be decoded or is too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise EntryFault(
                        "unreadable",
                        f"it has {file.width} x {file.height} pixels; the limit is {MAX_PIXELS}. Cut it into tiles",
                    )
                file.load()
                return file
    except Image.DecompressionBombError:
        raise EntryFault(
            "unreadable", f"it has more than {MAX_PIXELS} pixels, which is the limit. Cut it into tiles"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise EntryFault("unreadable", f"it cannot be decoded ({decoding_fault(error)})") from None


def read_samples(source: Path | bytes) -> np.ndarray:
    """The samples of a one-channel image ``(H, W)``, or of one channel of a grey RGB image. Raises EntryFault."""
    image = open_image(source)
    if image.mode in ("L", "P", "1", "I", "I;16", "I;16B", "F"):
        samples = np.array(image)
        return samples.astype(np.uint8) if samples.dtype == bool else samples
    pixels = np.array(image.convert("RGB"))
    if (pixels != pixels[..., :1]).any():
        raise EntryFault(
            "unknown_labels", "it is a colour image, but the other masks hold class indices; save its class indices"
        )
    return pixels[..., 0]


def read_mask(path: Path, classes: ClassList, encoding: MaskEncoding) -> np.ndarray:
    """The class indices ``(H, W)`` uint8 of a mask file. Raises EntryFault."""
    if encoding == "colours":
        return _by_colour(np.array(open_image(path).convert("RGB")), classes)
    samples = read_samples(path)
    if encoding == "binary":
        return (samples >= _THRESHOLD).astype(np.uint8)
    return as_labels(samples, classes)


def as_labels(samples: np.ndarray, classes: ClassList) -> np.ndarray:
    """Samples that are class indices, or 255, as uint8. Raises EntryFault naming other values."""
    values, counts = np.unique(samples, return_counts=True)
    unknown = [
        (value, count)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if not _is_label(value, len(classes))
    ]
    if unknown:
        listed = ", ".join(f"{value:g} ({count} px)" for value, count in unknown[:5]) + (
            " and more" if len(unknown) > 5 else ""
        )
        raise EntryFault(
            "unknown_labels", f"it holds {listed}; the classes are 0 to {len(classes) - 1}, and 255 is to be ignored"
        )
    return samples.astype(np.uint8)


def choose_encoding(paths: list[Path], classes: ClassList, *, by_palette: bool = True) -> MaskEncoding:
    """The encoding of a dataset's masks, detected from a sample of them.

    There is one encoding for the whole set: a mask of only 0 and 255 may be black and white, or class 0 with pixels to
    ignore, and only the other masks show which. A few masks of another kind among many do not decide. With
    ``by_palette``, masks count as colour-encoded if their palette holds only colours of classes, but of other classes
    than their indices: some tools number colours in the order in which they occur.
    """
    binary = len(classes) == 2
    coloured = indexed = 0
    for path in paths:
        try:
            image = open_image(path)
        except EntryFault:
            continue
        if image.mode in ("RGB", "RGBA", "CMYK", "YCbCr"):
            pixels = np.array(image.convert("RGB"))
            if (pixels != pixels[..., :1]).any():
                coloured += 1
                continue
            samples = pixels[..., 0]
        else:
            samples = np.array(image)
            if by_palette and _has_own_numbering(image, samples, classes):
                coloured += 1
                continue
            indexed += 1
        found = set(np.unique(samples).tolist())
        if image.mode == "1" or not found <= {0, 255}:
            binary = False
    if coloured:
        return "colours" if coloured >= indexed else "index"
    return "binary" if binary and paths else "index"


def _has_own_numbering(image: Image.Image, samples: np.ndarray, classes: ClassList) -> bool:
    """Whether a mask's palette holds only colours of classes, but of other classes than its indices."""
    if image.mode != "P":
        return False
    palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    used = np.unique(samples)
    if used[-1] >= len(palette):
        return False
    table = _colour_table(classes)
    painted = [table.get(_packed((int(red), int(green), int(blue)))) for red, green, blue in palette[used]]
    return None not in painted and painted != used.tolist()


def _by_colour(pixels: np.ndarray, classes: ClassList) -> np.ndarray:
    table = _colour_table(classes)
    known = np.array(sorted(table), dtype=np.uint32)
    wide = pixels.astype(np.uint32)
    codes = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    index = np.searchsorted(known, codes).clip(max=len(known) - 1)
    unknown = known[index] != codes
    if unknown.any():
        row, column = divmod(int(unknown.argmax()), unknown.shape[1])
        colour = "#" + bytes(pixels[row, column].tolist()).hex()
        raise EntryFault(
            "unknown_labels",
            f"{int(unknown.sum())} px have colours of no class, the first {colour} at x {column}, y {row}; masks must "
            "be painted in exactly the classes' colours, without smoothing, and never saved as JPEG",
        )
    labels: np.ndarray = np.array([table[int(code)] for code in known], dtype=np.uint8)[index]
    return labels


def _colour_table(classes: ClassList) -> dict[int, int]:
    """The class index, or 255, of each known colour."""
    ignored = {_packed(colour): IGNORE for colour in _IGNORE_COLOURS}
    return ignored | {_packed(entry.colour): entry.index for entry in classes.classes}


def _packed(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _is_label(value: float, count: int) -> bool:
    return value == IGNORE or (0 <= value < count and value == int(value))
