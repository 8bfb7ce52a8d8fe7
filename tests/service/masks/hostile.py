"""Files that are no masks, by the thousand: PNGs bent in every way that has ever hurt a decoder, and other formats
under its name.

All are drawn from a seed. Some come out as good masks after all, since not every bent file is broken; who tries them
has to look at what an accepted one was read as (:func:`readings`).
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.service.masks.bending import (
    LABELS,
    WAYS,
    bases,
    join,
    pieces,
    split,
)
from tests.service.masks.support import (
    COLOURS,
    SIGNATURE,
    chunk,
    file,
    header,
    packed_rows,
    painted,
    pillow_file,
)

Bad = tuple[str, bytes]
OTHER_FORMATS = ("GIF", "TIFF", "WEBP", "BMP", "JPEG", "PPM", "ICO", "TGA", "PCX", "JPEG2000")


def bent(seed: int, count: int) -> Iterator[Bad]:
    """``count`` files, each a good one bent once or twice, by each of the ways in turn."""
    chance = random.Random(seed)
    good = list(bases().items())
    for number in range(count):
        name, data = good[number % len(good)]
        way = WAYS[number // len(good) % len(WAYS)]
        bad = way(data, chance)
        if chance.random() < 0.2:
            second = chance.choice(WAYS)
            bad = second(bad, chance)
            name += f", {second.__name__}"
        yield f"{number}: {way.__name__}, {name}", bad


def cut_at_every_border() -> Iterator[Bad]:
    """Every good file, cut before, within and after each of its chunks' parts."""
    for name, data in bases().items():
        place = len(SIGNATURE)
        for kind, content in split(data):
            for offset in (0, 1, 4, 8, 8 + len(content) // 2, 8 + len(content), 11 + len(content)):
                yield f"{name} cut at {place + offset}, in {kind!r}", data[: place + offset]
            place += 12 + len(content)


def other_formats() -> Iterator[Bad]:
    """What is no PNG at all, or only begins, or goes on, like one."""
    image = Image.fromarray(painted(LABELS))
    png = bases()["grey"]
    texts = {
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><script>alert(1)</script></svg>',
        "SVG with an entity": b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "HTML": b"<html><script>alert(1)</script></html>",
        "pickle": b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94"
        b"\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
        "ELF": b"\x7fELF\x02\x01\x01" + bytes(64),
        "AVIF": b"\0\0\0\x20ftypavif" + bytes(64),
        "numpy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "gzip": b"\x1f\x8b\x08" + bytes(32),
        "MNG": b"\x8aMNG\r\n\x1a\n" + png[8:],
        "JNG": b"\x8bJNG\r\n\x1a\n" + png[8:],
        "a PNG sent as text": png.replace(b"\r\n", b"\n"),
        "a PNG behind a byte order mark": b"\xef\xbb\xbf" + png,
        "nothing": b"",
        "zeros": bytes(1000),
    }
    yield from texts.items()
    for kind in OTHER_FORMATS:
        data = pillow_file(image, kind)
        yield kind, data
        yield f"{kind} behind a PNG's signature", SIGNATURE + data
        yield f"{kind} behind a PNG's header", file(header(64, 64))[:33] + data
        yield f"a PNG that goes on as {kind}", png + data
    for name, data in texts.items():
        yield f"a PNG that goes on as {name}", png + data
        yield (
            f"a PNG with {name} in a text chunk",
            join([*split(png)[:1], (b"tEXt", b"Comment\0" + data), *split(png)[1:]]),
        )


def bombs() -> Iterator[Bad]:
    """Files of kilobytes that unpack to gigabytes, and files of megabytes that are nothing but chunks."""
    endless = zeros(gigabytes=2)
    pixels = chunk(b"IDAT", zlib.compress(packed_rows(LABELS, 8)))
    for name, first in {
        "64 px": header(64, 64),
        "4096 px of RGBA": header(4096, 4096, 8, 6),
        "4096 px, interlaced": header(4096, 4096, 8, 2, interlaced=True),
        "2^31-1 px": header(2**31 - 1, 2**31 - 1),
        "2^32-1 px": header(2**32 - 1, 2**32 - 1),
    }.items():
        yield f"2 GiB of pixels in {name}", file(first, chunk(b"IDAT", endless))
        yield (
            f"2 GiB of pixels in {name}, in pieces",
            file(first, *[chunk(b"IDAT", piece) for piece in pieces(endless, 5000)]),
        )
    for kind, content in {
        b"zTXt": b"Comment\0\0" + endless,
        b"iTXt": b"Comment\0\1\0\0\0" + endless,
        b"iCCP": b"profile\0\0" + endless,
        b"tEXt": b"Comment\0" + bytes(2 << 20),
        b"eXIf": bytes(2 << 20),
        b"prIv": endless,
        b"fdAT": endless,
        b"PLTE": bytes(3 << 20),
        b"tRNS": bytes(2 << 20),
    }.items():
        yield f"{len(content)} bytes of {kind.decode()}", file(header(64, 64), chunk(kind, content), pixels)
        yield (
            f"{len(content)} bytes of {kind.decode()}, palette",
            file(header(64, 64, 8, 3), chunk(kind, content), pixels),
        )
    yield "300000 empty chunks", file(header(64, 64), chunk(b"teSt") * 300_000, pixels)
    yield "300000 empty IDATs", file(header(64, 64), chunk(b"IDAT") * 300_000, pixels)
    yield "empty blocks", file(header(64, 64), chunk(b"IDAT", b"\x78\x01" + b"\0\0\0\xff\xff" * 800_000))
    yield "a whole picture of 4096 px", file(header(4096, 4096), chunk(b"IDAT", zlib.compress(bytes(4096 * 4097), 9)))


def zeros(*, gigabytes: int) -> bytes:
    """A zlib stream of nothing but zeros, put together of one packed megabyte again and again."""
    packer = zlib.compressobj(9, wbits=-15)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    size = gigabytes << 30
    return b"\x78\xda" + megabyte * (size >> 20) + b"\x03\x00" + struct.pack(">HH", size % 65521, 1)


def readings(data: bytes) -> list[np.ndarray]:
    """What Pillow finds in a file, as class indices ``(h, w)``: by what the pixels store, and by the colours they show.

    Of the file only header, palette and pixels are given to it, for it unpacks texts and profiles, and refuses large
    ones. Empty where Pillow refuses it, or a colour is no class's.
    """
    kept = [(kind, content) for kind, content in split(data) if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND")]
    try:
        with Image.open(io.BytesIO(join(kept))) as image:
            image.load()
            stored, shown = np.asarray(image), np.asarray(image.convert("RGB"))
            depth, colour = split(data)[0][1][8:10]
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError):
        return []
    found: list[np.ndarray] = []
    if stored.ndim == 2:
        found.append(stored // (255 // (2**depth - 1)) if colour == 0 and 1 < depth < 8 else stored.astype(np.uint8))
    distances = (shown[..., None, :] == np.array(COLOURS, dtype=np.uint8)).all(axis=-1)
    if distances.any(axis=-1).all():
        found.append(distances.argmax(axis=-1).astype(np.uint8))
    return found
