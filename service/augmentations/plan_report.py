"""Report of a plan in figures and sentences, before anything is made: the answer to a dry run."""

from __future__ import annotations

import numpy as np

from model_store.card import join_words
from service.augmentations.balance import Feasibility, percent
from service.augmentations.plan import Plan
from service.augmentations.plan_values import ClassShares, PlanShares
from service.augmentations.scale_report import scale_figures, scale_notes
from service.augmentations.set_counts import SetCounts

_FEW_MASKS_SHARE = 0.25
"""A note is added if the effective number of masks is below this share of all masks."""
_MAX_PLANNED = 20_000
"""Largest number of entries that are chosen for the figures; more would have the same shares."""


def report(plan: Plan) -> PlanShares:
    """The figures of ``plan``, from the shares of the real masks; no mask is made."""
    count = min(plan.count, _MAX_PLANNED)
    rng = np.random.default_rng(plan.parameters.seed)
    nothing = SetCounts.empty(len(plan.card.classes))
    planned, feasible = np.zeros(len(plan.card.classes)), np.zeros(len(plan.card.classes))
    for drawn, group in plan.candidates.items():
        weight = sum(weight for source, weight in plan.parameters.weights.items() if (source == "classes") == drawn)
        part = max(1, round(count * weight))
        chosen = group.choose(plan.target, part, nothing, rng, lacking=part)
        planned += weight * group.contributed[chosen].mean(axis=0)
        feasible += weight * plan.feasible[drawn].shares
    return _figures(plan, planned, feasible)


def _figures(plan: Plan, planned: np.ndarray, feasible: np.ndarray) -> PlanShares:
    """The figures of ``plan``, given the ``planned`` ``(C,)`` and the ``feasible`` ``(C,)`` shares of its masks."""
    target, real = plan.target, plan.real
    met = target.met(planned)
    shown = [
        entry
        for entry in plan.card.classes
        if real[entry.index] > 0 or (target.constrained & (target.shares > 0))[entry.index]
    ]
    items = max(len(group) for group in plan.candidates.values())
    masks = min(one.masks for one in plan.feasible.values())
    return PlanShares(
        by=target.by,
        count=plan.count,
        max_samples=plan.max_samples,
        items=items,
        skipped=dict(plan.skipped),
        sources={source: round(weight, 6) for source, weight in plan.parameters.weights.items()},
        masks=round(masks, 1),
        classes=tuple(
            ClassShares(
                index=entry.index,
                name=entry.name,
                colour=entry.colour,
                real=round(float(real[entry.index]), 6),
                target=round(float(target.shares[entry.index]), 6) if target.constrained[entry.index] else None,
                feasible=round(float(feasible[entry.index]), 6),
                planned=round(float(planned[entry.index]), 6),
                met=bool(met[entry.index]),
            )
            for entry in shown
        ),
        scale=scale_figures(plan.parameters.fit),
        notes=(*scale_notes(plan.parameters.fit), *_notes(plan, planned, items, masks)),
    )


def _notes(plan: Plan, planned: np.ndarray, items: int, masks: float) -> list[str]:
    notes = list(dict.fromkeys(sentence for one in plan.feasible.values() for sentence in one.sentences))
    notes = [f"{note}." for note in notes]
    capped = any(
        group.max_weight < 1 and plan.feasible[drawn].weights.max() >= group.max_weight * 0.999
        for drawn, group in plan.candidates.items()
    )
    if notes and capped:
        times = f"{plan.parameters.max_uses:g} times as often as on average"
        notes.append(f"No real item is used more than {times}; a larger masks.max_uses brings these shares nearer.")
    adding = [name for name in plan.parameters.transforms.named() if name in ("crop", "merge", "clone")]
    if (
        any(_can_grow(plan, one) for one in plan.feasible.values())
        and adding
        and "transformed" in plan.parameters.weights
    ):
        prefer = "prefers" if len(adding) == 1 else "prefer"
        notes.append(
            f"{join_words(adding)} {prefer} lacking classes, so transformed masks may come somewhat nearer than that."
        )
    notes += _rounded(plan, planned)
    if masks < _FEW_MASKS_SHARE * items:
        largest = max(float(one.weights.max()) for one in plan.feasible.values())
        times = f"the most used one is repeated about {max(1, round(largest * plan.count))} times in {plan.count}"
        notes.append(f"The plan relies on few masks: as if {masks:.0f} of {items} were used equally, and {times}.")
    reasons = {
        "unlabelled": "real items are skipped, since less than half of their pixels have a class.",
        "without_caption": "real items are skipped, since they have no caption, which the prompt needs.",
        "without_class": "real items are skipped, since they have no class that a request may name.",
    }
    notes += [f"{number} {reasons[why]}" for why, number in plan.skipped.items()]
    return [note[0].upper() + note[1:] for note in notes]


def _can_grow(plan: Plan, found: Feasibility) -> bool:
    """Whether a class that misses its share occurs in some masks, so that its objects can be added to others."""
    lacking = ~plan.target.met(found.shares) & (found.shares < plan.target.shares)
    return bool((lacking & (plan.real > 0)).any())


def _rounded(plan: Plan, planned: np.ndarray) -> list[str]:
    """Notes on classes whose target is feasible, but not with this number of whole twins."""
    target = plan.target
    missed = ~target.met(planned)
    for one in plan.feasible.values():
        missed &= target.met(one.shares)
    of = "pixels" if target.by == "pixels" else "images"
    return [
        f"in {plan.count} whole twins {plan.card.classes[index].name} reaches {percent(planned[index])} of the {of}; "
        f"{percent(target.shares[index])} are requested."
        for index in np.flatnonzero(missed)
    ]
