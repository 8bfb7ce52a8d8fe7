"""Admission of requests against card and dataset: defaults filled in, and all faults at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from model_store.card import ModelCard
from service.augmentations.admission import AugmentationParameters, admit
from service.augmentations.request import EXAMPLES, AugmentationRequest
from service.datasets.classes import ClassList
from service.errors import InvalidRequest
from service.settings import Settings
from tests.service.augmentations.scenes import (
    CLASSES,
    DRAWS,
    MASKS,
    card,
)

SETTINGS = Settings(max_steps=150, max_prompt_chars=200)


def admitted(
    the_card: ModelCard = MASKS, classes: ClassList = CLASSES, *, items: int = 100, **body: Any
) -> AugmentationParameters:
    request = AugmentationRequest.model_validate({"dataset": "tiles", "model": "toy", **body})
    return admit(request, the_card, classes, sizes=[(64, 64)] * items, settings=SETTINGS, new_seed=lambda: 7)


def faults(
    the_card: ModelCard = MASKS, classes: ClassList = CLASSES, *, items: int = 100, **body: Any
) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        admitted(the_card, classes, items=items, **body)
    return {error["pointer"]: error["detail"] for error in caught.value.extra["errors"]}


def test_the_examples_are_requests() -> None:
    for example in EXAMPLES:
        given = AugmentationRequest.model_validate(example)
        dumped = given.model_dump(mode="json", exclude_unset=True)
        assert AugmentationRequest.model_validate(dumped) == given


def test_defaults_of_a_plain_request() -> None:
    plain = admitted(ratio=2.5)
    assert (plain.count, plain.seed, plain.sampling.steps, plain.sampling.size, plain.budget, plain.sampling.eta) == (
        250,
        7,
        50,
        None,
        2.0,
        0.0,
    )
    assert plain.weights == {"real": 0.25, "transformed": 0.75}
    assert plain.templates == ()
    assert plain.balance is None
    assert set(plain.transforms.named()) == {"drop", "clone", "flip", "scale", "rotate", "shift", "elastic"}
    drawn = admitted(DRAWS, count=9, prompt="A photo of {classes}", balance={"roofs": 0.5, "Water": 0.1}, seed=3)
    assert drawn.weights == {"classes": 1.0}
    assert drawn.balance == {1: 0.5, 3: 0.1}
    assert drawn.seed == 3
    assert admitted(count=1, masks={"transforms": ["crop", "merge"]}).transforms.named().keys() == {"crop", "merge"}
    assert list(admitted(count=1, masks={"transforms": []}).transforms.named()) == []


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"count": 0}, "count"),
        ({"count": 1_000_001}, "count"),
        ({"count": "8"}, "count"),
        ({"count": 1.5}, "count"),
        ({"ratio": 0}, "ratio"),
        ({"ratio": float("inf")}, "ratio"),
        ({"count": 1, "balance": "uneven"}, "balance"),
        ({"count": 1, "balance": {"roof": 1.2}}, "balance"),
        ({"count": 1, "budget": 0.5}, "budget"),
        ({"count": 1, "masks": {"real": -1}}, "masks"),
        ({"count": 1, "masks": {"transforms": ["melt"]}}, "masks"),
        ({"count": 1, "masks": {"transforms": {"scale": {"low": 2, "high": 1}}}}, "masks"),
        ({"count": 1, "masks": {"transforms": {"elastic": {"max_displacement": 0.2}}}}, "masks"),
        ({"count": 1, "acceptance": {"no_near_duplicates": 65}}, "acceptance"),
        ({"count": 1, "acceptance": {"min_confident_share": 1.1}}, "acceptance"),
        ({"count": 1, "seed": 2**53}, "seed"),
        ({"count": 1, "colour": "red"}, "colour"),
        ({"count": 1, "class_map": {str(number): None for number in range(300)}}, "class_map"),
    ],
)
def test_faults_that_do_not_depend_on_the_model(body: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AugmentationRequest.model_validate({"dataset": "d", "model": "m", **body})
    assert {error["loc"][0] for error in caught.value.errors()} == {place}


def test_every_member_is_described() -> None:
    def bare(schema: dict[str, Any]) -> list[str]:
        return [name for name, member in schema.get("properties", {}).items() if "description" not in member]

    whole = AugmentationRequest.model_json_schema()
    for name, schema in {"": whole, **whole["$defs"]}.items():
        assert bare(schema) == [], name


def test_all_faults_at_once() -> None:
    found = faults(
        count=1,
        ratio=1.0,
        balance={"rof": 0.2, "roof": 0.9, "roofs": 0.3},
        class_map={"roof": "walls", "lawn": None},
        prompt=["{colour}", "fine"],
        acceptance={"min_confident_share": 0.5},
        masks={"classes": 1, "real": 1},
        steps=999,
        guidance_scale=99,
        guidance_target="text",
        size=48,
        name="x" * 121,
    )
    assert set(found) == {
        "/count",
        "/balance/rof",
        "/balance/roofs",
        "/balance",
        "/class_map/roof",
        "/class_map/lawn",
        "/prompt/0",
        "/masks/classes",
        "/steps",
        "/guidance_scale",
        "/guidance_target",
        "/size",
        "/name",
    } - {"/balance"}
    assert 'did you mean "roof"?' in found["/balance/rof"]
    assert "names roof twice" in found["/balance/roofs"]
    assert "1 to 150" in found["/steps"]
    assert "16, 32" in found["/size"]
    assert "add up to 1.2" in faults(count=1, balance={"roof": 0.9, "water": 0.3})["/balance"]
    assert faults(count=1, balance={})["/balance"].startswith("balance is {}: it names no class")
    assert admitted(count=1, balance={"roof": 0.9, "water": 0.9}, balance_by="images").balance == {1: 0.9, 3: 0.9}


def test_the_number_of_twins() -> None:
    assert "neither is given" in faults()["/count"]
    assert "both are given" in faults(count=1, ratio=1.0)["/count"]
    assert "at most 1000000" in faults(ratio=900.0, items=2000)["/ratio"]
    assert "no items" in faults(ratio=1.0, items=0)["/dataset"]
    assert admitted(ratio=0.001, items=3).count == 1


def test_inputs_that_the_model_does_not_accept() -> None:
    assert "DRAWS" not in faults(DRAWS, count=1, masks={"real": 1})["/masks/real"]
    assert "takes prompt, or classes" in faults(DRAWS, count=1, masks={"real": 1})["/masks/real"]
    assert "Leave prompt out" in faults(card("mask"), count=1, prompt="{classes}")["/masks/real"]
    both_only = card("mask", "prompt", sets=(("prompt", "mask"),))
    assert "Give a prompt" in faults(both_only, count=1)["/masks/transformed"]
    assert admitted(both_only, count=1, prompt="{classes}").templates[0].uses == {"classes"}
    assert "gives every source the weight 0" in faults(count=1, masks={"real": 0})["/masks"]
    prompted = card("mask", "prompt", sets=(("prompt",), ("mask",)))
    assert "would have none" in faults(prompted, count=1, masks={"classes": 1}, prompt="{classes}")["/masks/classes"]


def test_rules_on_drawn_masks_need_drawn_masks() -> None:
    assert (
        "are given to the model"
        in faults(count=1, acceptance={"min_class_agreement": 0.5})["/acceptance/min_class_agreement"]
    )
    assert admitted(DRAWS, count=1, acceptance={"min_class_agreement": 0.5}).acceptance.min_class_agreement == 0.5
    assert admitted(count=1, acceptance={"no_near_duplicates": True}).acceptance.no_near_duplicates is True


def test_classes_are_matched_by_name_alias_background_and_map() -> None:
    theirs = ClassList.of(["void", "ROADS", "Roof", "hut", "pond", "cloud"], background="void")
    toy = card("mask", words=("unlabeled", "roof", "road", "water"))
    match = admitted(toy, theirs, count=1, class_map={"hut": "roofs", "Pond": "WATER", "cloud": None}).match
    assert match.table[:6].tolist() == [0, 2, 1, 1, 3, 255]
    assert (match.table[6:] == 255).all()
    assert match.background == {0}
    assert match.labels(np.array([[0, 3], [5, 255]], dtype=np.uint8)).tolist() == [[0, 1], [255, 255]]
    shares = match.histograms(np.array([[0.1, 0.2, 0.3, 0.1, 0.1, 0.2]]))
    assert shares == pytest.approx(np.array([[0.1, 0.4, 0.2, 0.1]]))


def test_unmatched_classes_are_named_with_the_known_ones() -> None:
    theirs = ClassList.of(["background", "tree", "roof"])
    detail = faults(MASKS, theirs, count=1)["/class_map"]
    assert (
        "the dataset has tree, which toy@1.0.0 does not know; its classes are background, roof, road, water" in detail
    )
    nothing = {"background": None, "tree": None, "roof": None}
    assert "leaves none" in faults(MASKS, theirs, count=1, class_map=nothing)["/class_map"]
    odd = ClassList.of(["background", "a/b~c"])
    assert "/class_map/a~1b~0c" in faults(MASKS, odd, count=1, class_map={"a/b~c": "nowhere"})
