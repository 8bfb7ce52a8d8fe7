"""What the classes of a set should come to, and what a pool of masks can reach.

Two measures. By **pixels**, a class's share is of the pixels that have a class, each image counting alike. By
**images**, it is the share of images in which the class covers at least 0.5 %; these shares do not add up to 1. Both
are means over images of what an image contributes (its ``features``), so that weights of images decide on them.

A share meets its target within 5 % of it, or within 0.1 percentage points where that is more (so for targets below 2
%).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model_store.card import join_words
from service.augmentations.choosing import scales
from service.augmentations.pool import FOUND_SHARE
from service.augmentations.raking import effective_number, rake
from service.augmentations.request import BalanceBy
from service.errors import InvalidRequest

TOLERANCE = 0.05
TOLERANCE_POINTS = 0.001


@dataclass(frozen=True, eq=False)
class BalanceTarget:
    """``shares`` ``(C,)`` 0..1 by class, by pixels or by images; those that are not ``weighed`` ``(C,)`` bool are
    free."""

    by: BalanceBy
    shares: np.ndarray
    weighed: np.ndarray

    def met(self, shares: np.ndarray) -> np.ndarray:
        """Whether each class's share ``(C,)`` is within tolerance; True for free ones."""
        return ~self.weighed | (np.abs(shares - self.shares) <= np.maximum(TOLERANCE * self.shares, TOLERANCE_POINTS))


@dataclass(frozen=True, eq=False)
class Feasibility:
    """What comes nearest to a target: ``weights`` ``(P,)`` of the masks, the ``shares`` ``(C,)`` that they give, and in
    ``sentences`` why a class cannot have its share. ``masks`` is how many masks of equal weight are as many as
    these."""

    weights: np.ndarray
    shares: np.ndarray
    sentences: tuple[str, ...]
    masks: float

    @property
    def met(self) -> bool:
        """Whether each class can have its share, within tolerance."""
        return not self.sentences


def features(histograms: np.ndarray, by: BalanceBy) -> np.ndarray:
    """What each mask contributes ``(P, C)`` float64: shares of its pixels that have a class, or 1 for classes that are
    in it."""
    if by == "images":
        return (histograms >= FOUND_SHARE).astype(np.float64)
    return histograms / np.maximum(histograms.sum(axis=1, dtype=np.float64), 1e-12)[:, None]


def target_of(
    balance: str | Mapping[int, float] | None,
    by: BalanceBy,
    contributed: np.ndarray,
    ground: frozenset[int] = frozenset(),
) -> BalanceTarget:
    """The target that a request's ``balance`` stands for, given what the real masks contribute (:func:`features`, ``(P,
    C)``).

    None: the real shares. ``even`` and ``inverse`` divide what the objects have: ``ground`` keeps its share by pixels,
    and is free by images; classes that never occur get none. By images only their proportions are given, so their level
    is that of the weights which meet those and change the real set the least. A map of shares by class index: by pixels
    the other classes get what is left, in proportion to their real shares; by images they are free.

    Raises InvalidRequest for shares that leave something over with no class to take it, or more than all.
    """
    real = contributed.mean(axis=0)
    everything = np.ones(len(real), dtype=bool)
    if balance is None:
        return BalanceTarget(by, real, everything)
    if isinstance(balance, Mapping):
        return _explicit(balance, by, real)
    objects = real > 0
    objects[list(ground)] = False
    if not objects.any():
        return BalanceTarget(by, real, everything)
    wanted = np.zeros(len(real))
    wanted[objects] = 1.0 if balance == "even" else 1 / real[objects]
    wanted /= wanted.sum()
    if by == "pixels":
        return BalanceTarget(by, np.where(objects, wanted * real[objects].sum(), real), everything)
    return BalanceTarget(by, wanted * _level(contributed[:, objects], wanted[objects]), objects)


def feasibility(
    contributed: np.ndarray, target: BalanceTarget, names: Sequence[str], *, most: float = 1.0
) -> Feasibility:
    """The shares nearest to the target that any mix of the masks can reach, from what they contribute (``(P, C)``).

    Nearest is the least sum of squared misses, each as a part of its target. No mask has a weight above ``most``.
    """
    wanted = target.weighed
    weights = rake(contributed[:, wanted], target.shares[wanted], scales(target.shares[wanted]), most=most)
    shares = weights @ contributed
    sentences = tuple(_sentences(names, contributed, shares, target, most))
    return Feasibility(weights, shares, sentences, effective_number(weights))


def _explicit(balance: Mapping[int, float], by: BalanceBy, real: np.ndarray) -> BalanceTarget:
    named = np.zeros(len(real), dtype=bool)
    named[list(balance)] = True
    shares = np.zeros(len(real))
    shares[list(balance)] = list(balance.values())
    if by == "images":
        return BalanceTarget(by, shares, named)
    left, others = 1 - shares.sum(), np.where(named, 0, real)
    if left < -1e-6 or (left > 1e-6 and not others.any()):
        why = (
            "of pixels there is no more than 1" if left < 0 else "no other class occurs in the dataset to take the rest"
        )
        detail = f"the shares of balance add up to {shares.sum():g}, and {why}; make them add up to 1"
        raise InvalidRequest(detail, errors=[{"pointer": "/balance", "detail": detail}])
    if others.any():
        shares = shares + others / others.sum() * max(0.0, left)
    return BalanceTarget(by, shares, np.ones(len(real), dtype=bool))


def _level(occurs: np.ndarray, proportions: np.ndarray) -> float:
    """How many of the classes ``(P, K)`` an image has on average where they occur in the given ``proportions``
    ``(K,)``.

    Weights of images that meet proportions of occurrences are, times each image's number of classes, weights of mean
    proportions.
    """
    number = occurs.sum(axis=1)
    having = number > 0
    by_occurrence = rake(occurs[having] / number[having, None], proportions, scales(proportions), prior=number[having])
    by_image = by_occurrence / number[having]
    level = having.mean() / by_image.sum()
    # a class cannot be in more than all images
    return float(min(level, having.mean() / proportions.max()))


def _sentences(
    names: Sequence[str], contributed: np.ndarray, shares: np.ndarray, target: BalanceTarget, most: float
) -> Iterator[str]:
    """Why the target is missed. Where a class lacks pixels, others have them: that follows, and is told in one
    sentence."""
    of = "the pixels" if target.by == "pixels" else "the images"
    missed = np.flatnonzero(~target.met(shares))
    lacking = any(shares[index] < target.shares[index] for index in missed)
    more: list[str] = []
    for index in missed:
        name, wanted, reached = names[index], target.shares[index], shares[index]
        asked = f"{percent(wanted)} are asked for"
        highest, lowest = _extreme(contributed[:, index], most), -_extreme(-contributed[:, index], most)
        if not contributed[:, index].any():
            yield f"{name} is in none of these masks; {asked}"
        elif wanted > max(reached, highest):
            yield f"{name} can reach at most {percent(highest)} of {of} with these masks; {asked}"
        elif wanted < min(reached, lowest):
            yield f"{name} has at least {percent(lowest)} of {of} with these masks; {asked}"
        elif wanted > reached:
            yield f"{name} can reach {percent(reached)} of {of} with these masks beside what the other classes are to have; {asked}"
        elif lacking and target.by == "pixels":
            more.append(f"{name} has {percent(reached)} in place of {percent(wanted)}")
        else:
            yield f"{name} cannot fall below {percent(reached)} of {of} beside what the other classes are to have; {asked}"
    if more:
        yield f"what is lacking goes to other classes: {join_words(more)}"


def _extreme(contributed: np.ndarray, most: float) -> float:
    """The largest mean that weights of at most ``most`` give: of the masks with the largest values."""
    most = min(1.0, max(most, 1 / len(contributed)))
    full = int(1 / most + 1e-9)
    largest = np.sort(contributed)[::-1][: full + 1]
    return float(most * largest[:full].sum() + ((1 - most * full) * largest[full] if len(largest) > full else 0.0))


def percent(share: float) -> str:
    """A share 0..1 as a sentence has it."""
    return f"{100 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2g} %"
