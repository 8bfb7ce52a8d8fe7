"""Image files from outside, opened only by decoders that are allowed, and only if they are not too large.

Pillow looks at a file's content, not at its name, and knows some forty formats. One of them starts Ghostscript; others
have seen little use. Every image that this project reads is opened here.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image

ALLOWED_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
MAX_PIXELS = 1 << 27
"""134 million: an image of half a gigabyte when decoded."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What :func:`open_image_file`, and the decoding of what it opens, raise for a file that is no whole image."""


def open_image_file(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in a file, or in its bytes, of which only the header has been read. Use it in a ``with`` block.

    Raises one of :data:`UNREADABLE`; for too many pixels, DecompressionBombError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=ALLOWED_FORMATS)
    if image.width * image.height > max_pixels:
        image.close()
        raise Image.DecompressionBombError(
            f"it has {image.width} x {image.height} pixels; the limit is {max_pixels}. Cut it into tiles"
        )
    return image
