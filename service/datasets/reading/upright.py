"""Images and their labels as they are meant to be shown: EXIF data may ask for a rotation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from service.datasets.items import as_rgb
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.image_files import has_several, open_image, raw_mode
from service.datasets.reading.orientation import orientation, stored_size, turn_pixels, turned_size, upright
from service.datasets.reading.report import EntryFault
from service.kit.png import encode_image

_MAX_DARK_BITS = 14
_LIGHT_IS_HIGH = ("L", "LA", "RGB", "RGBA", "RGBX")


def read_upright(entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """The image ``(H, W, 3)`` uint8 of an entry and its labels ``(H, W)`` uint8. Raises EntryFault, or OSError."""
    image = open_image(entry.image.read_bytes())
    annotation, _ = upright_annotation(entry, stored_size(image), orientation(image))
    return np.array(as_rgb(upright(image))), annotation.labels


def upright_annotation(entry: Entry, size: tuple[int, int], stated: int) -> tuple[Annotation, str | None]:
    """The annotation of an image as it is shown, and what was done about its orientation.

    Annotations are of the image as shown, as labelling tools show it, unless their size is that of the stored pixels.
    """
    shown = turned_size(size, stated)
    try:
        annotation = entry.annotate(*shown)
    except EntryFault as of_shown:
        if shown == size:
            raise
        try:
            annotation = entry.annotate(*size)
        except EntryFault as of_stored:
            if of_stored.kind != "size_differs":
                raise (of_stored if of_shown.kind == "size_differs" else of_shown) from None
            if of_shown.kind != "size_differs":
                raise of_shown from None
            raise EntryFault(
                of_stored.kind,
                f"{of_stored.detail}. EXIF data turn the image: it is shown as {shown[0]} x {shown[1]} px",
            ) from None
    if stated == 1:
        return annotation, None
    if shown == size:
        return annotation, "it is read upright, and its labels are taken to be of the image as shown; check that"
    if annotation.labels.shape != size[::-1]:
        return annotation, "it is read upright, and its labels are of the image as shown"
    instances = annotation.instances
    turned = replace(
        annotation,
        labels=turn_pixels(annotation.labels, stated),
        instances=None if instances is None else turn_pixels(instances, stated),
    )
    return turned, "it is read upright; its labels are of the stored pixels, and are turned with it"


def upright_bytes(data: bytes) -> bytes:
    """An image as it is shown, without EXIF data, which some tools follow and others do not."""
    return encode_image(np.asarray(as_rgb(upright(open_image(data)))), {})


def assumed_of(image: Image.Image) -> tuple[str, ...]:
    """Sentences on what was assumed to read an image."""
    several = "the file holds several pictures, and the first is read; save each as a file of its own"
    return tuple(filter(None, (darkness(image), several if has_several(image) else None)))


def darkness(image: Image.Image) -> str | None:
    """What makes a 16-bit image nearly black, if it is: data of 12 bits and less that were stored unscaled."""
    highest = 0
    if image.mode.startswith("I;16"):
        highest = int(np.max(image.getextrema()))
    elif ";16" in raw_mode(image) and image.mode in _LIGHT_IS_HIGH:
        # Pillow has kept the upper eight of the 16 bits
        highest = int(np.max(image.convert("RGB").getextrema())) << 8 | 255
    bits = highest.bit_length()
    if not 0 < bits <= _MAX_DARK_BITS:
        return None
    return (
        f"its levels end at {highest} of 65535, as data of {bits} bits stored in 16 do, and so it is nearly black: "
        f"{highest >> 8} of 255. Multiply its levels by {1 << 16 - bits} if it should not be"
    )
