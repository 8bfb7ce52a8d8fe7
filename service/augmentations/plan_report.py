"""What a plan comes to in figures and plain sentences, before anything is made: the answer to a dry run."""

from __future__ import annotations

import numpy as np

from model_store.card import join_words
from service.augmentations.balance import Feasibility, percent
from service.augmentations.plan import Plan
from service.augmentations.plan_values import ClassShares, PlanShares
from service.augmentations.tally import SetTally

_FEW = 0.25
"""A plan whose weights come to less than this share of the masks leans on few of them, and says so."""


_MAX_PLANNED = 20_000
"""Entries that are chosen for the figures of a plan; of more, their shares are the same."""


def report(plan: Plan) -> PlanShares:
    """What ``plan`` comes to, from the real masks' shares alone: no mask is made."""
    count = min(plan.count, _MAX_PLANNED)
    rng = np.random.default_rng(plan.parameters.seed)
    nothing = SetTally.empty(len(plan.card.classes))
    planned, feasible = np.zeros(len(plan.card.classes)), np.zeros(len(plan.card.classes))
    for drawn, supply in plan.supplies.items():
        weight = sum(weight for source, weight in plan.parameters.weights.items() if (source == "classes") == drawn)
        part = max(1, round(count * weight))
        chosen = supply.choose(plan.target, part, nothing, rng, lacking=part)
        planned += weight * supply.contributed[chosen].mean(axis=0)
        feasible += weight * plan.feasible[drawn].shares
    return _figures(plan, planned, feasible)


def _figures(plan: Plan, planned: np.ndarray, feasible: np.ndarray) -> PlanShares:
    """The figures of ``plan``, whose masks come to ``planned`` ``(C,)`` and could come to ``feasible`` ``(C,)``."""
    target, real = plan.target, plan.real
    met = target.met(planned)
    shown = [
        entry
        for entry in plan.card.classes
        if real[entry.index] > 0 or (target.weighed & (target.shares > 0))[entry.index]
    ]
    items = max(len(supply) for supply in plan.supplies.values())
    masks = min(one.masks for one in plan.feasible.values())
    return PlanShares(
        by=target.by,
        count=plan.count,
        tries=plan.tries,
        items=items,
        left_out=dict(plan.left_out),
        sources={source: round(weight, 6) for source, weight in plan.parameters.weights.items()},
        masks=round(masks, 1),
        classes=tuple(
            ClassShares(
                index=entry.index,
                name=entry.name,
                colour=entry.colour,
                real=round(float(real[entry.index]), 6),
                target=round(float(target.shares[entry.index]), 6) if target.weighed[entry.index] else None,
                feasible=round(float(feasible[entry.index]), 6),
                planned=round(float(planned[entry.index]), 6),
                met=bool(met[entry.index]),
            )
            for entry in shown
        ),
        notes=tuple(_notes(plan, planned, items, masks)),
    )


def _notes(plan: Plan, planned: np.ndarray, items: int, masks: float) -> list[str]:
    notes = list(dict.fromkeys(sentence for one in plan.feasible.values() for sentence in one.sentences))
    notes = [f"{note}." for note in notes]
    weighed = zip(plan.feasible.values(), plan.supplies.values())
    if notes and any(one.weights.max() >= supply.most * 0.999 for one, supply in weighed if supply.most < 1):
        times = f"{plan.parameters.max_uses:g} times as often as on average"
        notes.append(f"No real item is drawn more than {times}; with a larger masks.max_uses these shares come nearer.")
    adding = [name for name in plan.parameters.transforms.named() if name in ("crop", "merge", "clone")]
    if (
        any(_can_grow(plan, one) for one in plan.feasible.values())
        and adding
        and "transformed" in plan.parameters.weights
    ):
        prefer = "prefers" if len(adding) == 1 else "prefer"
        notes.append(
            f"{join_words(adding)} {prefer} what is lacking, so transformed masks may come somewhat nearer than these figures."
        )
    notes += _rounded(plan, planned)
    if masks < _FEW * items:
        most = max(float(one.weights.max()) for one in plan.feasible.values())
        times = f"the most used one comes about {max(1, round(most * plan.count))} times in {plan.count}"
        notes.append(f"The plan leans on few masks: it is as if {masks:.0f} of {items} were used alike, and {times}.")
    told = {
        "unlabelled": "real items are left out, since less than half of their pixels have a class.",
        "without_caption": "real items are left out, since they have no caption, which the prompt asks for.",
        "without_class": "real items are left out, since they hold no class that may be asked for.",
    }
    notes += [f"{number} {told[why]}" for why, number in plan.left_out.items()]
    return [note[0].upper() + note[1:] for note in notes]


def _can_grow(plan: Plan, found: Feasibility) -> bool:
    """Whether a class lacks part of its share that is in some of the masks, so that more of it can be put into
    others."""
    lacking = ~plan.target.met(found.shares) & (found.shares < plan.target.shares)
    return bool((lacking & (plan.real > 0)).any())


def _rounded(plan: Plan, planned: np.ndarray) -> list[str]:
    """Classes that the masks could bring to their target, and this many whole twins do not."""
    target = plan.target
    missed = ~target.met(planned)
    for one in plan.feasible.values():
        missed &= target.met(one.shares)
    of = "pixels" if target.by == "pixels" else "images"
    return [
        f"in {plan.count} whole twins {plan.card.classes[index].name} comes to {percent(planned[index])} of the {of}; "
        f"{percent(target.shares[index])} are asked for."
        for index in np.flatnonzero(missed)
    ]
