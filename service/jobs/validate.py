"""Validation: checks a request against the model's card and the service's limits, before anything is written.

All faults are reported at once, each with a JSON pointer, the value, the limit and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_store.card import ModelCard, join_words
from service.broker.priority import Priority
from service.jobs.parameters import GenerationParameters, Layout
from service.jobs.request import NAME_MAX_CHARS, GenerateRequest
from service.jobs.trained_fit import with_trained_fit
from service.jobs.validate_fit import check_fit
from service.jobs.validate_inputs import (
    check_classes,
    check_inputs,
    check_prompt,
    given_inputs,
)
from service.jobs.validate_sampling import check_steering
from service.kit.seeds import SEED_MAX, new_job_seed
from service.kit.validation import UNPRINTABLE, Faults, unprintable
from service.masks.mask_fit import MaskFit
from service.masks.reader import MaskReader, ReadMask
from service.masks.types import GivenInstances
from service.settings import Settings
from service.store.opening import can_sign_links
from service.webhooks.spec import Callback
from service.webhooks.validate import admit_callback


@dataclass(frozen=True)
class CheckedRequest:
    """A request that was checked, with defaults filled in and a seed drawn.

    ``masks`` are those of ``parameters.mask``, with their files.
    """

    parameters: GenerationParameters
    masks: tuple[ReadMask, ...]
    name: str | None
    callback: Callback | None


def admit(
    request: GenerateRequest, card: ModelCard, settings: Settings, reader: MaskReader, *, tenant: str
) -> CheckedRequest:
    """The checked request. Masks given by their ids are looked up among the uploads of ``tenant``.

    Raises :class:`InvalidRequest`, or :class:`UnknownClass` if unknown classes are all that is wrong; or the store's
    error, if a mask cannot be read.
    """
    faults = Faults()
    given = given_inputs(request)
    check_inputs(given, card, faults)
    prompt = check_prompt(request, card, settings, faults)
    classes = check_classes(request, card, faults)
    faults_of_size = Faults()
    sized = with_trained_fit(request, given, card, settings)
    fitted = check_fit(sized, given, card, settings, faults_of_size)
    masks = _masks(request, card, fitted.masks, reader, faults, tenant)
    # Masks without a count make one twin each; without both, the faults of the masks say why.
    count = request.count if request.count is not None else len(masks or ())

    if request.count is not None or masks:
        check_count(count, request.priority, settings, faults)
    sampling = check_steering(request, card, settings.max_steps, faults)
    faults.extend(faults_of_size)
    if request.seed is not None:
        faults.outside("seed", request.seed, 0, SEED_MAX, "leave it out to have one drawn")
    _check_pairs(request, given, card, faults)
    layout = _layout(request, count, settings, faults)
    name = _name(request, faults)
    callback = admit_callback(request.callback_url, settings, faults)

    faults.raise_if_any()
    parameters = GenerationParameters(
        **sampling,
        size=fitted.size,
        fit=fitted.fit,
        canvas=fitted.canvas,
        model=card.id,
        prompt=prompt,
        classes=classes,
        mask=None if masks is None else tuple(mask.given for mask in masks),
        instances=_given_instances(masks or ()),
        mask_encoding=None if masks is None else request.mask_encoding,
        count=count,
        seed=request.seed if request.seed is not None else new_job_seed(),
        priority=request.priority,
        layout=layout,
    )
    return CheckedRequest(parameters, masks or (), name, callback)


def check_count(count: int, priority: Priority, settings: Settings, faults: Faults) -> None:
    """Adds a fault for a count that is above the limit of a job, or of an interactive job."""
    if priority == "interactive" and settings.max_interactive_count < settings.max_count:
        remedy = "an interactive job may ask for no more: ask for fewer, or leave priority out"
        faults.outside("count", count, 1, settings.max_interactive_count, remedy)
    else:
        faults.outside("count", count, 1, settings.max_count, "ask for more in several jobs")


def _masks(
    request: GenerateRequest, card: ModelCard, fit: MaskFit, reader: MaskReader, faults: Faults, tenant: str
) -> tuple[ReadMask, ...] | None:
    if request.mask is None:
        if request.instances is not None:
            faults.add_plain("/instances", "instances number the objects of masks, and none is given; leave it out")
        if "mask_encoding" in request.model_fields_set:
            faults.add(
                "mask_encoding", request.mask_encoding, "it says how masks are read, and none is given; leave it out"
            )
        return None
    if "mask" not in card.inputs:
        return None  # check_inputs adds the fault
    if request.mask_encoding == "binary" and len(card.classes) != 2:
        has = f"black and white are the classes of models that have two, and {card.id} has {len(card.classes)}"
        faults.add("mask_encoding", "binary", f"{has}; give index or colours")
        return None
    return reader.read(request.mask, request.instances, card, request.mask_encoding, fit, faults, tenant=tenant)


def _given_instances(masks: Sequence[ReadMask]) -> tuple[GivenInstances | None, ...] | None:
    given = tuple(mask.given_instances for mask in masks)
    return given if any(given) else None


def _check_pairs(request: GenerateRequest, given: Sequence[str], card: ModelCard, faults: Faults) -> None:
    if request.pairs and given and not card.makes_mask(given):
        why = f"{card.id} makes no masks itself, so that an image by {join_words(given)} alone comes without"
        together = any({*given, "mask"} == set(chosen) for chosen in card.accepted_inputs)
        faults.add(
            "pairs", True, f"{why}; give {'a mask with it' if together else 'a mask instead'}, or leave pairs out"
        )


def _layout(request: GenerateRequest, count: int, settings: Settings, faults: Faults) -> Layout:
    """The layout: as requested; else shards for a large job of normal priority, if links into shards can be signed."""
    signs = can_sign_links(settings)
    if request.layout == "shards" and not signs:
        remedy = "leave layout out, or ask the operator of this service to set TWINSET_LINK_SECRET"
        faults.add("layout", "shards", f"this service has no secret to sign links into shards with; {remedy}")
    if request.layout is not None:
        return request.layout
    many = 0 < settings.shards_from_count <= count
    return "shards" if many and request.priority == "normal" and signs else "objects"


def _name(request: GenerateRequest, faults: Faults) -> str | None:
    if request.name is None:
        return None
    name = request.name.strip()
    if len(name) > NAME_MAX_CHARS:
        faults.add("name", name, f"it has {len(name)} characters; at most {NAME_MAX_CHARS} are kept, shorten it")
    elif unprintable(name):
        faults.add("name", name, UNPRINTABLE)
    return name or None
