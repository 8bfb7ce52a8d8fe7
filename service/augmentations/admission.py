"""Admission of a request for a set: checks against the model's card and the dataset's classes, before anything is made.

All faults are reported at once, each with a JSON pointer, the value, the limit and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from model_store.card import InputName, ModelCard, join_words
from service.augmentations.matching import ClassMatch, match_classes
from service.augmentations.object_admission import check_objects, named_classes
from service.augmentations.object_rules import ObjectRule
from service.augmentations.plan_values import BalanceBy
from service.augmentations.prompts import Template, read_template
from service.augmentations.request import (
    COUNT_MAX,
    MAX_TEMPLATES,
    Acceptance,
    AugmentationRequest,
    MaskSource,
)
from service.augmentations.set_fit import SetFit, Sides, decide_fit
from service.augmentations.transforms.parameters import Transforms
from service.datasets.classes import ClassList
from service.jobs.parameters import SamplingParameters
from service.jobs.request import NAME_MAX_CHARS
from service.jobs.sizes import sides_of
from service.jobs.validate_inputs import accepted
from service.jobs.validate_sampling import check_steering
from service.kit.seeds import new_job_seed
from service.kit.validation import (
    UNPRINTABLE,
    Faults,
    join_list,
    truncated_repr,
    unprintable,
)
from service.settings import Settings

_RULES_ON_DRAWN_MASKS = ("min_confident_share", "min_mean_confidence", "min_class_agreement")


@dataclass(frozen=True, eq=False)
class AugmentationParameters:
    """Parameters of a set, defaults filled in. ``weights`` add up to 1.

    ``balance`` and ``objects`` are by the model's class indices.
    """

    count: int
    balance: str | Mapping[int, float] | None
    balance_by: BalanceBy
    objects: Mapping[int, ObjectRule]
    match: ClassMatch
    weights: Mapping[MaskSource, float]
    max_uses: float
    transforms: Transforms
    templates: tuple[Template, ...]
    acceptance: Acceptance
    budget: float
    seed: int
    sampling: SamplingParameters
    fit: SetFit
    name: str | None


def admit(
    request: AugmentationRequest,
    card: ModelCard,
    classes: ClassList,
    *,
    sizes: Sequence[Sides],
    settings: Settings,
    fit: SetFit | None = None,
    metres_per_px: float | None = None,
    new_seed: Callable[[], int] = new_job_seed,
    faults: Faults | None = None,
) -> AugmentationParameters:
    """The parameters of the requested set, for items of these ``sizes`` (width, height) with ``classes``.

    ``settings`` have the service's own limits; ``faults`` are those found in the request before; ``fit`` is one
    that was decided before; ``metres_per_px`` is the side of an item's pixel, if known. Raises :class:`InvalidRequest`,
    or :class:`UnknownClass` if unknown classes are the only faults.
    """
    faults = Faults() if faults is None else faults
    match = match_classes(classes, card, request.class_map, faults)
    count = _count(request, len(sizes), faults)
    balance = _balance(request, card, faults)
    templates = _templates(request, card, settings.max_prompt_chars, faults)
    weights = _weights(request, card, bool(templates), faults)
    _check_acceptance(request, card, weights, faults)
    steering = check_steering(request, card, settings.max_steps, faults)
    fit = fit or decide_fit(request, card, sizes, settings, faults, metres_per_px=metres_per_px)
    objects = check_objects(request, card, match, weights, None if fit.size is None else sides_of(fit.size), faults)
    name = _name(request, faults)
    faults.raise_if_any()
    assert match is not None
    assert weights is not None
    return AugmentationParameters(
        count=count,
        balance=balance,
        balance_by=request.balance_by,
        objects=objects,
        match=match,
        weights=weights,
        max_uses=request.masks.max_uses,
        transforms=request.masks.transforms,
        templates=templates,
        acceptance=request.acceptance,
        budget=request.budget,
        seed=request.seed if request.seed is not None else new_seed(),
        sampling=SamplingParameters(**steering, size=fit.size),
        fit=fit,
        name=name,
    )


def inputs_of(source: MaskSource, with_prompt: bool) -> tuple[InputName, ...]:
    """The inputs of the model that a sample of this source of masks is made from."""
    if source == "classes":
        return ("prompt",) if with_prompt else ("classes",)
    return ("prompt", "mask") if with_prompt else ("mask",)


def _count(request: AugmentationRequest, real_items: int, faults: Faults) -> int:
    if (request.count is None) == (request.ratio is None):
        has = "both are given" if request.count is not None else "neither is given"
        faults.add_plain("/count", f"{has}; give either count, or ratio as so many twins for each real item")
        return 1
    if real_items < 1:
        faults.add("dataset", request.dataset, "it has no items to extend; choose another dataset")
        return 1
    if request.count is not None:
        return request.count
    assert request.ratio is not None
    count = max(1, round(request.ratio * real_items))
    if count > COUNT_MAX:
        detail = f"that is {count} twins for {real_items} real items; a set has at most {COUNT_MAX}, so lower it"
        faults.add("ratio", request.ratio, detail)
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
    shares = {entry.index: share for _, entry, _, share in named_classes("balance", request.balance, card, faults)}
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
        for text, member in zip(texts, members, strict=True)
    ]
    return tuple(template for template in read if template is not None)


def _weights(
    request: AugmentationRequest, card: ModelCard, with_prompt: bool, faults: Faults
) -> dict[MaskSource, float] | None:
    given_weights: dict[MaskSource, float | None] = {
        "real": request.masks.real,
        "transformed": request.masks.transformed,
        "classes": request.masks.classes,
    }
    given = {source: weight for source, weight in given_weights.items() if weight is not None}
    if not given:
        default: dict[MaskSource, float] = (
            {"real": 1.0, "transformed": 3.0} if "mask" in card.inputs else {"classes": 1.0}
        )
        given = default
    total = sum(given.values())
    if total <= 0:
        faults.add_plain(
            "/masks", "masks gives every source the weight 0; give one of real, transformed and classes a higher weight"
        )
        return None
    weights = {source: weight / total for source, weight in given.items() if weight > 0}
    input_sets = [set(chosen) for chosen in card.accepted_inputs]
    for source in weights:
        needs = inputs_of(source, with_prompt or request.prompt is not None)
        if set(needs) not in input_sets:
            why = f"{source} masks mean that {join_words(needs)} {'are' if len(needs) > 1 else 'is'} given"
            faults.add_plain(
                f"/masks/{source}", f"{why}; {card.id} takes {accepted(card)}. {_remedy(needs, input_sets)}"
            )
        elif not card.makes_mask(needs):
            why = f"{card.id} does not draw masks, so its twins would have none"
            faults.add_plain(f"/masks/{source}", f"{why}; give a weight to real or transformed instead")
    return weights


def _remedy(needs: tuple[InputName, ...], input_sets: list[set[InputName]]) -> str:
    without, with_it = set(needs) - {"prompt"}, {*needs, "prompt"}
    if "prompt" in needs and (without in input_sets or (not without and {"classes"} in input_sets)):
        return "Leave prompt out"
    if "prompt" not in needs and with_it in input_sets:
        return "Give a prompt"
    return "Give weight to another source of masks"


def _check_acceptance(
    request: AugmentationRequest, card: ModelCard, weights: Mapping[MaskSource, float] | None, faults: Faults
) -> None:
    if weights is None or "classes" in weights:
        return
    for member in _RULES_ON_DRAWN_MASKS:
        if (value := getattr(request.acceptance, member)) is not None:
            why = "the masks of this set are given to the model, so they have neither confidence nor missing classes"
            faults.add_plain(
                f"/acceptance/{member}", f"acceptance has {member} {truncated_repr(value)}: {why}; leave it out"
            )


def _name(request: AugmentationRequest, faults: Faults) -> str | None:
    name = (request.name or "").strip()
    if len(name) > NAME_MAX_CHARS:
        faults.add("name", name, f"it has {len(name)} characters; the limit is {NAME_MAX_CHARS}, shorten it")
    elif unprintable(name):
        faults.add("name", name, UNPRINTABLE)
    return name or None
