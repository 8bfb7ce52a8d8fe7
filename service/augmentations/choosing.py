"""Sequences of masks from weights: balanced at every length, with each mask repeated as evenly as its weight allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.augmentations.raking import rake

_BUFFER = 512
"""Number of due masks among which the next one is chosen."""
_MIN_BUFFER = 16
_MAX_WAIT_BUFFERS = 4
"""After waiting for so many buffer lengths, a due mask outweighs a typical gain in balance."""
_OVERUSE_COST = 2.0
"""Cost of one use more than a mask's weight allows, relative to a typical gain in balance."""


@dataclass(frozen=True, eq=False)
class ChosenSoFar:
    """What was chosen before: ``features`` ``(C,)`` summed over ``images``, and the ``uses`` ``(P,)`` of each mask."""

    features: np.ndarray
    images: float
    uses: np.ndarray

    @classmethod
    def none(cls, masks: int, classes: int) -> ChosenSoFar:
        """Nothing chosen yet."""
        return cls(np.zeros(classes), 0.0, np.zeros(masks))


def choose(
    features: np.ndarray,
    target: np.ndarray,
    count: int,
    already: ChosenSoFar,
    rng: np.random.Generator,
    *,
    horizon: int | None = None,
    constrained: np.ndarray | None = None,
    max_weight: float = 1.0,
    yields: np.ndarray | None = None,
) -> np.ndarray:
    """The numbers of ``count`` masks ``(count,)``, with repetition, in the order to use them.

    ``features`` ``(P, C)`` are what the target is a mean of: shares of pixels, or 1 where a class occurs. Together with
    what is chosen ``already``, their mean reaches ``target`` ``(C,)`` after ``horizon`` masks (``count`` if None), as
    far as these masks can, and approaches it evenly before. Classes that are not ``constrained`` ``(C,)`` are free.
    Each mask is used as often as its weight says, give or take one, the least used first; no weight is above
    ``max_weight``. ``yields`` ``(C,)``: how much of each class comes out of what is chosen, relative to all classes;
    of a class with a low yield correspondingly more is chosen.
    """
    constrained = np.ones(len(target), dtype=bool) if constrained is None else constrained
    horizon = max(count, horizon or count)
    used = features[:, constrained].astype(np.float64)
    scale = scales(target[constrained])
    aim = target[constrained] + (already.images * target[constrained] - already.features[constrained]) / horizon
    if yields is not None:
        whole = aim.sum()
        aim = aim / yields[constrained]
        if constrained.all() and abs(target.sum() - 1) < 1e-6:
            aim *= whole / aim.sum()  # parts of a whole
    weights = rake(used, aim, scale, max_weight=max_weight)
    # the unreachable part of the aim is dropped, or one kind of mask would be preferred for ever
    changes = (used - weights @ used) / scale
    return _sequence(changes, weights, count, horizon, already, rng)


def scales(target: np.ndarray) -> np.ndarray:
    """The unit in which a miss of each class is measured: its target, but at least 1 %."""
    return np.asarray(np.maximum(target, 0.01))


def _sequence(
    changes: np.ndarray, weights: np.ndarray, count: int, horizon: int, already: ChosenSoFar, rng: np.random.Generator
) -> np.ndarray:
    """A sequence of masks by ``weights``, in which the sum of their ``changes`` ``(P, K)`` stays near 0."""
    due = _due(weights, count, horizon, rng)
    size = min(len(due), max(_MIN_BUFFER, min(_BUFFER, count // 2, len(changes) // 4)))
    # if nothing is to be balanced, uses and due times alone decide
    typical = float(weights @ (changes**2).sum(axis=1)) or 1.0
    overuse = already.uses - already.uses.sum() * weights
    # a mask's own cost: its square, its overuse, and how late it became due
    own = (changes**2).sum(axis=1) + typical * _OVERUSE_COST * overuse
    slot = due[:size].copy()
    slot_changes, slot_cost = changes[slot], own[slot].copy()
    error = np.zeros(changes.shape[1])
    picks = np.empty(count, dtype=np.int64)
    for number in range(count):
        place = int(np.argmin(slot_cost + 2 * (slot_changes @ error)))  # least |error + change|^2
        picks[number] = slot[place]
        error += slot_changes[place]
        if size + number < len(due):
            fresh = due[size + number]
            slot[place], slot_changes[place] = fresh, changes[fresh]
            slot_cost[place] = own[fresh] + typical * number / (_MAX_WAIT_BUFFERS * size)
        else:
            slot_cost[place] = np.inf
    return picks


def _due(weights: np.ndarray, count: int, horizon: int, rng: np.random.Generator) -> np.ndarray:
    """At least ``count`` masks in the order they fall due: each in even steps by its weight, from a random start.

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
