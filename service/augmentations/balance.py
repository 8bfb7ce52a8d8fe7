"""Target shares of the classes of a set, and what a pool of masks can reach.

Two measures. By **pixels**, a class's share is of the pixels that have a class, each image counting equally. By
**images**, it is the share of images in which the class covers at least 0.5 %; these shares do not add up to 1. Both
are means over images of what an image contributes (its ``features``), so they follow from the weights of images.

A share meets its target within 5 % of it, or within 0.1 percentage points where that is more (for targets below 2 %).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model_store.card import join_words
from service.augmentations.choosing import scales
from service.augmentations.plan_values import BalanceBy
from service.augmentations.pool import FOUND_SHARE
from service.augmentations.raking import effective_number, rake
from service.errors import InvalidRequest

TOLERANCE = 0.05
TOLERANCE_POINTS = 0.001


@dataclass(frozen=True, eq=False)
class BalanceTarget:
    """Target shares ``(C,)`` 0..1 by class, of pixels or images; classes not ``constrained`` ``(C,)`` bool are free."""

    by: BalanceBy
    shares: np.ndarray
    constrained: np.ndarray

    def met(self, shares: np.ndarray) -> np.ndarray:
        """Whether each class's share ``(C,)`` is within tolerance; True for free classes."""
        near = np.abs(shares - self.shares) <= np.maximum(TOLERANCE * self.shares, TOLERANCE_POINTS)
        return np.asarray(~self.constrained | near)


@dataclass(frozen=True, eq=False)
class Feasibility:
    """The nearest that a pool of masks can come to a target.

    ``weights`` ``(P,)`` of the masks, the ``shares`` ``(C,)`` they give, and ``sentences`` on classes that miss their
    share. ``masks`` is the effective number of masks: how many of equal weight these weights correspond to.
    """

    weights: np.ndarray
    shares: np.ndarray
    sentences: tuple[str, ...]
    masks: float

    @property
    def met(self) -> bool:
        """Whether each class can reach its share, within tolerance."""
        return not self.sentences


def features(histograms: np.ndarray, by: BalanceBy) -> np.ndarray:
    """What each mask contributes ``(P, C)`` float64: shares of its labelled pixels, or 1 for each class it contains."""
    if by == "images":
        return np.asarray(histograms >= FOUND_SHARE, dtype=np.float64)
    labelled: np.ndarray = np.maximum(histograms.sum(axis=1, dtype=np.float64), 1e-12)
    return np.asarray(histograms / labelled[:, None])


def target_of(
    balance: str | Mapping[int, float] | None,
    by: BalanceBy,
    contributed: np.ndarray,
    background: frozenset[int] = frozenset(),
) -> BalanceTarget:
    """The target of a request's ``balance``, given what the real masks contribute (:func:`features`, ``(P, C)``).

    None: the real shares. ``even`` and ``inverse`` divide what the objects have: ``background`` keeps its share by
    pixels, and is free by images; classes that never occur get none. By images only proportions are given; their level
    is that of the weights that meet them and change the real set the least. A map of shares by class index: by pixels,
    the other classes get the rest in proportion to their real shares; by images they are free.

    Raises InvalidRequest for shares of pixels that add up to more than 1, or to less with no class to take the rest.
    """
    real = contributed.mean(axis=0)
    everything = np.ones(len(real), dtype=bool)
    if balance is None:
        return BalanceTarget(by, real, everything)
    if isinstance(balance, Mapping):
        return _explicit(balance, by, real)
    objects = real > 0
    objects[list(background)] = False
    if not objects.any():
        return BalanceTarget(by, real, everything)
    wanted = np.zeros(len(real))
    wanted[objects] = 1.0 if balance == "even" else 1 / real[objects]
    wanted /= wanted.sum()
    if by == "pixels":
        return BalanceTarget(by, np.where(objects, wanted * real[objects].sum(), real), everything)
    return BalanceTarget(by, wanted * _level(contributed[:, objects], wanted[objects]), objects)


def feasibility(
    contributed: np.ndarray, target: BalanceTarget, names: Sequence[str], *, max_weight: float = 1.0
) -> Feasibility:
    """The shares nearest to the target that any mix of the masks can reach, from what they contribute ``(P, C)``.

    Nearest means the least sum of squared misses, each relative to its target. No weight is above ``max_weight``.
    """
    wanted = target.constrained
    weights = rake(contributed[:, wanted], target.shares[wanted], scales(target.shares[wanted]), max_weight=max_weight)
    shares = weights @ contributed
    sentences = tuple(_sentences(names, contributed, shares, target, max_weight))
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
            "shares of pixels cannot exceed 1" if left < 0 else "no other class occurs in the dataset to take the rest"
        )
        detail = f"the shares of balance add up to {shares.sum():g}, and {why}; make them add up to 1"
        raise InvalidRequest(detail, errors=[{"pointer": "/balance", "detail": detail}])
    if others.any():
        shares = shares + others / others.sum() * max(0.0, left)
    return BalanceTarget(by, shares, np.ones(len(real), dtype=bool))


def _level(occurs: np.ndarray, proportions: np.ndarray) -> float:
    """How many of the classes ``(P, K)`` an image has on average if they occur in these ``proportions`` ``(K,)``.

    Weights of images that meet proportions of occurrences are, times each image's number of classes, weights of mean
    proportions.
    """
    number = occurs.sum(axis=1)
    any_class = number > 0
    by_occurrence = rake(
        occurs[any_class] / number[any_class, None], proportions, scales(proportions), prior=number[any_class]
    )
    by_image = by_occurrence / number[any_class]
    level = any_class.mean() / by_image.sum()
    # a class cannot be in more than all images
    return float(min(level, any_class.mean() / proportions.max()))


def _sentences(
    names: Sequence[str], contributed: np.ndarray, shares: np.ndarray, target: BalanceTarget, max_weight: float
) -> Iterator[str]:
    """Why the target is missed. Pixels that one class lacks others have in excess; one sentence lists these."""
    of = "the pixels" if target.by == "pixels" else "the images"
    missed = np.flatnonzero(~target.met(shares))
    lacking = any(shares[index] < target.shares[index] for index in missed)
    more: list[str] = []
    for index in map(int, missed):
        name, wanted, reached = names[index], target.shares[index], shares[index]
        requested = f"{percent(wanted)} are requested"
        highest, lowest = _extreme(contributed[:, index], max_weight), -_extreme(-contributed[:, index], max_weight)
        if not contributed[:, index].any():
            yield f"{name} is in none of these masks; {requested}"
        elif wanted > max(reached, highest):
            yield f"{name} can reach at most {percent(highest)} of {of} with these masks; {requested}"
        elif wanted < min(reached, lowest):
            yield f"{name} has at least {percent(lowest)} of {of} with these masks; {requested}"
        elif wanted > reached:
            yield f"{name} can reach {percent(reached)} of {of} beside the targets of the other classes; {requested}"
        elif lacking and target.by == "pixels":
            more.append(f"{name} has {percent(reached)} in place of {percent(wanted)}")
        else:
            yield f"{name} cannot fall below {percent(reached)} of {of} beside these targets; {requested}"
    if more:
        yield f"other classes have more instead: {join_words(more)}"


def _extreme(contributed: np.ndarray, max_weight: float) -> float:
    """The largest mean that weights of at most ``max_weight`` can give."""
    max_weight = min(1.0, max(max_weight, 1 / len(contributed)))
    full = int(1 / max_weight + 1e-9)
    largest = np.sort(contributed)[::-1][: full + 1]
    return float(
        max_weight * largest[:full].sum() + ((1 - max_weight * full) * largest[full] if len(largest) > full else 0.0)
    )


def percent(share: float) -> str:
    """A share 0..1 as text: "12.3 %"."""
    return f"{100 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2g} %"
