"""Admission: a request held against the model's card and the service's limits, before anything is written.

All that is wrong is reported at once, each fault with a JSON pointer, the value, the limit and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_store.card import GuidanceTarget, ModelCard, join_words
from service.broker.priority import Priority
from service.jobs.request import NAME_MAX_CHARS, GenerateRequest
from service.jobs.spec import Layout
from service.jobs.validate_inputs import (
    check_classes,
    check_inputs,
    check_prompt,
    given_inputs,
)
from service.kit.seeds import SEED_MAX
from service.kit.validation import UNPRINTABLE, Faults, join_list, unprintable
from service.masks.reader import MaskReader, ReadMask
from service.settings import Settings
from service.store.opening import can_sign_links
from service.webhooks.spec import Callback
from service.webhooks.validate import admit_callback


@dataclass(frozen=True)
class JobParameters:
    """What a job is made with, defaults filled in. ``seed`` is None where one has to be drawn."""

    prompt: str | None
    classes: tuple[str, ...] | None
    masks: tuple[ReadMask, ...] | None
    count: int
    seed: int | None
    steps: int
    guidance_scale: float
    guidance_target: GuidanceTarget | None
    eta: float
    size_px: int
    layout: Layout
    name: str | None
    callback: Callback | None


def admit(
    request: GenerateRequest, card: ModelCard, settings: Settings, reader: MaskReader, *, tenant: str
) -> JobParameters:
    """The parameters of the job asked for. Masks named by their ids are looked for among the uploads of ``tenant``.

    Raises :class:`InvalidRequest`, or :class:`UnknownClass` if unknown classes are all that is wrong; or a store's
    error, where a mask is to be read from it.
    """
    faults = Faults()
    given = given_inputs(request)
    check_inputs(given, card, faults)
    prompt = check_prompt(request, card, settings, faults)
    classes = check_classes(request, card, faults)
    limits, defaults = card.limits, card.defaults
    steps_max = min(limits.steps_max, settings.max_steps)
    steps = request.steps if request.steps is not None else min(defaults.steps, steps_max)
    guidance = request.guidance_scale if request.guidance_scale is not None else defaults.guidance_scale
    eta = request.eta if request.eta is not None else defaults.eta
    size = request.size if request.size is not None else card.default_size_px
    masks = _masks(request, card, size if size in card.sizes_px else card.default_size_px, reader, faults, tenant)
    # Masks without a count are one twin each; where there is neither, the masks' own faults say why.
    count = request.count if request.count is not None else len(masks or ())

    if request.count is not None or masks:
        check_count(count, request.priority, settings, faults)
    faults.outside("steps", steps, limits.steps_min, steps_max, f"{card.id} defaults to {defaults.steps}")
    faults.outside(
        "guidance_scale",
        guidance,
        limits.guidance_min,
        limits.guidance_max,
        f"{card.id} defaults to {defaults.guidance_scale:g}",
    )
    target = _guidance_target(request, card, faults)
    faults.outside("eta", eta, 0, 1, "0 adds no noise, 1 as much as DDPM")
    if request.seed is not None:
        faults.outside("seed", request.seed, 0, SEED_MAX, "leave it out to have one drawn")
    if size not in card.sizes_px:
        faults.add("size", size, f"{card.id} makes {join_list([str(s) for s in card.sizes_px])} px; take one of these")
    _check_pairs(request, given, card, faults)
    layout = _layout(request, count, settings, faults)
    name = _name(request, faults)
    callback = admit_callback(request.callback_url, settings, faults)

    faults.raise_if_any()
    return JobParameters(
        prompt, classes, masks, count, request.seed, steps, guidance, target, eta, size, layout, name, callback
    )


def check_count(count: int, priority: Priority, settings: Settings, faults: Faults) -> None:
    """Notes a count that is more than one job, or one interactive job, may ask for."""
    if priority == "interactive" and settings.max_interactive_count < settings.max_count:
        remedy = "an interactive job may ask for no more: ask for fewer, or leave priority out"
        faults.outside("count", count, 1, settings.max_interactive_count, remedy)
    else:
        faults.outside("count", count, 1, settings.max_count, "ask for more in several jobs")


def _masks(
    request: GenerateRequest, card: ModelCard, size_px: int, reader: MaskReader, faults: Faults, tenant: str
) -> tuple[ReadMask, ...] | None:
    if request.mask is None:
        if "mask_encoding" in request.model_fields_set:
            faults.add(
                "mask_encoding", request.mask_encoding, "it says how masks are read, and none is given; leave it out"
            )
        return None
    if "mask" not in card.inputs:
        return None  # noted with the inputs
    if request.mask_encoding == "binary" and len(card.classes) != 2:
        has = f"black and white are the classes of models that have two, and {card.id} has {len(card.classes)}"
        faults.add("mask_encoding", "binary", f"{has}; give index or colours")
        return None
    return reader.read(request.mask, card, request.mask_encoding, size_px, faults, tenant=tenant)


def _guidance_target(request: GenerateRequest, card: ModelCard, faults: Faults) -> GuidanceTarget | None:
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


def _check_pairs(request: GenerateRequest, given: Sequence[str], card: ModelCard, faults: Faults) -> None:
    if request.pairs and given and not card.makes_mask(given):
        why = f"{card.id} makes no masks itself, so that a picture by {join_words(given)} alone comes without"
        together = {*given, "mask"} in map(set, card.accepted_inputs)
        faults.add(
            "pairs", True, f"{why}; give {'a mask with it' if together else 'a mask instead'}, or leave pairs out"
        )


def _layout(request: GenerateRequest, count: int, settings: Settings, faults: Faults) -> Layout:
    """As asked for; else shards for what nobody waits for and is many, where links to single twins of a shard can be
    signed."""
    signs = can_sign_links(settings)
    if request.layout == "shards" and not signs:
        remedy = "leave layout out, or ask whoever runs this service to set TWINSET_LINK_SECRET"
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
