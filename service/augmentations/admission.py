"""Admission: a request for a set held against the model's card and the dataset's classes, before anything is made.

All that is wrong is reported at once, each fault with a JSON pointer, the value, the limit and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from model_store.card import GuidanceTarget, InputName, ModelCard, join_words
from service.augmentations.matching import ClassMatch, match_classes, pointer
from service.augmentations.prompts import Template, read_template
from service.augmentations.request import (
    COUNT_MAX,
    MAX_TEMPLATES,
    Acceptance,
    AugmentationRequest,
    BalanceBy,
    MaskSource,
)
from service.augmentations.transforms.settings import Transforms
from service.datasets.classes import ClassList
from service.jobs.request import NAME_MAX_CHARS
from service.jobs.validate_inputs import accepted
from service.kit.seeds import new_job_seed
from service.kit.validation import (
    UNPRINTABLE,
    Faults,
    closest_match,
    join_list,
    truncated_repr,
    unprintable,
)

_DRAWN_ONLY = ("min_confident_share", "min_mean_confidence", "min_class_agreement")


@dataclass(frozen=True, eq=False)
class AugmentationParameters:
    """What a set is made with, defaults filled in. ``balance`` is by the model's class indices; ``weights`` add up to
    1."""

    count: int
    balance: str | Mapping[int, float] | None
    balance_by: BalanceBy
    match: ClassMatch
    weights: Mapping[MaskSource, float]
    max_uses: float
    transforms: Transforms
    templates: tuple[Template, ...]
    acceptance: Acceptance
    budget: float
    seed: int
    steps: int
    guidance_scale: float
    guidance_target: GuidanceTarget | None
    eta: float
    size_px: int
    name: str | None


def admit(
    request: AugmentationRequest,
    card: ModelCard,
    classes: ClassList,
    *,
    real_items: int,
    max_steps: int,
    max_prompt_chars: int,
    new_seed: Callable[[], int] = new_job_seed,
    faults: Faults | None = None,
) -> AugmentationParameters:
    """The parameters of the set asked for, after a dataset of ``real_items`` items with ``classes``.

    ``max_steps`` and ``max_prompt_chars`` are the service's own limits; ``faults`` are those found in the request
    before. Raises :class:`InvalidRequest`, or :class:`UnknownClass` if unknown classes are all that is wrong.
    """
    faults = Faults() if faults is None else faults
    match = match_classes(classes, card, request.class_map, faults)
    count = _count(request, real_items, faults)
    balance = _balance(request, card, faults)
    templates = _templates(request, card, max_prompt_chars, faults)
    weights = _weights(request, card, bool(templates), faults)
    _check_acceptance(request, card, weights, faults)
    limits, defaults = card.limits, card.defaults
    steps_max = min(limits.steps_max, max_steps)
    steps = request.steps if request.steps is not None else min(defaults.steps, steps_max)
    guidance = request.guidance_scale if request.guidance_scale is not None else defaults.guidance_scale
    size = request.size if request.size is not None else card.default_size_px
    faults.outside("steps", steps, limits.steps_min, steps_max, f"{card.id} defaults to {defaults.steps}")
    remedy = f"{card.id} defaults to {defaults.guidance_scale:g}"
    faults.outside("guidance_scale", guidance, limits.guidance_min, limits.guidance_max, remedy)
    if size not in card.sizes_px:
        faults.add("size", size, f"{card.id} makes {join_list([str(s) for s in card.sizes_px])} px; take one of these")
    target = _guidance_target(request, card, faults)
    name = _name(request, faults)
    faults.raise_if_any()
    assert match is not None
    assert weights is not None
    return AugmentationParameters(
        count=count,
        balance=balance,
        balance_by=request.balance_by,
        match=match,
        weights=weights,
        max_uses=request.masks.max_uses,
        transforms=request.masks.transforms,
        templates=templates,
        acceptance=request.acceptance,
        budget=request.budget,
        seed=request.seed if request.seed is not None else new_seed(),
        steps=steps,
        guidance_scale=guidance,
        guidance_target=target,
        eta=request.eta if request.eta is not None else defaults.eta,
        size_px=size,
        name=name,
    )


def inputs_of(source: MaskSource, with_prompt: bool) -> tuple[InputName, ...]:
    """The card's inputs that a sample of a source is made from."""
    if source == "classes":
        return ("prompt",) if with_prompt else ("classes",)
    return ("prompt", "mask") if with_prompt else ("mask",)


def _count(request: AugmentationRequest, real_items: int, faults: Faults) -> int:
    if (request.count is None) == (request.ratio is None):
        has = "both are given" if request.count is not None else "neither is given"
        faults.add_plain("/count", f"{has}; give either count, or ratio as so many twins for each real item")
        return 1
    if real_items < 1:
        faults.add("dataset", request.dataset, "it has no items, and there is nothing to follow; take another one")
        return 1
    if request.count is not None:
        return request.count
    assert request.ratio is not None
    count = max(1, round(request.ratio * real_items))
    if count > COUNT_MAX:
        said = f"that is {count} twins for {real_items} real items; a set has {COUNT_MAX} at most, ask for less"
        faults.add("ratio", request.ratio, said)
    return count


def _balance(request: AugmentationRequest, card: ModelCard, faults: Faults) -> str | dict[int, float] | None:
    if not isinstance(request.balance, dict):
        return request.balance
    if not request.balance:
        faults.add(
            "balance",
            {},
            f"it names no class; name some of {join_list([entry.name for entry in card.classes])}, or leave it out",
        )
    shares: dict[int, float] = {}
    for word, share in request.balance.items():
        entry = card.find_class(word)
        where = pointer("balance", word)
        if entry is None:
            near = closest_match(word, [one.name for one in card.classes])
            meant = f"did you mean {truncated_repr(near)}? " if near else ""
            detail = f"balance names {truncated_repr(word)}, which is no class of {card.id}; {meant}It has {join_list([c.name for c in card.classes])}"
            faults.add_plain(where, detail)
        elif entry.index in shares:
            faults.add_plain(where, f"balance names {entry.name} twice, also as {truncated_repr(word)}; name it once")
        else:
            shares[entry.index] = share
    if request.balance_by == "pixels" and sum(shares.values()) > 1 + 1e-6:
        faults.add_plain(
            "/balance", f"its shares add up to {sum(shares.values()):g}; shares of pixels add up to 1 at most"
        )
    return shares


def _templates(request: AugmentationRequest, card: ModelCard, max_chars: int, faults: Faults) -> tuple[Template, ...]:
    if request.prompt is None:
        return ()
    texts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    if not texts or len(texts) > MAX_TEMPLATES:
        faults.add_plain("/prompt", f"prompt lists {len(texts)} templates; give 1 to {MAX_TEMPLATES}, or leave it out")
        return ()
    members = ["prompt"] if isinstance(request.prompt, str) else [f"prompt.{number}" for number in range(len(texts))]
    read = [
        read_template(text, card, max_chars=max_chars, member=member, faults=faults)
        for text, member in zip(texts, members)
    ]
    return tuple(template for template in read if template is not None)


def _weights(
    request: AugmentationRequest, card: ModelCard, with_prompt: bool, faults: Faults
) -> dict[MaskSource, float] | None:
    asked: dict[MaskSource, float | None] = {
        "real": request.masks.real,
        "transformed": request.masks.transformed,
        "classes": request.masks.classes,
    }
    given = {source: weight for source, weight in asked.items() if weight is not None}
    if not given:
        usual: dict[MaskSource, float] = (
            {"real": 1.0, "transformed": 3.0} if "mask" in card.inputs else {"classes": 1.0}
        )
        given = usual
    total = sum(given.values())
    if total <= 0:
        faults.add_plain(
            "/masks", "masks gives every source the weight 0; give one of real, transformed and classes more"
        )
        return None
    weights = {source: weight / total for source, weight in given.items() if weight > 0}
    takes = [set(chosen) for chosen in card.accepted_inputs]
    for source in weights:
        needs = inputs_of(source, with_prompt or request.prompt is not None)
        if set(needs) not in takes:
            why = f"{source} masks mean that {join_words(needs)} {'are' if len(needs) > 1 else 'is'} given"
            faults.add_plain(f"/masks/{source}", f"{why}; {card.id} takes {accepted(card)}. {_remedy(needs, takes)}")
        elif not card.makes_mask(needs):
            why = f"{card.id} makes no masks itself, so its twins would come without one"
            faults.add_plain(f"/masks/{source}", f"{why}; give real or transformed a weight, which are masks")
    return weights


def _remedy(needs: tuple[InputName, ...], takes: list[set[InputName]]) -> str:
    without, with_it = set(needs) - {"prompt"}, {*needs, "prompt"}
    if "prompt" in needs and (without in takes or (not without and {"classes"} in takes)):
        return "Leave prompt out"
    if "prompt" not in needs and with_it in takes:
        return "Give a prompt"
    return "Give weight to another source of masks"


def _check_acceptance(
    request: AugmentationRequest, card: ModelCard, weights: Mapping[MaskSource, float] | None, faults: Faults
) -> None:
    if weights is None or "classes" in weights:
        return
    for member in _DRAWN_ONLY:
        if (value := getattr(request.acceptance, member)) is not None:
            why = "the masks of this set are given to the model, which draws none that could be unsure or lack a class"
            faults.add_plain(
                f"/acceptance/{member}", f"acceptance has {member} {truncated_repr(value)}: {why}; leave it out"
            )


def _guidance_target(request: AugmentationRequest, card: ModelCard, faults: Faults) -> GuidanceTarget | None:
    if request.guidance_target is None:
        return card.guidance_target
    if request.guidance_target not in card.guidance_targets:
        choice = (
            f"can strengthen {join_list(card.guidance_targets)}; take one of these"
            if card.guidance_targets
            else "has no choice"
        )
        faults.add("guidance_target", request.guidance_target, f"{card.id} {choice}, or leave it out")
    return request.guidance_target


def _name(request: AugmentationRequest, faults: Faults) -> str | None:
    name = (request.name or "").strip()
    if len(name) > NAME_MAX_CHARS:
        faults.add("name", name, f"it has {len(name)} characters; at most {NAME_MAX_CHARS} are kept, shorten it")
    elif unprintable(name):
        faults.add("name", name, UNPRINTABLE)
    return name or None
