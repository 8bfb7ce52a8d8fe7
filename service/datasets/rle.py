"""COCO's run-length encodings of masks: column by column, alternating runs of zeros and ones, zeros first.

In the compressed form, a run is written as its difference from the run two before it, five bits per character from
ASCII 48 on (COCO API, ``maskApi.c``). It is implemented here because encodings come from uploaded files, and the C code
of pycocotools trusts its input. The tests check that both give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.datasets.patches import EMPTY, FillBudget, Patch

_FEW = 100
_MAX_RUNS = 4_000_000
"""More than the runs of any object that is drawn, and few enough for memory."""
_MAX_GROUPS = 7
"""35 bits: more than the run of any allowed mask."""


class RleInvalid(ValueError):
    """The encoding is malformed, or does not match the size of the mask."""


def encode(mask: np.ndarray) -> np.ndarray:
    """The runs ``(n,)`` int64 of a mask ``(H, W)`` bool."""
    return encode_regions(mask.astype(np.int32), 1)[0]


def encode_regions(regions: np.ndarray, count: int) -> list[np.ndarray]:
    """The runs of each region 1..``count`` of ``(H, W)`` int32, in one pass over the pixels; a region may be empty."""
    flat = regions.reshape(-1, order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    owners = flat[starts]
    order = np.argsort(owners, kind="stable")
    firsts = np.searchsorted(owners[order], np.arange(1, count + 2))
    # the borders between zeros and ones, in order; a run is the distance from one border to the next
    borders = np.stack([starts[order], ends[order]], axis=1).reshape(-1)
    lengths = np.diff(borders, prepend=0)
    runs = []
    for first, last in zip((2 * firsts[:-1]).tolist(), (2 * firsts[1:]).tolist(), strict=True):
        rest = flat.size - (borders[last - 1] if last > first else 0)
        mine = np.append(lengths[first:last], rest) if rest else lengths[first:last].copy()
        if last > first:
            mine[0] = borders[first]
        runs.append(mine)
    return runs


def decode(runs: np.ndarray, height: int, width: int, budget: FillBudget | None = None) -> Patch:
    """The object of the runs in an image of this size.

    Raises :class:`RleInvalid` unless they cover its pixels exactly, and ValueError beyond the ``budget``.
    """
    runs = np.asarray(runs, dtype=np.int64)
    if runs.ndim != 1 or (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise RleInvalid(f"its runs do not cover the {width} x {height} pixels of its image exactly")
    ends = np.cumsum(runs)
    starts = (ends - runs)[1::2][runs[1::2] > 0]
    if not starts.size:
        return EMPTY
    left, right = int(starts[0]) // height, int(ends[1::2][runs[1::2] > 0][-1] - 1) // height + 1
    (budget or FillBudget()).spend((right - left) * height + len(runs))
    # only the columns of the object are written out
    first, last = left * height, right * height
    inside = np.clip(ends, first, last) - np.clip(ends - runs, first, last)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, inside).reshape(right - left, height)
    return Patch(0, left, columns.T)


def compress(runs: np.ndarray) -> str:
    """The runs as COCO's compressed string."""
    return _compress_few(runs.tolist()) if len(runs) <= _FEW else _compress_many(runs)


def _compress_few(runs: list[int]) -> str:
    """A loop over the runs, which is faster for most objects than numpy with its overhead."""
    text = bytearray()
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            bits, value = value & 0x1F, value >> 5
            if value == (-1 if bits & 0x10 else 0):
                text.append(bits + 48)
                break
            text.append((bits | 0x20) + 48)
    return text.decode("ascii")


def _compress_many(runs: np.ndarray) -> str:
    values = np.array(runs, dtype=np.int64)
    values[3:] -= np.asarray(runs)[1:-2]
    groups = np.ones(len(values), dtype=np.int64)
    for count in range(1, _MAX_GROUPS):
        groups += (values < -(1 << 5 * count - 1)) | (values >= 1 << 5 * count - 1)
    ends = np.cumsum(groups)
    owner = np.repeat(np.arange(len(values)), groups)
    place = np.arange(ends[-1]) - np.repeat(ends - groups, groups)
    bits = values[owner] >> 5 * place & 0x1F
    bits[place < groups[owner] - 1] |= 0x20
    characters: bytes = (bits + 48).astype(np.uint8).tobytes()
    return characters.decode("ascii")


def decompress(text: str) -> np.ndarray:
    """The runs of COCO's compressed string. Raises :class:`RleInvalid` for a malformed one."""
    if len(text) > _MAX_RUNS:
        raise RleInvalid(f"its counts have {len(text)} characters; the limit is {_MAX_RUNS}")
    try:
        characters = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise RleInvalid("its counts hold characters that are not allowed in a run-length encoding") from None
    if not characters.size or (characters < 0).any() or (characters > 63).any() or characters[-1] & 0x20:
        raise RleInvalid("its counts are not a complete run-length encoding")
    last = characters & 0x20 == 0
    ends = np.flatnonzero(last)
    starts = np.append(0, ends[:-1] + 1)
    groups = ends - starts + 1
    if groups.max() > _MAX_GROUPS:
        raise RleInvalid("its counts hold a run longer than any image")
    place = np.arange(len(characters)) - np.repeat(starts, groups)
    values = np.add.reduceat((characters & 0x1F) << 5 * place, starts)
    # the highest bit of the last group is the sign
    values -= (characters[ends] & 0x10 != 0).astype(np.int64) << 5 * groups
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def as_runs(counts: object) -> np.ndarray:
    """The runs of a segmentation's ``counts``, a list or a string. Raises :class:`RleInvalid`."""
    if isinstance(counts, str):
        # Python's text of bytes, which tools write that forget to decode them; no count has the character '
        quoted = len(counts) > 2 and counts.startswith(("b'", 'b"')) and counts[-1] == counts[1]
        return decompress(counts[2:-1].replace("\\\\", "\\") if quoted else counts)
    if isinstance(counts, Sequence) and len(counts) > _MAX_RUNS:
        raise RleInvalid(f"its counts are {len(counts)} runs; the limit is {_MAX_RUNS}")
    if isinstance(counts, Sequence) and all(
        isinstance(run, (int, float)) and 0 <= run < 1 << 35 and run == int(run) for run in counts
    ):
        return np.array(counts, dtype=np.int64)
    raise RleInvalid(f"its counts are {str(counts)[:40]!r}, neither a list of whole numbers nor a string")
