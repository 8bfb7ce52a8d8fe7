"""The borders of a mask's objects as polygons, exact to the pixel.

A border runs between pixels, along their sides, with the object on its right. The polygon so traced contains the
centres of the object's pixels and no others. Polygons of most formats have no holes, so an object with holes is cut
open from each hole to the nearest border on its left, along the middle of a row: one closed line then goes around all
of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_STEP = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""(x, y) of a step right, down, left, up: the directions 0..3."""
_LEFT = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])
"""The offset from the pixel on the border's right to the one on its left."""
_START = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
"""The corner of the pixel at which its side starts."""
_DOWN, _UP = 1, 3
_BLOCK_PIXELS = 1 << 20
_Stretch = tuple[np.ndarray, int | None]
"""Points ``(n, 2)`` of a line, and the side at its end from which a seam leads to a hole, if there is one."""


@dataclass(frozen=True)
class _Borders:
    """Every pixel side at which a region ends: side ``e`` belongs to ``region[e]``, and ``following[e]`` follows it."""

    region: np.ndarray
    direction: np.ndarray
    pixel: np.ndarray
    following: np.ndarray
    keys: np.ndarray
    """Directions and pixels as numbers, ascending: few pixels have a side, so these are searched."""
    shape: tuple[int, ...]
    """``(H + 2, W + 2)``: pixels are numbered with a margin of 1."""

    def side(self, direction: int, row: int, column: int) -> int:
        """The side of a direction and pixel."""
        pixel = row * self.shape[1] + column
        return int(np.searchsorted(self.keys, direction * self.shape[0] * self.shape[1] + pixel))


def polygons(regions: np.ndarray, count: int, *, inset_px: float = 0.0) -> list[list[np.ndarray]]:
    """The polygons of each region 1..``count`` of ``(H, W)`` int32: ``(n, 2)`` float64 of (x, y).

    Pixel (column, row) covers [column, column + 1) x [row, row + 1). A region has one polygon for each of its parts
    that are connected by sides, cut open at holes. ``inset_px`` (0 to below 0.5) draws every border that far into the
    object: its corners then lie inside the object's border pixels, and a reader that rounds them down to pixels and
    fills with the border included gets the same object as one that tests pixel centres.
    """
    borders = _borders(np.pad(regions, 1))
    found: list[list[np.ndarray]] = [[] for _ in range(count)]
    if not len(borders.region):
        return found
    rings = _rings(borders.following)
    outward = _around_objects(rings, borders)
    outer = [ring for ring, is_outer in zip(rings, outward, strict=True) if is_outer]
    inner = [ring for ring, is_outer in zip(rings, outward, strict=True) if not is_outer]
    whole = _cut_open(outer, inner, regions, borders, inset_px) if inner else {}
    for number, (ring, points) in enumerate(zip(outer, _corners(outer, borders, inset_px), strict=True)):
        found[borders.region[ring[0]] - 1].append(whole.get(number, points))
    return found


def _borders(padded: np.ndarray) -> _Borders:
    """The sides at which regions end; ``padded`` has a margin of zeros."""
    width = padded.shape[1]
    flat = padded.reshape(-1)
    beside = [step[1] * width + step[0] for step in _LEFT]
    onward = [step[1] * width + step[0] for step in _STEP]
    directions, pixels = [], []
    for heading in range(4):
        ends = _ends(flat, beside[heading])
        pixels.append(ends)
        directions.append(np.full(len(ends), heading))
    pixel, direction = np.concatenate(pixels), np.concatenate(directions)
    region = flat[pixel]
    ahead = pixel + np.array(onward)[direction]
    ahead_left = ahead + np.array(beside)[direction]
    right = flat[ahead] != region
    straight = ~right & (flat[ahead_left] != region)
    turn = np.where(right, (direction + 1) % 4, np.where(straight, direction, (direction + 3) % 4))
    to = np.where(right, pixel, np.where(straight, ahead, ahead_left))
    keys = direction * flat.size + pixel
    return _Borders(region, direction, pixel, np.searchsorted(keys, turn * flat.size + to), keys, padded.shape)


def _ends(flat: np.ndarray, beside: int) -> np.ndarray:
    """The pixels of regions whose neighbour at the distance ``beside`` is of another, ascending."""
    margin, found = abs(beside), []
    for start in range(margin, len(flat) - margin, _BLOCK_PIXELS):
        end = min(start + _BLOCK_PIXELS, len(flat) - margin)
        here = flat[start:end]
        found.append(np.flatnonzero((here != 0) & (here != flat[start + beside : end + beside])) + start)
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _rings(following: np.ndarray) -> list[np.ndarray]:
    """The closed rings of sides along ``following``, each from its first side on."""
    after = following.tolist()
    seen = bytearray(len(after))
    rings = []
    for first in range(len(after)):
        if seen[first]:
            continue
        ring, side = [], first
        while not seen[side]:
            seen[side] = 1
            ring.append(side)
            side = after[side]
        rings.append(np.array(ring))
    return rings


def _around_objects(rings: list[np.ndarray], borders: _Borders) -> np.ndarray:
    """Whether each ring runs around an object (positive signed area) and not around a hole."""
    sides = np.concatenate(rings)
    _row, column = np.divmod(borders.pixel[sides], borders.shape[1])
    direction = borders.direction[sides]
    # only vertical sides contribute area in y; those on an object's right run down
    swept = (column + _START[direction, 0]) * _STEP[direction, 1]
    starts = np.cumsum([0, *map(len, rings[:-1])])
    areas: np.ndarray = np.add.reduceat(swept, starts)
    return areas > 0


def _corners(rings: list[np.ndarray], borders: _Borders, inset_px: float) -> list[np.ndarray]:
    """The points at which each ring turns, ``(n, 2)`` float64 of (x, y)."""
    sides = np.concatenate(rings)
    lengths = np.array([len(ring) for ring in rings])
    ends = np.cumsum(lengths)
    direction = borders.direction[sides]
    before = np.roll(direction, 1)
    before[ends - lengths] = direction[ends - 1]
    turns = direction != before
    points = _points(sides[turns], direction[turns], before[turns], borders, inset_px)
    return np.split(points, np.cumsum(turns)[ends[:-1] - 1])


def _points(
    sides: np.ndarray, direction: np.ndarray, before: np.ndarray, borders: _Borders, inset_px: float
) -> np.ndarray:
    row, column = np.divmod(borders.pixel[sides], borders.shape[1])
    corner = np.stack([column - 1, row - 1], axis=1) + _START[direction]
    # inward is away from the pixel on the left, for the side that ends in the corner and for the one that begins there
    moved: np.ndarray = corner - inset_px * (_LEFT[direction] + _LEFT[before])
    return moved


def _cut_open(
    outer: list[np.ndarray], inner: list[np.ndarray], regions: np.ndarray, borders: _Borders, inset_px: float
) -> dict[int, np.ndarray]:
    """The polygons of the outer rings that have holes, by their index in ``outer``."""
    rings = outer + inner
    owner = np.empty(len(borders.region), dtype=np.int64)
    for number, ring in enumerate(rings):
        owner[ring] = number
    seams: dict[int, int] = {}
    """For the side at which a seam reaches the border on its left, the side of the hole at which the seam starts."""
    holed = set()
    column_of = borders.pixel % borders.shape[1]
    for ring in inner:
        # the hole's leftmost side; it faces left, so no other side of this hole is in its way
        sides = ring[borders.direction[ring] == _DOWN]
        side = int(sides[np.argmin(column_of[sides])])
        row, column = divmod(int(borders.pixel[side]), borders.shape[1])
        line = regions[row - 1, :column]
        elsewhere = np.flatnonzero(line != borders.region[side])
        reached = int(elsewhere[-1]) + 1 if elsewhere.size else 0
        met = borders.side(_UP, row, reached + 1)
        seams[met] = side
        holed.add(owner[met])
    return {
        number: _walk(outer[number], seams, rings, owner, borders, inset_px)
        for number in sorted(holed)
        if number < len(outer)
    }


def _walk(
    ring: np.ndarray,
    seams: dict[int, int],
    rings: list[np.ndarray],
    owner: np.ndarray,
    borders: _Borders,
    inset_px: float,
) -> np.ndarray:
    """The line around an object and, along the seams, around its holes."""
    points: list[np.ndarray] = []
    pending = [iter(_stretches(ring, seams, borders, inset_px))]
    while pending:
        step = next(pending[-1], None)
        if step is None:
            pending.pop()
            continue
        stretch, met = step
        points.append(stretch)
        if met is not None:
            side = seams[met]
            hole = rings[owner[side]]
            begin = int(np.flatnonzero(hole == side)[0])
            pending.append(iter(_around(np.roll(hole, -begin), seams, borders, inset_px)))
    return np.concatenate(points)


def _stretches(
    ring: np.ndarray, seams: dict[int, int], borders: _Borders, inset_px: float, skip_first: bool = False
) -> Iterator[_Stretch]:
    """The corners of a ring in stretches, each up to a side at which a seam starts, with the seam's two ends."""
    direction = borders.direction[ring]
    before = np.roll(direction, 1)
    turns = direction != before
    if skip_first:
        turns[0] = False
    corners = _points(ring, direction, before, borders, inset_px)
    start = 0
    for index in [index for index, side in enumerate(ring.tolist()) if side in seams]:
        stretch = corners[start : index + 1][turns[start : index + 1]]
        middle = _middle(int(ring[index]), borders, inset_px)
        yield np.concatenate([stretch, middle]), int(ring[index])
        yield middle, None
        start = index + 1
    yield corners[start:][turns[start:]], None


def _around(hole: np.ndarray, seams: dict[int, int], borders: _Borders, inset_px: float) -> Iterator[_Stretch]:
    """The line around a hole, from the middle of its first side, where its seam ends, back to it."""
    middle = _middle(int(hole[0]), borders, inset_px)
    yield middle, None
    yield from _stretches(hole, seams, borders, inset_px, skip_first=True)
    if borders.direction[hole[0]] != borders.direction[hole[-1]]:
        yield _corners_at(hole, borders, inset_px), None
    yield middle, None


def _corners_at(hole: np.ndarray, borders: _Borders, inset_px: float) -> np.ndarray:
    """The corner at which a ring's first side starts and its last one ends."""
    return _points(hole[:1], borders.direction[hole[:1]], borders.direction[hole[-1:]], borders, inset_px)


def _middle(side: int, borders: _Borders, inset_px: float) -> np.ndarray:
    """The middle of a vertical side, ``(1, 2)``."""
    row, column = divmod(int(borders.pixel[side]), borders.shape[1])
    x = column if borders.direction[side] == _DOWN else column - 1
    middle: np.ndarray = np.array([[x, row - 0.5]]) - inset_px * _LEFT[borders.direction[side]]
    return middle
