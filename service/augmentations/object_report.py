"""Report on a plan's rules on objects: how many of its first masks meet them, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from model_store.card import join_words
from service.augmentations.entries import PlanEntry
from service.augmentations.object_rules import Missed, described
from service.augmentations.plan import Plan
from service.augmentations.plan_values import ObjectFigures

REASONS: dict[Missed, tuple[str, str]] = {
    "no_room": ("have no room for them", "ask for fewer or smaller ones"),
    "no_object": ("have none to clone, nor have the masks they may take some from", "ask for fewer masks with any"),
    "nothing_else": ("have nothing else to fill their place with", "ask for at least one, or skip these items"),
}
"""Reasons in words, and what to do about them."""


def object_figures(plan: Plan, entries: Sequence[PlanEntry]) -> tuple[ObjectFigures, ...]:
    """For each rule, how many of these masks meet it."""
    made = [entry for entry in entries if entry.labels is not None]
    figures = []
    for index, rule in sorted(plan.parameters.objects.items()):
        missed = Counter(entry.missed[index] for entry in made if index in entry.missed)
        figures.append(
            ObjectFigures(
                index=index,
                name=plan.card.classes[index].name,
                rule=described(rule),
                masks=len(made),
                met=len(made) - missed.total(),
                missed={str(why): number for why, number in sorted(missed.items())},
            )
        )
    return tuple(figures)


def object_notes(figures: Iterable[ObjectFigures]) -> list[str]:
    """A sentence on each rule that some masks do not meet."""
    notes = []
    for one in figures:
        if one.met == one.masks:
            continue
        why = [f"{number} {REASONS[reason][0]}" for reason, number in one.missed.items()]  # type: ignore[index]
        remedies = dict.fromkeys(REASONS[reason][1] for reason in one.missed)  # type: ignore[index]
        name = one.name[0].upper() + one.name[1:]
        notes.append(
            f"{name}: {one.masks - one.met} of the first {one.masks} masks do not get {one.rule}: {join_words(why)}; "
            f"{' or '.join(remedies)}."
        )
    return notes


def missed_by_name(plan: Plan, entry: PlanEntry) -> dict[str, str]:
    """Why an entry's mask does not meet rules, by class name."""
    return {plan.card.classes[index].name: str(why) for index, why in sorted(entry.missed.items())}
