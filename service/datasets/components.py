"""The objects of a mask: given instances, or connected runs of pixels of one class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Regions:
    """``map`` ``(H, W)`` int32: 0 no region, 1..N a region; ``values`` ``(N,)`` int64: what the pixels of each hold."""

    map: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def areas(self) -> np.ndarray:
        """Pixels of each region ``(N,)``."""
        return np.bincount(self.map.reshape(-1), minlength=len(self) + 1)[1:]

    def boxes(self) -> np.ndarray:
        """``(N, 4)`` int64: left, top, width, height of each region in pixels."""
        rows, columns = np.nonzero(self.map)
        owners = self.map[rows, columns]
        least = np.full((len(self) + 1, 2), np.iinfo(np.int64).max)
        most = np.full((len(self) + 1, 2), -1, dtype=np.int64)
        for axis, places in enumerate((columns, rows)):
            np.minimum.at(least[:, axis], owners, places)
            np.maximum.at(most[:, axis], owners, places)
        return np.concatenate([least, most - least + 1], axis=1)[1:]


def connected(values: np.ndarray, nothing: set[int]) -> Regions:
    """Connected regions of equal values of ``(H, W)``, by shared sides (4-connectivity), numbered by their first pixel.

    Pixels whose value is in ``nothing`` are in no region. Pixels that meet at a corner alone are two regions: each then
    has one outer border, which a polygon can follow.
    """
    height, width = values.shape
    first_of_run = np.ones(values.shape, dtype=bool)
    first_of_run[:, 1:] = values[:, 1:] != values[:, :-1]
    run = (np.cumsum(first_of_run) - 1).reshape(height, width)
    run_value = values[first_of_run].astype(np.int64)
    same = values[1:] == values[:-1]
    # a pair of runs meets where either of them begins, so those pixels say it all
    meets = same & (first_of_run[1:] | first_of_run[:-1])
    root = _joined(len(run_value), run[:-1][meets], run[1:][meets])
    taken = np.ones(len(run_value), dtype=bool)
    for value in nothing:
        taken &= run_value != value
    # the least run of a region is its root, so counting roots in order numbers regions by their first pixel
    is_root = taken & (root == np.arange(len(root)))
    number = np.where(taken, np.cumsum(is_root)[root], 0).astype(np.int32)
    roots = np.flatnonzero(is_root)
    return Regions(number[run], run_value[roots])


def objects(labels: np.ndarray, instances: np.ndarray | None, nothing: set[int]) -> Regions:
    """The objects of class indices ``(H, W)``: those of ``instances``, and where it has none, connected regions of a
    class.

    ``nothing`` holds the labels that are no objects. ``values`` are the objects' class indices. An instance may have
    parts that do not touch; where its pixels have several classes, it is one object for each.
    """
    regions = connected(labels, nothing)
    if instances is None or not instances.any():
        return regions
    given = (instances > 0) & (regions.map > 0)
    keys = np.where(given, (instances.astype(np.int64) << 8) | labels, -regions.map.astype(np.int64))
    keys[regions.map == 0] = 0
    if (connected_needed := ~given & (regions.map > 0)).any():
        # what instances cut away may leave a region in pieces
        rest = connected(np.where(connected_needed, labels, 255).astype(np.int64), {*nothing, 255})
        keys[connected_needed] = -rest.map[connected_needed].astype(np.int64)
    found, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    kept = found != 0
    order = np.argsort(np.where(kept, first, labels.size), kind="stable")
    rank = np.zeros(len(found), dtype=np.int32)
    rank[order[: kept.sum()]] = np.arange(1, kept.sum() + 1)
    return Regions(rank[inverse].reshape(labels.shape), labels.reshape(-1)[first[order[: kept.sum()]]].astype(np.int64))


def _joined(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The least member of each of ``count`` nodes' group, where ``left[i]`` and ``right[i]`` are of one group."""
    root = np.arange(count)
    while True:
        low, high = np.minimum(root[left], root[right]), np.maximum(root[left], root[right])
        if (low == high).all():
            return root
        np.minimum.at(root, high, low)
        while (root[root] != root).any():
            root = root[root]
