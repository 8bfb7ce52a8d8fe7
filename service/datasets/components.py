"""The objects of a mask: given instances, or connected regions of one class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK_PIXELS = 1 << 20


@dataclass(frozen=True)
class Regions:
    """Regions of a mask: ``map`` ``(H, W)`` int32 is 0 for no region, 1..N a region; ``values`` ``(N,)`` int64.

    ``values`` are the mask's value in each region.
    """

    map: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def areas(self) -> np.ndarray:
        """The number of pixels of each region ``(N,)``."""
        counts = np.zeros(len(self) + 1, dtype=np.int64)
        for block in self._blocks():
            counts += np.bincount(self.map[block].reshape(-1), minlength=len(self) + 1)
        return counts[1:]

    def boxes(self) -> np.ndarray:
        """The bounding boxes ``(N, 4)`` int64: left, top, width, height of each region in pixels."""
        low = np.full((len(self) + 1, 2), np.iinfo(np.int64).max)
        high = np.full((len(self) + 1, 2), -1, dtype=np.int64)
        for block in self._blocks():
            rows, columns = np.nonzero(self.map[block])
            owners = self.map[block][rows, columns]
            for axis, positions in enumerate((columns, rows + block.start)):
                np.minimum.at(low[:, axis], owners, positions)
                np.maximum.at(high[:, axis], owners, positions)
        return np.concatenate([low, high - low + 1], axis=1)[1:]

    def _blocks(self) -> Iterator[slice]:
        """The rows a few at a time: numpy's positions and counts take eight bytes a pixel and more."""
        height, width = self.map.shape
        step = max(1, _BLOCK_PIXELS // max(1, width))
        return (slice(top, min(top + step, height)) for top in range(0, height, step))


def count_borders(values: np.ndarray) -> int:
    """The number of pairs of neighbouring pixels of ``(H, W)`` that differ."""
    across, down = values[:, 1:] != values[:, :-1], values[1:] != values[:-1]
    return int(np.count_nonzero(across)) + int(np.count_nonzero(down))


def connected(values: np.ndarray, excluded: set[int]) -> Regions:
    """Connected regions of equal values of ``(H, W)``, by shared sides (4-connectivity), numbered by their first pixel.

    Pixels whose value is in ``excluded`` are in no region. Pixels that touch only at a corner are in two regions, so
    that each region has one outer border, which a polygon can follow.
    """
    height, width = values.shape
    first_of_run = np.ones(values.shape, dtype=bool)
    first_of_run[:, 1:] = values[:, 1:] != values[:, :-1]
    run = np.cumsum(first_of_run, dtype=np.int32).reshape(height, width)
    run -= 1
    run_value = values[first_of_run].astype(np.int64)
    same = values[1:] == values[:-1]
    # if two runs touch, they also touch at a pixel where one of them begins, so those pixels suffice
    touching = same & (first_of_run[1:] | first_of_run[:-1])
    root = join_groups(len(run_value), run[:-1][touching], run[1:][touching])
    included = np.ones(len(run_value), dtype=bool)
    for value in excluded:
        included &= run_value != value
    # the lowest run of a region is its root, so counting roots in order numbers regions by their first pixel
    is_root = included & (root == np.arange(len(root)))
    number = np.where(included, np.cumsum(is_root)[root], 0).astype(np.int32)
    roots = np.flatnonzero(is_root)
    return Regions(number[run], run_value[roots])


def objects(labels: np.ndarray, instances: np.ndarray | None, excluded: set[int]) -> Regions:
    """The objects of class indices ``(H, W)``: the given ``instances``, and connected regions of the other pixels.

    Pixels with a label in ``excluded`` belong to no object. ``values`` are the objects' class indices. An instance may
    have parts that do not touch; if its pixels have several classes, it is one object for each.
    """
    regions = connected(labels, excluded)
    if instances is None or not instances.any():
        return regions
    given = (instances > 0) & (regions.map > 0)
    keys = np.where(given, (instances.astype(np.int64) << 8) | labels, -regions.map.astype(np.int64))
    keys[regions.map == 0] = 0
    if (connected_needed := ~given & (regions.map > 0)).any():
        # instances cut out of a region may leave it in pieces
        rest = connected(np.where(connected_needed, labels, 255).astype(np.int64), {*excluded, 255})
        keys[connected_needed] = -rest.map[connected_needed].astype(np.int64)
    found, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    is_object = found != 0
    order = np.argsort(np.where(is_object, first, labels.size), kind="stable")[: is_object.sum()]
    rank = np.zeros(len(found), dtype=np.int32)
    rank[order] = np.arange(1, len(order) + 1)
    return Regions(rank[inverse].reshape(labels.shape), labels.reshape(-1)[first[order]].astype(np.int64))


def join_groups(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The lowest node of each node's group, for ``count`` nodes and edges ``left[i]`` to ``right[i]`` (union-find)."""
    root = np.arange(count)
    while True:
        low, high = np.minimum(root[left], root[right]), np.maximum(root[left], root[right])
        if (low == high).all():
            return root
        np.minimum.at(root, high, low)
        while (root[root] != root).any():
            root = root[root]
