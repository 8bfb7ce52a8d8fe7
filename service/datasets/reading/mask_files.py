"""Masks that come as pictures: their class indices, told by index, by colour, or in black and white."""

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
"""134 million: an image of half a gigabyte unpacked."""
_IGNORE_COLOURS = ((255, 255, 255), (224, 224, 192))
"""White, as here, and Pascal VOC's void; where no class has them."""
_THRESHOLD = 128


def open_picture(source: Path | bytes) -> Image.Image:
    """A picture, a file or its bytes, decoded. Raises EntryFault for one that cannot be, or has more than
    :data:`MAX_PIXELS`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise EntryFault(
                        "unreadable",
                        f"it has {file.width} x {file.height} pixels; at most {MAX_PIXELS} are read. Cut it",
                    )
                file.load()
                return file
    except Image.DecompressionBombError:
        raise EntryFault(
            "unreadable", f"it has more than {MAX_PIXELS} pixels, the most that are read; cut it"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise EntryFault("unreadable", f"it cannot be decoded ({decoding_fault(error)})") from None


def read_samples(source: Path | bytes) -> np.ndarray:
    """The numbers of a picture's one channel ``(H, W)``; of colour pictures that are grey, any channel. Raises
    EntryFault."""
    picture = open_picture(source)
    if picture.mode in ("L", "P", "1", "I", "I;16", "I;16B", "F"):
        samples = np.array(picture)
        return samples.astype(np.uint8) if samples.dtype == bool else samples
    pixels = np.array(picture.convert("RGB"))
    if (pixels != pixels[..., :1]).any():
        raise EntryFault(
            "unknown_labels", "it is a colour picture, and the other masks hold class indices; save its class indices"
        )
    return pixels[..., 0]


def read_mask(path: Path, classes: ClassList, encoding: MaskEncoding) -> np.ndarray:
    """The class indices ``(H, W)`` uint8 of a mask file. Raises EntryFault."""
    if encoding == "colours":
        return _by_colour(np.array(open_picture(path).convert("RGB")), classes)
    samples = read_samples(path)
    if encoding == "binary":
        return (samples >= _THRESHOLD).astype(np.uint8)
    return as_labels(samples, classes)


def as_labels(samples: np.ndarray, classes: ClassList) -> np.ndarray:
    """Samples that are class indices, or 255, as uint8. Raises EntryFault naming those that are neither."""
    values, counts = np.unique(samples, return_counts=True)
    strange = [
        (value, count) for value, count in zip(values.tolist(), counts.tolist()) if not _is_label(value, len(classes))
    ]
    if strange:
        shown = ", ".join(f"{value:g} ({count} px)" for value, count in strange[:5]) + (
            " and more" if len(strange) > 5 else ""
        )
        raise EntryFault(
            "unknown_labels", f"it holds {shown}; the classes are 0 to {len(classes) - 1}, and 255 is to be ignored"
        )
    return samples.astype(np.uint8)


def choose_encoding(paths: list[Path], classes: ClassList, *, by_palette: bool = True) -> MaskEncoding:
    """How a dataset's masks tell classes, from some of them.

    One rule for the whole set: a mask of 0 and 255 alone may be black and white, or class 0 with pixels to ignore, and
    only the others show which. A few masks of another kind among many do not decide. ``by_palette`` takes a palette at
    its word which paints nothing but colours of classes, each of another class than the index says: there are tools
    that number colours as they come.
    """
    binary = len(classes) == 2
    coloured = indexed = 0
    for path in paths:
        try:
            picture = open_picture(path)
        except EntryFault:
            continue
        if picture.mode in ("RGB", "RGBA", "CMYK", "YCbCr"):
            pixels = np.array(picture.convert("RGB"))
            if (pixels != pixels[..., :1]).any():
                coloured += 1
                continue
            samples = pixels[..., 0]
        else:
            samples = np.array(picture)
            if by_palette and _numbered_otherwise(picture, samples, classes):
                coloured += 1
                continue
            indexed += 1
        found = set(np.unique(samples).tolist())
        if picture.mode == "1" or not found <= {0, 255}:
            binary = False
    if coloured:
        return "colours" if coloured >= indexed else "index"
    return "binary" if binary and paths else "index"


def _numbered_otherwise(picture: Image.Image, samples: np.ndarray, classes: ClassList) -> bool:
    """Whether a palette paints all of a mask in colours of classes, and not in those of the classes that its samples
    number."""
    if picture.mode != "P":
        return False
    palette = np.array(picture.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
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
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    strange = known[place] != codes
    if strange.any():
        row, column = divmod(int(strange.argmax()), strange.shape[1])
        colour = "#" + bytes(pixels[row, column].tolist()).hex()
        raise EntryFault(
            "unknown_labels",
            f"{int(strange.sum())} px have colours that are no class's, the first {colour} at x {column}, y {row}; masks are painted "
            "in exactly the classes' colours, without smoothing, and never saved as JPEG",
        )
    return np.array([table[int(code)] for code in known], dtype=np.uint8)[place]


def _colour_table(classes: ClassList) -> dict[int, int]:
    """The class index, or 255, of each colour that stands for one."""
    ignored = {_packed(colour): IGNORE for colour in _IGNORE_COLOURS}
    return ignored | {_packed(entry.colour): entry.index for entry in classes.classes}


def _packed(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _is_label(value: float, count: int) -> bool:
    return value == IGNORE or (0 <= value < count and value == int(value))
