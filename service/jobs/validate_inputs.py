"""Checks of a request's inputs against the card: which are given together, and the prompt and classes."""

from __future__ import annotations

from collections.abc import Sequence

from model_store.card import ModelCard, join_words
from service.jobs.request import GenerateRequest
from service.kit.validation import UNPRINTABLE, Faults, closest_match, join_list, unprintable
from service.settings import Settings

_SPACES = str.maketrans("\n\r\t", "   ")


def given_inputs(request: GenerateRequest) -> tuple[str, ...]:
    """The names of the inputs that the request gives."""
    return tuple(name for name in ("prompt", "classes", "mask") if getattr(request, name) is not None)


def accepted(card: ModelCard) -> str:
    """The sets of inputs that the model takes, in words: ``prompt, or mask, or prompt and mask``."""
    return ", or ".join(join_words(chosen) for chosen in card.accepted_inputs)


def check_inputs(given: Sequence[str], card: ModelCard, faults: Faults) -> None:
    """Adds faults for inputs that the model does not take, or not together."""
    unknown_inputs = [name for name in given if name not in card.inputs]
    for name in unknown_inputs:
        faults.add_plain(f"/{name}", f"{card.id} takes no {name}; give {accepted(card)}")
    if not given:
        faults.add_plain("", f"the request says nothing to make: give {accepted(card)}")
    elif not unknown_inputs and set(given) not in [set(chosen) for chosen in card.accepted_inputs]:
        together = "together" if len(given) > 1 else "alone"
        faults.add_plain("", f"{card.id} does not take {join_words(given)} {together}: give {accepted(card)}")


def check_prompt(request: GenerateRequest, card: ModelCard, settings: Settings, faults: Faults) -> str | None:
    """The prompt as the model reads it, if one is given."""
    if request.prompt is None:
        return None
    prompt = request.prompt.strip()
    if not prompt:
        faults.add("prompt", request.prompt, "it is empty; say what the images show")
    if len(prompt) > settings.max_prompt_chars:
        faults.add(
            "prompt",
            prompt,
            f"it has {len(prompt)} characters; at most {settings.max_prompt_chars} are read, shorten it",
        )
        return prompt  # it may be megabytes, and each further check takes seconds
    # No tokenizer here, but a word is at least a token.
    words = len(prompt.split())
    if words > card.limits.max_prompt_tokens:
        faults.add(
            "prompt",
            prompt,
            f"it has {words} words; {card.id} reads {card.limits.max_prompt_tokens} tokens, shorten it",
        )
    if unprintable(prompt.translate(_SPACES)):
        faults.add("prompt", prompt, UNPRINTABLE)
    return prompt


def check_classes(request: GenerateRequest, card: ModelCard, faults: Faults) -> tuple[str, ...] | None:
    """The card's names of the requested classes, by class index.

    A class given twice, also by two aliases, counts once.
    """
    if request.classes is None:
        return None
    if not request.classes:
        faults.add("classes", [], f"name at least one of {join_list(card.queryable)}")
    wanted: dict[int, str] = {}
    for position, word in enumerate(request.classes):
        entry = card.find_class(word)
        if entry is None:
            words = [*card.queryable, *(alias for c in card.classes if c.queryable for alias in c.aliases)]
            near = closest_match(word, words)
            meant = f"did you mean {near!r}? " if near else ""
            faults.add(
                f"classes.{position}",
                word,
                f"{card.id} has no such class; {meant}It has {join_list(card.queryable)}",
                unknown_class=True,
            )
        elif not entry.queryable:
            faults.add(
                f"classes.{position}",
                word,
                f"{card.id} knows {entry.name!r} in masks, but it is not a class of its own and cannot be requested; "
                f"ask for {join_list(card.queryable)}",
            )
        else:
            wanted[entry.index] = entry.name
    return tuple(wanted[index] for index in sorted(wanted))
