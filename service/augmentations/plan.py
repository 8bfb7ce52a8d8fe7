"""Plan of a set: which twins to make next, so that the accepted ones reach the requested shares.

The seed is the only source of randomness. The next entries depend on the plan and on the counts so far, so a plan that
is made again from the same request and data continues where another one stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model_store.card import ModelCard
from service.augmentations.admission import AugmentationParameters
from service.augmentations.balance import BalanceTarget, Feasibility, feasibility, features, target_of
from service.augmentations.candidates import Candidates
from service.augmentations.class_sets import ClassSets, class_sets
from service.augmentations.entries import JobGroup, PlanEntry, Wanted, job_groups
from service.augmentations.mask_maker import MaskMaker, check_objects_exist
from service.augmentations.pool import FOUND_SHARE, Pool, histogram
from service.augmentations.prompts import class_phrases
from service.augmentations.request import MaskSource
from service.augmentations.set_counts import SetCounts
from service.augmentations.transforms.compose import Composed
from service.errors import InvalidRequest
from service.kit.seeds import sample_seed

__all__ = ["JobGroup", "Plan", "PlanEntry", "Wanted", "job_groups", "make_plan"]

_BLOCK, _FIRST_BLOCKS, _FIRST = 64, 16, 128
"""Entries that are chosen together, also among the first 128; their shares are counted before the next ones."""
_MIN_LABELLED = 0.5
"""Masks with a smaller share of labelled pixels are not used: most of such a mask would be filled in."""
_MAX_CLASS_WEIGHT = 5.0
"""Limit of a class's weight in transforms, however far its target is out of reach; other classes must survive."""
_MIN_RATE = 0.25
_GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples, modulo 1, are evenly spread, however many there are."""


def make_plan(parameters: AugmentationParameters, card: ModelCard, pool: Pool) -> Plan:
    """Makes the plan of an admitted request over the real items.

    Raises InvalidRequest if no item can be used, or if the balance leaves shares that no class can take.
    """
    histograms = np.asarray(pool.histograms)
    if histograms.ndim != 2 or histograms.shape[1] != len(card.classes):
        raise ValueError(
            f"the pool's histograms are {histograms.shape}; {card.id} has {len(card.classes)} classes, one per column"
        )
    skipped: dict[str, int] = {}
    usable = histograms.sum(axis=1) >= _MIN_LABELLED
    skipped["unlabelled"] = int((~usable).sum())
    if parameters.templates and all("caption" in template.uses for template in parameters.templates):
        captioned = np.array([bool(pool.caption(item)) for item in range(len(histograms))], dtype=bool)
        skipped["without_caption"] = int((usable & ~captioned).sum())
        usable &= captioned
    contributed = features(histograms, parameters.balance_by)

    def max_weight(items: np.ndarray) -> float:
        # a set with fewer twins than items uses each item once at most anyway
        return min(1.0, max(parameters.max_uses / max(1, len(items)), 1 / parameters.count))

    sets = None
    candidates: dict[bool, Candidates] = {}
    if parameters.weights.keys() & {"real", "transformed"}:
        items = np.flatnonzero(usable)
        candidates[False] = Candidates(items, contributed[items], parameters.balance_by, max_weight(items))
    if "classes" in parameters.weights:
        askable = np.array([entry.queryable for entry in card.classes])
        sets = class_sets(np.where(usable[:, None], histograms, 0), askable)
        items = np.flatnonzero(sets.of_item >= 0)
        skipped["without_class"] = int((usable & (sets.of_item < 0)).sum())
        expected = sets.means(contributed)[sets.of_item[items]]
        candidates[True] = Candidates(items, expected, parameters.balance_by, max_weight(items))
    for group in candidates.values():
        if not len(group):
            _refuse(len(histograms), skipped)
    first = next(iter(candidates.values()))
    check_objects_exist(parameters, card, histograms[np.flatnonzero(usable)])
    target = target_of(parameters.balance, parameters.balance_by, first.contributed, parameters.match.background)
    names = [entry.name for entry in card.classes]
    feasible = {
        drawn: feasibility(group.contributed, target, names, max_weight=group.max_weight)
        for drawn, group in candidates.items()
    }
    return Plan(parameters, card, pool, target, candidates, feasible, sets, {why: n for why, n in skipped.items() if n})


@dataclass(frozen=True, eq=False)
class Plan:
    """Deterministic: the same parameters, card and pool give the same plan, and the same counts the same next entries.

    The keys of ``candidates`` and ``feasible`` are whether the model draws the masks (True) or is given them (False).
    """

    parameters: AugmentationParameters
    card: ModelCard
    pool: Pool
    target: BalanceTarget
    candidates: Mapping[bool, Candidates]
    feasible: Mapping[bool, Feasibility]
    sets: ClassSets | None
    skipped: Mapping[str, int]

    @property
    def count(self) -> int:
        """Number of twins requested."""
        return self.parameters.count

    @property
    def max_samples(self) -> int:
        """Maximum number of samples that are made."""
        return math.ceil(self.parameters.budget * self.count)

    def lacking(self, counts: SetCounts) -> int:
        """How many entries to make next: the number of missing twins, more if few were accepted so far.

        Never beyond ``max_samples``. 0 without pending entries means that the set has ended. Accepted twins beyond
        ``count`` are not needed.
        """
        left = self.max_samples - counts.tried
        # the first few say little about the rate, and a bad start must not spend the whole budget at once
        rate = max(_MIN_RATE, counts.rate) if counts.requested_totals.images >= _BLOCK else 1.0
        lacking = self.count - counts.accepted - rate * counts.pending_totals.images
        return max(0, min(left, math.ceil(lacking / rate)))

    def next(self, counts: SetCounts, count: int) -> Iterator[PlanEntry]:
        """The next ``count`` entries after those of ``counts``, one by one as their masks are made.

        Entry k has the index ``counts.tried + k``. ``counts`` is not changed. From the same counts, fewer entries are
        the first ones of more.
        """
        running = counts.copy()
        while count > 0:
            for index, item in self._block(running)[:count]:
                entry = self._entry(index, item)
                yield entry
                running.add_pending(item, entry.shares)
                count -= 1

    def compose(self, wanted: Wanted) -> Composed:
        """Makes the mask of an entry again, with the applied transforms. Raises ValueError if the model draws it."""
        if wanted.source == "classes":
            raise ValueError(
                f"entry {wanted.index} is made by classes; its mask is drawn by the model, and not known before"
            )
        return self._maker.make(wanted)[0]

    @cached_property
    def real(self) -> np.ndarray:
        """The shares ``(C,)`` of the real items that are used."""
        return next(iter(self.candidates.values())).real

    def _block(self, counts: SetCounts) -> list[tuple[int, int]]:
        """The next entries as (index, item); as many as are chosen together."""
        indices = range(counts.tried, counts.tried + (_BLOCK if counts.tried >= _FIRST else _FIRST_BLOCKS))
        rng = np.random.default_rng([self.parameters.seed, counts.tried])
        lacking = max(1, round(self.count - counts.accepted - counts.rate * counts.pending_totals.images))
        drawn = np.array([self._source(index) == "classes" for index in indices])
        items = np.empty(len(indices), dtype=np.int64)
        for by_model, group in self.candidates.items():
            if (here := drawn == by_model).any():
                chosen = group.choose(self.target, int(here.sum()), counts, rng, lacking=lacking)
                items[here] = group.items[chosen]
        return [(index, int(item)) for index, item in zip(indices, items, strict=True)]

    def _source(self, index: int) -> MaskSource:
        """The source of entry ``index``: each as often as its weight says, in every stretch of entries."""
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
        # a separate generator: what is drawn for a prompt must not change the mask
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
            return PlanEntry(wanted, None, None, (), self._set_shares[self.sets.of_item[item]])
        donors = self._maker.donors(np.random.default_rng([seed, 3]))
        composed, missed = self._maker.make(Wanted(index, item, source, seed, partner, None, None, (), donors))
        made = composed.segmentation
        shares = histogram(made.labels, len(self.card.classes))
        indices = tuple(int(number) for number in np.flatnonzero(shares >= FOUND_SHARE))
        names = tuple(self.card.classes[number].name for number in indices)
        wanted = Wanted(index, item, source, seed, partner, self._prompt(item, indices, rng), None, names, donors)
        return PlanEntry(wanted, made.labels, made.instances, composed.applied, shares, missed)

    def _prompt(self, item: int, indices: tuple[int, ...], rng: np.random.Generator) -> str | None:
        if not self.parameters.templates:
            return None
        caption = self.pool.caption(item)
        able = [template for template in self.parameters.templates if caption or "caption" not in template.uses]
        return able[int(rng.integers(len(able)))].fill(class_phrases(self.card, indices), caption)

    def _partner(self, rng: np.random.Generator) -> int:
        """An item from which objects may be merged in, chosen by its weight in the balance."""
        reached = np.cumsum(self.feasible[False].weights)
        place = int(np.searchsorted(reached, rng.random() * reached[-1], side="right"))
        return int(self.candidates[False].items[min(place, len(reached) - 1)])

    @cached_property
    def _maker(self) -> MaskMaker:
        return MaskMaker(self.parameters, self.pool, self.candidates[False].items, self._class_weights)

    @cached_property
    def _set_shares(self) -> np.ndarray:
        """The expected shares of pixels ``(S, C)`` of a twin of each class set."""
        assert self.sets is not None
        return self.sets.means(np.asarray(self.pool.histograms))

    @cached_property
    def _class_weights(self) -> np.ndarray:
        """The weight of each label ``(256,)``: its target relative to what the choice of masks alone can reach."""
        class_weights = np.ones(256)
        if False in self.feasible:
            reached = self.feasible[False].shares
            able = self.target.constrained & (reached > 0)
            class_weights[np.flatnonzero(able)] = np.clip(
                self.target.shares[able] / reached[able], 1 / _MAX_CLASS_WEIGHT, _MAX_CLASS_WEIGHT
            )
        return class_weights


def _refuse(items: int, skipped: Mapping[str, int]) -> None:
    reasons = {
        "unlabelled": "have less than half of their pixels labelled",
        "without_caption": "have no caption, which the prompt needs",
        "without_class": "have no class that a request may name",
    }
    found = ", ".join(f"{number} {reasons[why]}" for why, number in skipped.items() if number)
    detail = f"none of the dataset's {items} items can be used: {found or 'there are none'}"
    raise InvalidRequest(detail, errors=[{"pointer": "/dataset", "detail": detail}])
