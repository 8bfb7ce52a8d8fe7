"""Where tiles are cut: at random, and around the classes that are to be seen more often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from workers.data.fit import Box, Fit
from workers.data.instance_keys import labels_of
from workers.data.listings import DatasetInvalid

CELL_PX = 256
"""Side of the cells in which the pixels of a class are looked for, so that large masks are not searched whole."""
BALANCED = 0.5
"""The share of tiles that are cut around one class or another, all of them equally often, unless ``seen`` says more."""
_TILES = 0x711E5


WHOLE = -2
"""The ``around`` of a draw that shows the whole image, or of tiles the one in its middle."""


class PairDraw(NamedTuple):
    """One item of a batch: its row, and for a tile the class to cut it around (-1: none) and where, each in [0, 1)."""

    row: int
    around: int = -1
    at: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class TilePlan:
    """An endless sequence of tiles: ``plan[position]`` is a pure function of the seed and the position.

    Images are drawn by their area. A class of ``shares`` ``(K,)`` has that share of the tiles cut around a random pixel
    of its own, of an image that shows it; tiles that show it by chance come on top.
    """

    def __init__(self, sizes: np.ndarray, counts: np.ndarray, shares: np.ndarray, tile_px: int, seed: int) -> None:
        """sizes ``(N, 2)``, counts ``(N, K)`` of the rows."""
        self._seed = seed
        area = np.maximum(1.0, sizes[:, 0].astype(float) * sizes[:, 1] / tile_px**2)
        self._ends = np.cumsum(area)
        self.tiles = round(float(self._ends[-1]))
        self._rows = [np.flatnonzero(counts[:, label]) for label in range(counts.shape[1])]
        self._shares = np.cumsum(shares)

    def __getitem__(self, position: int) -> PairDraw:
        chance, which, *at = np.random.default_rng([self._seed, _TILES, position]).random(6).tolist()
        around = int(np.searchsorted(self._shares, chance, side="right"))
        places = at[0], at[1], at[2], at[3]
        if around < len(self._rows):
            rows = self._rows[around]
            return PairDraw(int(rows[int(which * len(rows))]), around, places)
        row = min(int(np.searchsorted(self._ends, which * self._ends[-1], side="right")), len(self._ends) - 1)
        return PairDraw(row, -1, places)


def class_shares(fit: Fit, names: Sequence[str], wanted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The share of tiles cut around each class, ``(K,)``.

    Those that ``fit.seen`` names have theirs; without it, all ``wanted`` ``(K,)`` classes that occur share
    :data:`BALANCED` equally. Raises :class:`DatasetInvalid` for a class that is not there.
    """
    shown: np.ndarray = np.any(counts, axis=0, keepdims=True)[0]
    if not fit.seen:
        known = wanted & shown
        even: np.ndarray = known * (BALANCED / max(1, int(known.sum())))
        return even
    shares = np.zeros(len(names))
    for name, share in fit.seen.items():
        if name not in names:
            raise DatasetInvalid(f"--seen {name}: no such class; there are {', '.join(names)}")
        if share and not shown[list(names).index(name)]:
            raise DatasetInvalid(f"--seen {name}={share:g}: no training mask shows {name}; leave it out")
        shares[list(names).index(name)] = share
    return shares


def check_tiles(tile_px: int, sizes: np.ndarray, names: Sequence[str]) -> None:
    """Raises :class:`DatasetInvalid` for tiles that are larger than an image."""
    sides = sizes.min(axis=1)
    row = int(sides.argmin())
    if tile_px > sides[row]:
        raise DatasetInvalid(
            f"tiles of {tile_px} px are larger than {names[row]!r}, which is {sizes[row][0]} x {sizes[row][1]} px; "
            f"give a --tile-px of at most {sides[row]} (a larger --scale), or leave out the smaller images"
        )


def cells_of(mask: np.ndarray, count: int) -> dict[int, np.ndarray]:
    """For each class in a mask ``(H, W)`` the cells that show it, ``(n, 2)`` int32 of their (row, column)."""
    found: dict[int, list[tuple[int, int]]] = {}
    for y in range(0, mask.shape[0], CELL_PX):
        for x in range(0, mask.shape[1], CELL_PX):
            labels = labels_of(mask[y : y + CELL_PX, x : x + CELL_PX])
            shown = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256)[:count])
            for label in shown.tolist():
                found.setdefault(label, []).append((y, x))
    return {label: np.array(each, dtype=np.int32) for label, each in found.items()}


def tile_box(draw: PairDraw, mask: np.ndarray, cells: Mapping[int, np.ndarray], tile_px: int) -> Box:
    """The tile of a draw: anywhere, or with a random pixel of its class in the middle half, if the border allows it."""
    height, width = mask.shape
    cell, pixel, down, right = draw.at
    if draw.around < 0:
        top, left = int(down * (height - tile_px + 1)), int(right * (width - tile_px + 1))
    else:
        chosen = cells[draw.around]
        y0, x0 = chosen[int(cell * len(chosen))].tolist()
        part = mask[y0 : y0 + CELL_PX, x0 : x0 + CELL_PX]
        places = np.flatnonzero(labels_of(part) == draw.around)
        y, x = divmod(int(places[int(pixel * len(places))]), part.shape[1])
        top = y0 + y - int((0.25 + 0.5 * down) * tile_px)
        left = x0 + x - int((0.25 + 0.5 * right) * tile_px)
        top, left = min(max(top, 0), height - tile_px), min(max(left, 0), width - tile_px)
    return left, top, left + tile_px, top + tile_px
