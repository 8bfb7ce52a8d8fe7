"""What a card says of its inputs, its guidance and its masks; and cards from before it could."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from model_store import bundled_folder
from model_store.card import ModelCard, load_card
from tests.service.api.support import binary_card, card, mask_card


def made(**changes: Any) -> ModelCard:
    return ModelCard.model_validate(mask_card(**changes))


def test_a_card_without_input_sets_takes_each_input_alone_and_makes_its_own_masks() -> None:
    plain = ModelCard.model_validate(card())
    assert plain.accepted_inputs == (("prompt",), ("classes",))
    assert (plain.guidance_targets, plain.guidance_target) == ((), None)
    assert plain.makes_mask(["prompt"])
    assert plain.makes_mask(["classes"])
    for path in bundled_folder().glob("cosimgen-*/*/card.json"):
        assert load_card(path.parent).accepted_inputs == (("prompt",), ("classes",))


def test_a_model_that_follows_masks_has_one_exactly_when_it_is_given() -> None:
    both = made()
    assert both.accepted_inputs == (("prompt",), ("mask",), ("prompt", "mask"))
    assert [both.makes_mask(given) for given in both.accepted_inputs] == [False, True, True]
    assert ModelCard.model_validate(binary_card()).accepted_inputs == (("mask",),)
    assert made(inputs=["prompt"], input_sets=[]).makes_mask(["prompt"])
    assert made(inputs=["classes", "mask"], input_sets=[]).makes_mask(["classes"])


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ([["classes"]], "each set takes one or more of \\['prompt', 'mask'\\]"),
        ([[]], "takes one or more"),
        ([["mask", "mask"]], "each once"),
        ([["prompt", "mask"], ["mask", "prompt"]], "lists a set twice"),
        ([["sound"]], "input_sets"),
    ],
)
def test_input_sets_that_make_no_sense_are_refused(sets: list[list[str]], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        made(input_sets=sets)


def test_classes_are_given_alone() -> None:
    with pytest.raises(ValidationError, match="classes stand for a whole prompt, and are given alone"):
        made(inputs=["classes", "mask"], input_sets=[["classes", "mask"]])


def test_the_default_guidance_target_is_one_of_those_listed() -> None:
    assert made().guidance_target == "text"
    unsaid = {"steps": 50, "guidance_scale": 1.5, "eta": 0.0}
    assert made(defaults=unsaid, guidance_targets=["joint", "mask"]).guidance_target == "joint"
    with pytest.raises(ValidationError, match="'text' is not one of guidance_targets \\['mask'\\]"):
        made(guidance_targets=["mask"])
    with pytest.raises(ValidationError, match="'text' is not one of guidance_targets \\[\\]"):
        made(guidance_targets=[])
    with pytest.raises(ValidationError, match="names one twice"):
        made(guidance_targets=["text", "text"])


def test_listed_colours_tell_the_classes_apart() -> None:
    classes = mask_card()["classes"]
    same = [{**entry, "colour": [1, 2, 3]} for entry in classes]
    with pytest.raises(ValidationError, match="'building' and 'water' have the same colour \\[1, 2, 3\\]"):
        made(classes=same)
    with pytest.raises(ValidationError, match="\\[256, 0, 0\\] of 'building' must be three values of 0 to 255"):
        made(classes=[{**classes[0], "colour": [256, 0, 0]}, *classes[1:]])
