"""A plan: which twins to make next, so that what is accepted comes to what was asked for.

Nothing is random about it but the seed. What comes next depends on the plan and on the tally of what has been made, so
a plan that is made again from the same request and data goes on where another left off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model_store.card import ModelCard
from service.augmentations.admission import AugmentationParameters
from service.augmentations.balance import BalanceTarget, Feasibility, feasibility, features, target_of
from service.augmentations.class_sets import ClassSets, class_sets
from service.augmentations.entries import JobGroup, PlanEntry, Wanted, job_groups
from service.augmentations.pool import FOUND_SHARE, Pool, histogram
from service.augmentations.prompts import spoken
from service.augmentations.request import MaskSource
from service.augmentations.supply import Candidates
from service.augmentations.tally import SetTally
from service.augmentations.transforms.base import TransformContext
from service.augmentations.transforms.compose import Composed, compose
from service.errors import InvalidRequest
from service.kit.seeds import sample_seed

__all__ = ["JobGroup", "Plan", "PlanEntry", "Wanted", "job_groups", "make_plan"]

_BLOCK, _FIRST_BLOCKS, _FIRST = 64, 16, 128
"""Entries that are chosen together, and of the first 128; after them, what they came to is looked at."""
_LEAST_LABELLED = 0.5
"""Masks with less of their pixels labelled are not drawn from: most of such a mask would be filled in."""
_MAX_CLASS_WEIGHT = 5.0
"""A class of which ten times as much is wanted as can be had is no more than five times as likely to be cloned: the
rest lives on."""
_LEAST_RATE = 0.25
_GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, lie evenly however many there are."""


def make_plan(parameters: AugmentationParameters, card: ModelCard, pool: Pool) -> Plan:
    """The plan of an admitted request over the real items.

    Raises InvalidRequest where no item can be drawn from, or where the balance leaves shares that no class can take.
    """
    histograms = np.asarray(pool.histograms)
    if histograms.ndim != 2 or histograms.shape[1] != len(card.classes):
        raise ValueError(
            f"the pool's histograms are {histograms.shape}; {card.id} has {len(card.classes)} classes, one a column"
        )
    left_out: dict[str, int] = {}
    usable = histograms.sum(axis=1) >= _LEAST_LABELLED
    left_out["unlabelled"] = int((~usable).sum())
    if parameters.templates and all("caption" in template.uses for template in parameters.templates):
        captioned = np.array([bool(pool.caption(item)) for item in range(len(histograms))], dtype=bool)
        left_out["without_caption"] = int((usable & ~captioned).sum())
        usable &= captioned
    contributed = features(histograms, parameters.balance_by)

    def most(items: np.ndarray) -> float:
        # a set of fewer twins than items takes an item once at most anyway
        return min(1.0, max(parameters.max_uses / max(1, len(items)), 1 / parameters.count))

    sets = None
    supplies: dict[bool, Candidates] = {}
    if parameters.weights.keys() & {"real", "transformed"}:
        items = np.flatnonzero(usable)
        supplies[False] = Candidates(items, contributed[items], parameters.balance_by, most(items))
    if "classes" in parameters.weights:
        askable = np.array([entry.queryable for entry in card.classes])
        sets = class_sets(np.where(usable[:, None], histograms, 0), askable)
        items = np.flatnonzero(sets.of_item >= 0)
        left_out["without_class"] = int((usable & (sets.of_item < 0)).sum())
        expected = sets.means(contributed)[sets.of_item[items]]
        supplies[True] = Candidates(items, expected, parameters.balance_by, most(items))
    for supply in supplies.values():
        if not len(supply):
            _refuse(len(histograms), left_out)
    first = next(iter(supplies.values()))
    target = target_of(parameters.balance, parameters.balance_by, first.contributed, parameters.match.ground)
    names = [entry.name for entry in card.classes]
    feasible = {
        drawn: feasibility(supply.contributed, target, names, most=supply.most) for drawn, supply in supplies.items()
    }
    return Plan(parameters, card, pool, target, supplies, feasible, sets, {why: n for why, n in left_out.items() if n})


@dataclass(frozen=True, eq=False)
class Plan:
    """Deterministic: the same parameters, card and pool make the same plan, and the same tally the same next entries.

    ``supplies`` and ``feasible`` are by whether the model draws the masks (True) or is given them (False), of those
    that are used.
    """

    parameters: AugmentationParameters
    card: ModelCard
    pool: Pool
    target: BalanceTarget
    supplies: Mapping[bool, Candidates]
    feasible: Mapping[bool, Feasibility]
    sets: ClassSets | None
    left_out: Mapping[str, int]

    @property
    def count(self) -> int:
        """Twins wanted."""
        return self.parameters.count

    @property
    def tries(self) -> int:
        """Samples made at most."""
        return math.ceil(self.parameters.budget * self.count)

    def lacking(self, tally: SetTally) -> int:
        """How many entries to make next: as many as twins are lacking, more where few were accepted so far, none beyond
        ``tries``.

        0 with none only expected: the set has ended. Should more than expected be accepted, those above ``count`` are
        left out.
        """
        left = self.tries - tally.tried
        # of the first few nothing can be told, and a bad start is no reason to spend all tries at once
        rate = max(_LEAST_RATE, tally.rate) if tally.asked.images >= _BLOCK else 1.0
        lacking = self.count - tally.accepted - rate * tally.expected.images
        return max(0, min(left, math.ceil(lacking / rate)))

    def next(self, tally: SetTally, count: int) -> Iterator[PlanEntry]:
        """The next ``count`` entries after those of ``tally``, one by one as their masks are made; ``tally`` is not
        changed.

        Entry k is numbered ``tally.tried + k``. Of the same tally, fewer entries are the first ones of more.
        """
        running = tally.copy()
        while count > 0:
            for index, item in self._block(running)[:count]:
                entry = self._entry(index, item)
                yield entry
                running.expect(item, entry.shares)
                count -= 1

    def compose(self, wanted: Wanted) -> Composed:
        """The mask of an entry, made again, and how. Raises ValueError for one whose mask the model draws."""
        if wanted.source == "classes":
            raise ValueError(f"entry {wanted.index} is made by classes; its mask is the model's, and not known before")
        transformed = wanted.source == "transformed"
        return compose(
            self.pool.mask(wanted.item),
            np.random.default_rng(wanted.seed),
            self.parameters.transforms if transformed else None,
            _Partner(self.pool, wanted.partner),
            size_px=self.parameters.size_px,
            scene=TransformContext(self._class_weights, self.parameters.match.ground),
            fill=True,
        )

    def mask(self, wanted: Wanted) -> np.ndarray:
        """The class indices ``(size, size)`` uint8 of an entry's mask, made again. Raises ValueError as
        :meth:`compose`."""
        return self.compose(wanted).labels

    @cached_property
    def real(self) -> np.ndarray:
        """The shares ``(C,)`` of the real items that are drawn from."""
        return next(iter(self.supplies.values())).real

    def _block(self, tally: SetTally) -> list[tuple[int, int]]:
        """The next entries as (index, item): as many as are chosen together."""
        indices = range(tally.tried, tally.tried + (_BLOCK if tally.tried >= _FIRST else _FIRST_BLOCKS))
        rng = np.random.default_rng([self.parameters.seed, tally.tried])
        lacking = max(1, round(self.count - tally.accepted - tally.rate * tally.expected.images))
        drawn = np.array([self._source(index) == "classes" for index in indices])
        items = np.empty(len(indices), dtype=np.int64)
        for kind, supply in self.supplies.items():
            if (here := drawn == kind).any():
                chosen = supply.choose(self.target, int(here.sum()), tally, rng, lacking=lacking)
                items[here] = supply.items[chosen]
        return [(index, int(item)) for index, item in zip(indices, items)]

    def _source(self, index: int) -> MaskSource:
        """The source of entry ``index``: each as often as its weight says, in any stretch of entries."""
        place = math.modf(index * _GOLDEN + self.parameters.seed % 997 / 997)[0]
        *first, last = self.parameters.weights
        for source in first:
            place -= self.parameters.weights[source]
            if place < 0:
                return source
        return last

    def _entry(self, index: int, item: int) -> PlanEntry:
        source = self._source(index)
        seed = sample_seed(self.parameters.seed, index)
        # a generator of its own: what is drawn for a prompt must not change the mask
        rng = np.random.default_rng([seed, 1])
        partner = (
            self._partner(rng) if source == "transformed" and self.parameters.transforms.merge is not None else None
        )
        if source == "classes":
            assert self.sets is not None
            indices = self.sets.classes_of(item)
            names = tuple(self.card.classes[number].name for number in indices)
            prompt = self._prompt(item, indices, rng)
            wanted = Wanted(index, item, source, seed, None, prompt, names if prompt is None else None, names)
            return PlanEntry(wanted, None, (), self._set_shares[self.sets.of_item[item]])
        composed = self.compose(Wanted(index, item, source, seed, partner, None, None, ()))
        shares = histogram(composed.labels, len(self.card.classes))
        indices = tuple(int(number) for number in np.flatnonzero(shares >= FOUND_SHARE))
        names = tuple(self.card.classes[number].name for number in indices)
        wanted = Wanted(index, item, source, seed, partner, self._prompt(item, indices, rng), None, names)
        return PlanEntry(wanted, composed.labels, composed.applied, shares)

    def _prompt(self, item: int, indices: tuple[int, ...], rng: np.random.Generator) -> str | None:
        if not self.parameters.templates:
            return None
        caption = self.pool.caption(item)
        able = [template for template in self.parameters.templates if caption or "caption" not in template.uses]
        return able[int(rng.integers(len(able)))].fill(spoken(self.card, indices), caption)

    def _partner(self, rng: np.random.Generator) -> int:
        """An item from which objects may be merged in: the more its mask helps the balance, the likelier."""
        reached = np.cumsum(self.feasible[False].weights)
        place = int(np.searchsorted(reached, rng.random() * reached[-1], side="right"))
        return int(self.supplies[False].items[min(place, len(reached) - 1)])

    @cached_property
    def _set_shares(self) -> np.ndarray:
        """The shares ``(S, C)`` of pixels to be expected of a twin of each class set."""
        assert self.sets is not None
        return self.sets.means(np.asarray(self.pool.histograms))

    @cached_property
    def _class_weights(self) -> np.ndarray:
        """How much each label is wanted ``(256,)``: its target against what the choice of masks alone can reach."""
        class_weights = np.ones(256)
        if False in self.feasible:
            reached = self.feasible[False].shares
            able = self.target.weighed & (reached > 0)
            class_weights[np.flatnonzero(able)] = np.clip(
                self.target.shares[able] / reached[able], 1 / _MAX_CLASS_WEIGHT, _MAX_CLASS_WEIGHT
            )
        return class_weights


class _Partner(Sequence[np.ndarray]):
    """The mask of another item, looked up only where it is needed."""

    def __init__(self, pool: Pool, item: int | None) -> None:
        self._pool = pool
        self._item = item

    def __len__(self) -> int:
        return 0 if self._item is None else 1

    def __getitem__(self, place: int) -> np.ndarray:  # type: ignore[override]
        if self._item is None or place != 0:
            raise IndexError(place)
        return self._pool.mask(self._item)


def _refuse(items: int, left_out: Mapping[str, int]) -> None:
    whys = {
        "unlabelled": "have less than half of their pixels labelled",
        "without_caption": "have no caption, which the prompt asks for",
        "without_class": "hold no class that may be asked for",
    }
    said = ", ".join(f"{number} {whys[why]}" for why, number in left_out.items() if number)
    detail = f"none of the dataset's {items} items can be drawn from: {said or 'there are none'}"
    raise InvalidRequest(detail, errors=[{"pointer": "/dataset", "detail": detail}])
