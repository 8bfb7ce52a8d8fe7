"""Checks of a request's rules on objects against the model's card, before any mask is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from model_store.card import ClassEntry, ModelCard
from service.augmentations.matching import ClassMatch, pointer
from service.augmentations.object_rules import ObjectRule
from service.augmentations.request import AugmentationRequest, MaskSource
from service.kit.validation import Faults, closest_match, join_list, truncated_repr


def check_objects(
    request: AugmentationRequest,
    card: ModelCard,
    match: ClassMatch | None,
    weights: Mapping[MaskSource, float] | None,
    sides_px: tuple[int, int] | None,
    faults: Faults,
) -> dict[int, ObjectRule]:
    """The rules by the model's class index; those with a fault are left out, and reported.

    ``sides_px`` are width and height of all twins, None if each has its own.
    """
    if request.objects is None:
        return {}
    if not request.objects:
        known = join_list([entry.name for entry in card.classes])
        faults.add("objects", {}, f"it names no class; name some of {known}, or leave it out")
    if weights is not None and "classes" in weights:
        faults.add_plain(
            "/objects",
            f"objects are those of real masks, and masks.classes has a weight of {weights['classes']:g}: there "
            f"{card.id} draws the masks itself. Leave objects out, or give weight to real and transformed only",
        )
    rules: dict[int, ObjectRule] = {}
    for where, entry, word, rule in named_classes("objects", request.objects, card, faults):
        before = len(faults.found)
        _check_rule(request, entry, rule, where, sides_px, faults)
        if match is not None and entry.index in match.background:
            faults.add_plain(
                where, f"objects names {truncated_repr(word)}, which is what objects stand on; name another class"
            )
        if len(faults.found) == before:
            rules[entry.index] = rule
    return rules


def named_classes(
    member: str, given: Mapping[str, Any], card: ModelCard, faults: Faults
) -> Iterator[tuple[str, ClassEntry, str, Any]]:
    """(pointer, class, word, value) of each entry of a map by class; unknown and repeated classes are reported."""
    seen: set[int] = set()
    for word, value in given.items():
        entry = card.find_class(word)
        where = pointer(member, word)
        if entry is None:
            names = [one.name for one in card.classes]
            near = closest_match(word, names)
            meant = f"did you mean {truncated_repr(near)}? " if near else ""
            detail = f"{member} names {truncated_repr(word)}, which is not a class of {card.id}; {meant}It has "
            faults.add_plain(where, detail + join_list(names))
        elif entry.index in seen:
            faults.add_plain(where, f"{member} names {entry.name} twice, also as {truncated_repr(word)}; name it once")
        else:
            seen.add(entry.index)
            yield where, entry, word, value


def _check_rule(
    request: AugmentationRequest,
    entry: ClassEntry,
    rule: ObjectRule,
    where: str,
    sides_px: tuple[int, int] | None,
    faults: Faults,
) -> None:
    name, (least, most) = entry.name, rule.count or (0, None)
    if rule.count is None and rule.size is None:
        faults.add_plain(where, f"the rule on {name} says nothing; give count, size, or both")
    if most == 0 and rule.size is not None:
        faults.add_plain(f"{where}/size", f"{name} is to have 0 objects, so there is no size; leave size out")
    if most == 0 and isinstance(request.balance, dict):
        share = next((share for word, share in request.balance.items() if _same(entry, word)), 0.0)
        if share > 0:
            detail = f"{name} is to have 0 objects, and balance asks for a share of {share:g}; leave one of them out"
            faults.add_plain(f"{where}/count", detail)
    if sides_px is None:
        return
    width, height = sides_px
    if isinstance(rule.size, tuple) and rule.size[0] > min(width, height):
        detail = f"objects of {rule.size[0]:g} px do not fit into twins of {width} x {height} px"
        faults.add_plain(f"{where}/size", f"{detail}; give at most {min(width, height)}")
    side = rule.size[0] if isinstance(rule.size, tuple) else 1.0
    if least * side**2 > width * height:
        detail = f"{least} objects of {side:g} px and more have {least * side**2:g} px, and a twin {width * height}"
        faults.add_plain(f"{where}/count", f"{detail}; give at most {int(width * height / side**2)}, or a smaller size")


def _same(entry: ClassEntry, word: str) -> bool:
    return word.strip().casefold() in {entry.name.casefold(), *(alias.casefold() for alias in entry.aliases)}
