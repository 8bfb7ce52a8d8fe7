"""Ways to bend a good PNG into a bad one: each takes a file and a source of chance, and gives a file.

Some of what they give is a good mask still, or one that says something else.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.service.masks.support import (
    COLOURS,
    SIGNATURE,
    chunk,
    file,
    header,
    packed_rows,
    painted,
    palette_file,
    pillow_file,
    stripes,
)

Chunk = tuple[bytes, bytes]
LABELS = stripes(64)


def bases() -> dict[str, bytes]:
    """Good masks of the four classes of ``tissue``, of every kind that a mask may be."""
    image = Image.fromarray(LABELS)
    image.putpalette([channel for colour in COLOURS for channel in colour])
    return {
        "grey": pillow_file(LABELS),
        "palette": pillow_file(image),
        "4 bits": palette_file(LABELS, list(COLOURS), depth=4),
        "2 bits": palette_file(LABELS, list(COLOURS), depth=2),
        "rgb": pillow_file(painted(LABELS)),
        "rgba": pillow_file(np.dstack([painted(LABELS), np.full_like(LABELS, 255)])),
        "interlaced": file(header(64, 64, interlaced=True), chunk(b"IDAT", zlib.compress(interlaced(LABELS)))),
        "in pieces": file(
            header(64, 64), *[chunk(b"IDAT", piece) for piece in pieces(zlib.compress(packed_rows(LABELS, 8)), 7)]
        ),
        "with text": pillow_file(image, dpi=(72, 72)),
    }


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    """One to eight bits, anywhere: a checksum finds them."""
    bad = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        if bad:
            bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
    return bytes(bad)


def flip_bits_and_fix(data: bytes, chance: random.Random) -> bytes:
    """Bits within chunks, under checksums that fit: only reading finds them."""
    chunks = split(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(chunks))
        kind, content = chunks[place]
        if content:
            chunks[place] = kind, flip_bits(content, chance)
    return join(chunks)


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))] if data else data


def spoil_a_checksum(data: bytes, chance: random.Random) -> bytes:
    return join(split(data), wrong=chance.randrange(len(split(data))))


def lie_in_the_header(data: bytes, chance: random.Random) -> bytes:
    """Another width, height, depth, colour type, compression, filter or interlacing than the pixels have."""
    sizes = (0, 1, 7, 8, 32, 63, 64, 65, 128, 4096, 4097, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
    values = list(struct.unpack(">IIBBBBB", split(data)[0][1][:13].ljust(13, b"\0")))
    if chance.random() < 0.3:
        values[:2] = [chance.choice(sizes)] * 2
    else:
        which = chance.randrange(7)
        values[which] = chance.choice(sizes) if which < 2 else chance.choice((0, 1, 2, 3, 4, 6, 7, 8, 16, 255))
    return join([(b"IHDR", struct.pack(">IIBBBBB", *values)), *split(data)[1:]])


def lie_about_a_length(data: bytes, chance: random.Random) -> bytes:
    bad, chunks = bytearray(data), split(data)
    place = len(SIGNATURE) + sum(12 + len(content) for _, content in chunks[: chance.randrange(len(chunks))])
    length = chance.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**32 - 12, chance.randrange(2**16)))
    bad[place : place + 4] = struct.pack(">I", length)
    return bytes(bad)


def shuffle_chunks(data: bytes, chance: random.Random) -> bytes:
    chunks = split(data)
    chance.shuffle(chunks)
    return join(chunks)


def double_a_chunk(data: bytes, chance: random.Random) -> bytes:
    """A second header, palette, IDAT or end, sometimes one that says otherwise, right behind the first or anywhere."""
    chunks = split(data)
    kind, content = chance.choice(chunks)
    if chance.random() < 0.5:
        content = flip_bits(content, chance)
    chunks.insert(chance.randint(1, len(chunks)), (kind, content))
    return join(chunks)


def drop_a_chunk(data: bytes, chance: random.Random) -> bytes:
    chunks = split(data)
    chunks.pop(chance.randrange(len(chunks)))
    return join(chunks)


def add_a_chunk(data: bytes, chance: random.Random) -> bytes:
    """One of a known kind with any content, or of an unknown kind."""
    known = (
        b"acTL",
        b"fcTL",
        b"fdAT",
        b"iCCP",
        b"zTXt",
        b"iTXt",
        b"gAMA",
        b"sBIT",
        b"tRNS",
        b"PLTE",
        b"bKGD",
        b"CgBI",
        b"cICP",
        b"JDAT",
    )
    kind = chance.choice(known) if chance.random() < 0.8 else chance.randbytes(4)
    chunks = split(data)
    chunks.insert(chance.randint(1, len(chunks)), (kind, chance.randbytes(chance.choice((0, 1, 4, 8, 13, 26, 300)))))
    return join(chunks)


def rename_a_chunk(data: bytes, chance: random.Random) -> bytes:
    chunks = split(data)
    place = chance.randrange(len(chunks))
    chunks[place] = (
        chance.choice((b"IDAT", b"IHDR", b"IEND", b"PLTE", b"idat", b"IDOT", b"\0\0\0\0", b"....")),
        chunks[place][1],
    )
    return join(chunks)


def bend_the_pixels(data: bytes, chance: random.Random) -> bytes:
    """The rows unpacked, changed, and packed again: too few, too many, filters that do not exist, wrong bytes."""
    raw = bytearray(unpacked(data))
    how = chance.randrange(5)
    if how == 0:
        raw = raw[: chance.randrange(len(raw) + 1)]
    elif how == 1:
        raw += chance.randbytes(chance.choice((1, 64, 100_000)))
    elif raw:
        for _ in range(chance.choice((1, 1, 8, 300))):
            # every 65th byte of most of the bases is the filter of a row
            raw[chance.randrange(0, len(raw), 65) if how == 2 else chance.randrange(len(raw))] = chance.randrange(256)
    return with_pixels(data, zlib.compress(bytes(raw), chance.randrange(10)))


def bend_the_stream(data: bytes, chance: random.Random) -> bytes:
    """The zlib stream itself: cut, followed by more, without its sum, of another kind, with a dictionary that nobody
    has."""
    raw = unpacked(data)
    packed = zlib.compress(raw)
    dictionary = zlib.compressobj(zdict=b"\0" * 64)
    bad = chance.choice(
        (
            packed[: chance.randrange(len(packed) + 1)],
            packed + packed,
            packed + chance.randbytes(50),
            packed[:-4],
            packed[:-4] + bytes(4),
            zlib.compress(raw, wbits=31),
            zlib.compress(raw, wbits=-15),
            b"\x78\x01" + b"\0\0\0\xff\xff" * chance.randrange(2000) + zlib.compress(raw, 1)[2:],
            dictionary.compress(raw) + dictionary.flush(),
            chance.randbytes(200),
            b"",
        )
    )
    return with_pixels(data, bad)


def shorten_the_palette(data: bytes, chance: random.Random) -> bytes:
    """A palette of fewer colours than there are indices, of no whole number of them, of none, or of too many."""
    chunks = [(kind, content) for kind, content in split(data) if kind != b"PLTE"]
    length = chance.choice((0, 1, 2, 3, 5, 6, 9, 12, 768, 769, 771))
    chunks.insert(1, (b"PLTE", bytes(channel for colour in list(COLOURS) * 65 for channel in colour)[:length]))
    return join(chunks)


def add_transparency(data: bytes, chance: random.Random) -> bytes:
    chunks = split(data)
    chunks.insert(
        max(1, len(chunks) - 2),
        (b"tRNS", chance.choice((b"", b"\0", b"\xff" * 4, b"\0\1", bytes(6), chance.randbytes(257)))),
    )
    return join(chunks)


def make_16_bit(data: bytes, chance: random.Random) -> bytes:
    return pillow_file(LABELS.astype(np.uint16) * chance.choice((1, 256, 257)))


def animate(data: bytes, chance: random.Random) -> bytes:
    frames = [Image.fromarray(np.roll(LABELS, turn, axis=1)) for turn in range(chance.randint(1, 3))]
    animated = pillow_file(frames[0], save_all=True, append_images=frames[1:], default_image=chance.random() < 0.5)
    if chance.random() < 0.5:
        return animated
    # an animation that says so too late, or not at all
    chunks = split(animated)
    control = [entry for entry in chunks if entry[0] == b"acTL"]
    return join(
        [entry for entry in chunks if entry[0] != b"acTL"][:-1] + control * chance.randrange(2) + [(b"IEND", b"")]
    )


def mix_two(data: bytes, chance: random.Random) -> bytes:
    """The first chunks of this file and the last of another."""
    other = split(chance.choice(list(bases().values())))
    own = split(data)
    return join(own[: chance.randint(1, len(own))] + other[chance.randrange(len(other)) :])


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    flip_bits_and_fix,
    truncate,
    spoil_a_checksum,
    lie_in_the_header,
    lie_about_a_length,
    shuffle_chunks,
    double_a_chunk,
    drop_a_chunk,
    add_a_chunk,
    rename_a_chunk,
    bend_the_pixels,
    bend_the_stream,
    shorten_the_palette,
    add_transparency,
    make_16_bit,
    animate,
    mix_two,
)


def split(data: bytes) -> list[Chunk]:
    """The chunks of a file as far as they can be told; at least one."""
    chunks, place = [], len(SIGNATURE)
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        chunks.append((kind, data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks or [(b"IHDR", b"")]


def join(chunks: list[Chunk], *, wrong: int | None = None) -> bytes:
    """A file of these chunks; the checksum of chunk ``wrong`` does not fit."""
    packed = [chunk(kind, content) for kind, content in chunks]
    if wrong is not None:
        packed[wrong] = packed[wrong][:-1] + bytes([packed[wrong][-1] ^ 1])
    return SIGNATURE + b"".join(packed)


def unpacked(data: bytes) -> bytes:
    """The rows of a file, as far as they can be unpacked."""
    try:
        return zlib.decompressobj().decompress(
            b"".join(content for kind, content in split(data) if kind == b"IDAT"), 1 << 20
        )
    except zlib.error:
        return b""


def with_pixels(data: bytes, packed: bytes) -> bytes:
    """The file with these pixel data, in one chunk, where its first were."""
    chunks, placed = [], False
    for kind, content in split(data):
        if kind != b"IDAT":
            chunks.append((kind, content))
        elif not placed:
            placed = True
            chunks.append((b"IDAT", packed))
    return join(chunks)


def interlaced(samples: np.ndarray) -> bytes:
    """Grey samples ``(h, w)`` in the seven passes of Adam7, each row behind filter 0."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    return b"".join(packed_rows(samples[top::down, left::right], 8) for left, top, right, down in passes)


def pieces(data: bytes, count: int) -> list[bytes]:
    step = -(-len(data) // count)
    return [data[place : place + step] for place in range(0, len(data), step)]
