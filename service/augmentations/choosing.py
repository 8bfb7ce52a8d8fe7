"""From weights to a sequence of masks that is balanced at every length, and repeats each mask as evenly as its weight
allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.augmentations.raking import rake

_BUFFER = 512
"""Masks that are due and among which the next is chosen."""
_LEAST_BUFFER = 16
_WAITS = 4
"""Lengths of the buffer after which a mask that is due outweighs a typical gain in balance."""
_OVERUSE = 2.0
"""What one use beyond a mask's part weighs, against a typical gain in balance."""


@dataclass(frozen=True, eq=False)
class Sums:
    """What has been chosen before: ``features`` ``(C,)`` summed over ``images`` of them, and ``uses`` ``(P,)`` of each
    mask."""

    features: np.ndarray
    images: float
    uses: np.ndarray

    @classmethod
    def none(cls, masks: int, classes: int) -> Sums:
        """Nothing."""
        return cls(np.zeros(classes), 0.0, np.zeros(masks))


def choose(
    features: np.ndarray,
    target: np.ndarray,
    count: int,
    already: Sums,
    rng: np.random.Generator,
    *,
    horizon: int | None = None,
    weighed: np.ndarray | None = None,
    most: float = 1.0,
    kept: np.ndarray | None = None,
) -> np.ndarray:
    """``count`` masks, by their numbers ``(count,)``, with repetition, in the order to take them.

    ``features`` ``(P, C)`` are what the target is a mean of: shares of pixels, or 1 where a class occurs. With what is
    there ``already``, the mean comes to ``target`` ``(C,)`` after ``horizon`` masks (``count`` if None), as far as
    these masks can; before that it goes there evenly. Classes that are not ``weighed`` ``(C,)`` are free. Each mask
    comes as often as its weight says, which is at most ``most``, give or take one, those used least before first. Where
    of some classes less is ``kept`` ``(C,)`` of what is chosen than of others, relative to all, as much more of them is
    chosen.
    """
    weighed = np.ones(len(target), dtype=bool) if weighed is None else weighed
    horizon = max(count, horizon or count)
    used = features[:, weighed].astype(np.float64)
    scale = scales(target[weighed])
    aim = target[weighed] + (already.images * target[weighed] - already.features[weighed]) / horizon
    if kept is not None:
        whole = aim.sum()
        aim = aim / kept[weighed]
        if weighed.all() and abs(target.sum() - 1) < 1e-6:
            aim *= whole / aim.sum()  # parts of a whole
    weights = rake(used, aim, scale, most=most)
    # what lies beyond reach is left out of the aim, or one kind of mask would wait for ever
    changes = (used - weights @ used) / scale
    return _sequence(changes, weights, count, horizon, already, rng)


def scales(target: np.ndarray) -> np.ndarray:
    """What a miss of each class is measured by: its target, or 1 % for one that is less."""
    return np.maximum(target, 0.01)


def _sequence(
    changes: np.ndarray, weights: np.ndarray, count: int, horizon: int, already: Sums, rng: np.random.Generator
) -> np.ndarray:
    """Masks by ``weights`` so that the sum of their ``changes`` ``(P, K)`` stays near 0."""
    due = _due(weights, count, horizon, rng)
    size = min(len(due), max(_LEAST_BUFFER, min(_BUFFER, count // 2, len(changes) // 4)))
    # where nothing is to be balanced, uses and dues alone decide
    typical = float(weights @ (changes**2).sum(axis=1)) or 1.0
    overuse = already.uses - already.uses.sum() * weights
    # a mask's own cost: its square, what it was used beyond its part, and how late it became due
    own = (changes**2).sum(axis=1) + typical * _OVERUSE * overuse
    slot = due[:size].copy()
    slot_changes, slot_cost = changes[slot], own[slot].copy()
    error = np.zeros(changes.shape[1])
    picks = np.empty(count, dtype=np.int64)
    for number in range(count):
        place = int(np.argmin(slot_cost + 2 * (slot_changes @ error)))
        picks[number] = slot[place]
        error += slot_changes[place]
        if size + number < len(due):
            fresh = due[size + number]
            slot[place], slot_changes[place] = fresh, changes[fresh]
            slot_cost[place] = own[fresh] + typical * number / (_WAITS * size)
        else:
            slot_cost[place] = np.inf
    return picks


def _due(weights: np.ndarray, count: int, horizon: int, rng: np.random.Generator) -> np.ndarray:
    """Masks in the order in which they fall due, at least ``count``: each at even steps by its weight, from a random
    start.

    Systematic sampling: in any stretch, a mask falls due as often as its weight says, give or take one.
    """
    start = rng.random(len(weights))
    end = (count + _BUFFER) / horizon
    while True:
        times = np.maximum(0, np.ceil(horizon * weights * end - start)).astype(np.int64)
        if times.sum() >= count:
            break
        end *= 1.5
    mask = np.repeat(np.arange(len(weights)), times)
    number = np.arange(len(mask)) - np.repeat(np.cumsum(times) - times, times)
    when = (start[mask] + number) / weights[mask]
    return mask[np.argsort(when, kind="stable")]
