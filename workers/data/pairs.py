"""Fitted pairs of a set, decoded on request; the last ones stay in a cache of bounded size."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Lock, get_ident
from typing import Any, Protocol

import numpy as np

from workers.data.fit import Fit, fit_image, fit_mask, whole_box
from workers.data.instance_keys import Instances, labels_of
from workers.data.item_index import ItemFiles
from workers.data.pixels import class_counts
from workers.data.tiles import WHOLE, PairDraw, cells_of, tile_box

DEFAULT_CACHE_BYTES = 1 << 30
_DECODERS = 4
_LARGE_SHARE = 8
"""An image that takes more than this part of the cache is decoded once onto the disk."""

Pair = tuple[np.ndarray, np.ndarray]
"""An image ``(s, s, 3)`` and its mask ``(s, s)``, uint8; or the mask's keys with instances, int32."""


class Pairs(Protocol):
    """Pairs by row, of one dataset or several."""

    size_px: int

    def __len__(self) -> int: ...

    def pair(self, draw: PairDraw) -> Pair:
        """The fitted pair of a draw."""
        ...


class FittedPairs:
    """The pairs of some rows of a dataset, at one size and fit; row 0, 1, ... here is ``rows[0]``, ``rows[1]``, ..."""

    def __init__(
        self,
        files: ItemFiles,
        rows: np.ndarray,
        fit: Fit,
        size_px: int,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        scratch: Path | None = None,
        instances: Instances = "none",
    ) -> None:
        """``scratch`` is a folder for decoded images that are too large for the cache; None decodes them each time.

        With ``instances``, masks are keys (:mod:`workers.data.instance_keys`): those of ``maps`` if any item has one.
        """
        self._instances: Instances = "none" if instances == "maps" and not files.index.instances else instances
        decoders = {"maps": files.keys, "regions": files.region_keys, "none": files.mask}
        self._decode_mask = decoders[self._instances]
        self._files, self._fit, self._scratch = files, fit, scratch
        self.rows, self.size_px = rows, size_px
        self._max_bytes = cache_bytes
        self._cache: OrderedDict[int, tuple[Any, int]] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def cache_bytes(self) -> int:
        """The most that the cache holds."""
        return self._max_bytes

    @property
    def fits_in_cache(self) -> bool:
        """Whether all fitted pairs stay in memory once they have been read."""
        return self._fit.kind != "tiles" and len(self.rows) * self._pixel_bytes * self.size_px**2 <= self._max_bytes

    @property
    def _pixel_bytes(self) -> int:
        """Of an image and its mask together."""
        return 4 if self._instances == "none" else 7

    def limited(self, cache_bytes: int) -> FittedPairs:
        """The same pairs with a cache of their own, of another size."""
        return FittedPairs(
            self._files,
            self.rows,
            self._fit,
            self.size_px,
            cache_bytes=cache_bytes,
            scratch=self._scratch,
            instances=self._instances,
        )

    def pair(self, draw: PairDraw) -> Pair:
        if self._fit.tile_px is not None and draw.around != WHOLE:
            image, mask, cells = self._cached(draw.row, draw.row, self._native)
            box = tile_box(draw, mask, cells, self._fit.tile_px)
            return fit_image(image, box, self.size_px), fit_mask(mask, box, self.size_px)
        # of tiles, whole images are kept beside those that tiles are cut from
        found: Pair = self._cached(-1 - draw.row, draw.row, self._whole)
        return found

    def mask(self, row: int) -> np.ndarray:
        """The fitted mask of a row."""
        mask = self._files.mask(int(self.rows[row]))
        return fit_mask(mask, whole_box(self._fit, (mask.shape[1], mask.shape[0])), self.size_px)

    def counts(self, classes: int, on_row: Callable[[int], None] | None = None) -> np.ndarray:
        """The pixels of each class in the fitted masks, ``(N, classes)`` uint32; of tiles, in the whole masks."""
        if self._fit.kind == "tiles":
            own: np.ndarray = self._files.index.counts[self.rows]
            return own
        found = np.zeros((len(self), classes), np.uint32)

        def count(row: int) -> None:
            # where all pairs stay in memory, they are read but once
            mask = labels_of(self.pair(PairDraw(row))[1]) if self.fits_in_cache else self.mask(row)
            found[row] = class_counts(mask, classes)

        for row, _ in enumerate(in_threads(count, range(len(self)))):
            if on_row is not None:
                on_row(row + 1)
        return found

    def _whole(self, row: int) -> tuple[Pair, int]:
        place = int(self.rows[row])
        image, mask = self._files.image(place), self._decode_mask(place)
        box = whole_box(self._fit, (mask.shape[1], mask.shape[0]))
        pair = fit_image(image, box, self.size_px), fit_mask(mask, box, self.size_px)
        return pair, pair[0].nbytes + pair[1].nbytes

    def _native(self, row: int) -> tuple[tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]], int]:
        """Image and mask at their own size, with the cells of each class."""
        place = int(self.rows[row])
        width, height = self._files.index.sizes[place].tolist()
        if self._scratch is not None and self._pixel_bytes * width * height > self._max_bytes // _LARGE_SHARE:
            image, mask = self._on_disk(place, self._scratch)
            held = 0
        else:
            image, mask = self._files.image(place), self._decode_mask(place)
            held = image.nbytes + mask.nbytes
        cells = cells_of(mask, self._files.index.counts.shape[1])
        return (image, mask, cells), held + sum(each.nbytes for each in cells.values())

    def _on_disk(self, place: int, scratch: Path) -> Pair:
        """A decoded pair as files that are mapped into memory: a tile reads its own pages alone."""
        scratch.mkdir(parents=True, exist_ok=True)
        paths = []
        for which, decode in enumerate((self._files.image, self._decode_mask)):
            name = self._files.index.digests[place, which].tobytes().hex()
            if which and self._instances == "regions":
                name += "-regions"
            elif which and self._instances == "maps":
                numbered = self._files.index.instances.get(place)
                name += "-" if numbered is None else f"-{numbered.sha256}"
            path = scratch / f"{name}.npy"
            if not path.is_file():
                fresh = path.with_suffix(f".{os.getpid()}-{get_ident()}.tmp")
                with fresh.open("wb") as file:
                    np.save(file, decode(place))
                fresh.replace(path)
            paths.append(path)
        image, mask = (np.load(path, mmap_mode="r") for path in paths)
        return image, mask

    def _cached(self, key: int, row: int, make: Callable[[int], tuple[Any, int]]) -> Any:
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key][0]
        value, held = make(row)
        with self._lock:
            if key not in self._cache and held <= self._max_bytes:
                self._cache[key] = value, held
                self._held += held
                while self._held > self._max_bytes:
                    self._held -= self._cache.popitem(last=False)[1][1]
        return value

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict(), "_held": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()


class JoinedPairs:
    """The pairs of several datasets one after the other."""

    def __init__(self, parts: Sequence[FittedPairs]) -> None:
        self.parts, self.size_px = tuple(parts), parts[0].size_px
        self._begins = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._begins[-1])

    def begin(self, part: int) -> int:
        """The row of a part's first pair."""
        return int(self._begins[part])

    @property
    def fits_in_cache(self) -> bool:
        """Whether all of them stay in memory."""
        return all(part.fits_in_cache for part in self.parts)

    def pair(self, draw: PairDraw) -> Pair:
        part = int(np.searchsorted(self._begins, draw.row, side="right")) - 1
        return self.parts[part].pair(draw._replace(row=draw.row - int(self._begins[part])))


def stacked(pairs: Pairs, draws: Sequence[PairDraw]) -> Pair:
    """The pairs of draws: images ``(B, s, s, 3)`` and masks ``(B, s, s)``."""
    found = [pairs.pair(draw) for draw in draws]
    return np.stack([image for image, _ in found]), np.stack([mask for _, mask in found])


def whole_pairs(pairs: Pairs, rows: Sequence[int]) -> Pair:
    """The whole pairs of rows, all in memory: images ``(N, s, s, 3)`` and masks ``(N, s, s)``."""
    found = list(in_threads(lambda row: pairs.pair(PairDraw(row, WHOLE)), rows))
    return np.stack([image for image, _ in found]), np.stack([mask for _, mask in found])


def in_threads(work: Callable[[int], Any], rows: Sequence[int]) -> Iterator[Any]:
    """The results of ``work`` in order, a few ahead: decoders let other threads run."""
    waiting, ahead = iter(rows), 4 * _DECODERS
    with ThreadPoolExecutor(_DECODERS) as pool:
        queue = [pool.submit(work, row) for row in islice(waiting, ahead)]
        while queue:
            yield queue.pop(0).result()
            queue += [pool.submit(work, row) for row in islice(waiting, 1)]
