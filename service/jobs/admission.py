"""Admission: a request held against the model's card and the service's limits, before anything is written.

All that is wrong is reported at once, each fault with a JSON pointer, the value, the limit and the remedy.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any

from model_store.card import Card
from service.errors import InvalidRequest, UnknownClass
from service.jobs.nearest import listed, nearest
from service.jobs.request import GenerateRequest
from service.jobs.seeds import SEED_MAX
from service.settings import Settings

NAME_MAX_CHARS = 120
_SPACES = str.maketrans("\n\r\t", "   ")
_UNPRINTABLE = "it holds control characters or halves of surrogate pairs; leave them out"


@dataclass(frozen=True)
class Parameters:
    """What a job is made with, defaults filled in. ``seed`` is None where one has to be drawn."""

    prompt: str | None
    classes: tuple[str, ...] | None
    count: int
    seed: int | None
    steps: int
    guidance_scale: float
    eta: float
    size_px: int
    name: str | None


def admit(request: GenerateRequest, card: Card, settings: Settings) -> Parameters:
    """The parameters of the job asked for.

    Raises :class:`InvalidRequest`, or :class:`UnknownClass` if unknown classes are all that is wrong.
    """
    faults = _Faults()
    _check_inputs(request, card, faults)
    prompt = _prompt(request, card, settings, faults)
    classes = _classes(request, card, faults)
    limits, defaults = card.limits, card.defaults
    steps_max = min(limits.steps_max, settings.max_steps)
    steps = request.steps if request.steps is not None else min(defaults.steps, steps_max)
    guidance = request.guidance_scale if request.guidance_scale is not None else defaults.guidance_scale
    eta = request.eta if request.eta is not None else defaults.eta
    size = request.size if request.size is not None else card.default_size_px

    faults.outside("count", request.count, 1, settings.max_count, "ask for more in several jobs")
    faults.outside("steps", steps, limits.steps_min, steps_max, f"{card.id} defaults to {defaults.steps}")
    faults.outside(
        "guidance_scale",
        guidance,
        limits.guidance_min,
        limits.guidance_max,
        f"{card.id} defaults to {defaults.guidance_scale:g}",
    )
    faults.outside("eta", eta, 0, 1, "0 adds no noise, 1 as much as DDPM")
    if request.seed is not None:
        faults.outside("seed", request.seed, 0, SEED_MAX, "leave it out to have one drawn")
    if size not in card.sizes_px:
        faults.add("size", size, f"{card.id} makes {listed([str(s) for s in card.sizes_px])} px; take one of these")
    name = _name(request, faults)

    faults.raise_if_any()
    return Parameters(prompt, classes, request.count, request.seed, steps, guidance, eta, size, name)


class _Faults:
    """Collects what is wrong with a request."""

    def __init__(self) -> None:
        self._found: list[dict[str, str]] = []
        self._only_unknown_classes = True

    def add(self, member: str, value: Any, what: str, *, unknown_class: bool = False) -> None:
        """Notes that ``member`` (dotted for list items: ``classes.1``) has ``value``, and ``what`` is to be done."""
        self._only_unknown_classes &= unknown_class
        pointer = "".join(f"/{part}" for part in member.split("."))
        self._found.append({"pointer": pointer, "detail": f"{member.split('.')[0]} is {shown(value)}: {what}"})

    def add_plain(self, pointer: str, detail: str) -> None:
        """Notes a fault that is no single member's value; ``pointer`` may be "", the whole body."""
        self._only_unknown_classes = False
        self._found.append({"pointer": pointer, "detail": detail})

    def outside(self, member: str, value: float, low: float, high: float, remedy: str) -> None:
        """Notes ``value`` if it lies outside ``low`` to ``high``."""
        if not low <= value <= high:
            self.add(member, value, f"it must be {_number(low)} to {_number(high)}; {remedy}")

    def raise_if_any(self) -> None:
        """Raises what has been noted, if anything."""
        if self._found:
            kind = UnknownClass if self._only_unknown_classes else InvalidRequest
            raise kind("; ".join(fault["detail"] for fault in self._found), errors=self._found)


def shown(value: Any, *, most: int = 80) -> str:
    """A value for a message: as JSON, in ASCII, cut short."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = ascii(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _unprintable(text: str) -> bool:
    """Whether ``text`` holds what is no text: it could not be written as UTF-8, or not be shown."""
    return any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


def _number(limit: float) -> str:
    return str(int(limit)) if float(limit).is_integer() else f"{limit:g}"


def _check_inputs(request: GenerateRequest, card: Card, faults: _Faults) -> None:
    given = [name for name in ("prompt", "classes", "mask") if getattr(request, name) is not None]
    takes = " or ".join(card.inputs)
    if not given:
        faults.add_plain("", f"the request says nothing to make: give exactly one of {takes}")
    elif len(given) > 1:
        faults.add_plain("", f"the request gives {' and '.join(given)}: give exactly one of {takes}")
    for name in given:
        if name not in card.inputs:
            faults.add_plain(f"/{name}", f"{card.id} takes no {name}; give its {takes} instead")
        elif name == "mask":
            faults.add_plain("/mask", f"{card.id} takes masks, but this service makes no mask jobs yet")


def _prompt(request: GenerateRequest, card: Card, settings: Settings, faults: _Faults) -> str | None:
    if request.prompt is None:
        return None
    prompt = request.prompt.strip()
    if not prompt:
        faults.add("prompt", request.prompt, "it is empty; say what the pictures show")
    if len(prompt) > settings.max_prompt_chars:
        faults.add(
            "prompt", prompt, f"it has {len(prompt)} characters; at most {settings.max_prompt_chars} are read, shorten it"
        )
    # No tokenizer here, but a word is at least a token.
    words = len(prompt.split())
    if words > card.limits.max_prompt_tokens:
        faults.add(
            "prompt", prompt, f"it has {words} words; {card.id} reads {card.limits.max_prompt_tokens} tokens, shorten it"
        )
    if _unprintable(prompt.translate(_SPACES)):
        faults.add("prompt", prompt, _UNPRINTABLE)
    return prompt


def _classes(request: GenerateRequest, card: Card, faults: _Faults) -> tuple[str, ...] | None:
    """The canonical names asked for, by class index; a class named twice, also by two aliases, counts once."""
    if request.classes is None:
        return None
    if not request.classes:
        faults.add("classes", [], f"name at least one of {listed(card.queryable)}")
    wanted: dict[int, str] = {}
    for position, word in enumerate(request.classes):
        entry = card.find_class(word)
        if entry is None:
            words = [*card.queryable, *(alias for c in card.classes if c.queryable for alias in c.aliases)]
            near = nearest(word, words)
            meant = f"did you mean {near!r}? " if near else ""
            faults.add(
                f"classes.{position}",
                word,
                f"{card.id} has no such class; {meant}It has {listed(card.queryable)}",
                unknown_class=True,
            )
        elif not entry.queryable:
            faults.add(
                f"classes.{position}",
                word,
                f"{card.id} knows {entry.name!r} in masks, but it stands for no one thing and cannot be asked for; "
                f"ask for {listed(card.queryable)}",
            )
        else:
            wanted[entry.index] = entry.name
    return tuple(wanted[index] for index in sorted(wanted))


def _name(request: GenerateRequest, faults: _Faults) -> str | None:
    if request.name is None:
        return None
    name = request.name.strip()
    if len(name) > NAME_MAX_CHARS:
        faults.add("name", name, f"it has {len(name)} characters; at most {NAME_MAX_CHARS} are kept, shorten it")
    if _unprintable(name):
        faults.add("name", name, _UNPRINTABLE)
    return name or None
