"""Rules on objects: numbers and sizes are met exactly where there is room, and what is missed is said."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from service.augmentations.object_control import meet_rules
from service.augmentations.object_report import object_figures, object_notes
from service.augmentations.object_rules import ObjectRule
from service.augmentations.plan_chart import first_entries
from service.augmentations.transforms.base import Segmentation, TransformContext
from service.augmentations.transforms.compose import Composed, remake
from service.augmentations.transforms.regions import Footprint, footprint, footprints, objects_of
from service.augmentations.transforms.shapes import any_place, is_cut, scaled, side_of
from service.errors import InvalidRequest
from tests.service.augmentations.scenes import DRAWS, MASKS, scene
from tests.service.augmentations.test_plan import SCENES, entries, plan_of, same

GROUND = frozenset({0, 2})
DONORS = (Segmentation(scene(501, 64, 64)), Segmentation(scene(7, 64, 64)))


def met(
    labels: np.ndarray, seed: int = 0, instances: np.ndarray | None = None, **rules: dict[str, Any]
) -> tuple[Segmentation, dict[int, Any]]:
    """The mask with rules on classes 1 (roof) and 3 (water); made again from its steps, it is the same."""
    real, index = Segmentation(labels, instances), {"roof": 1, "water": 3}
    context = TransformContext(background=GROUND, others=DONORS)
    asked = {index[name]: ObjectRule.model_validate(rule) for name, rule in rules.items()}
    made, missed = meet_rules(Composed(real, ()), asked, np.random.default_rng(seed), context)
    again = remake(real, json.loads(json.dumps(made.applied)), DONORS)
    assert np.array_equal(again.labels, made.segmentation.labels)
    if instances is not None:
        assert np.array_equal(again.instances, made.segmentation.instances)  # type: ignore[arg-type]
    return made.segmentation, missed


def found(segmentation: Segmentation, index: int = 1) -> list[Footprint]:
    regions = objects_of(segmentation, GROUND)
    return footprints(regions, np.flatnonzero(regions.values == index))


def sides(segmentation: Segmentation, index: int = 1) -> list[float]:
    return [side_of(what) for what in found(segmentation, index)]


@pytest.mark.parametrize("with_instances", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_numbers_and_sizes_are_met_where_there_is_room(seed: int, with_instances: bool) -> None:
    labels = scene(seed, 64, 64)
    instances = np.zeros(labels.shape, dtype=np.int32) if with_instances else None
    made, missed = met(labels, seed, instances, roof={"count": [3, 6], "size": [4, 9]}, water={"count": 0})
    assert missed == {}
    assert 3 <= len(sides(made)) <= 6
    uncut = [what for what in found(made) if not is_cut(what, labels.shape)]
    assert all(3.5 <= side_of(what) <= 9.5 for what in uncut)
    assert 3 not in made.labels
    assert set(np.unique(made.labels)) <= set(np.unique(labels)) | {1}


def test_what_meets_a_rule_stays_as_it_is() -> None:
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[4:10, 4:10] = labels[20:26, 20:26] = 1
    for rule in ({"count": [1, 4]}, {"count": 2, "size": [5, 8]}, {"size": [6, 6]}):
        made, missed = met(labels, roof=rule)
        assert np.array_equal(made.labels, labels)
        assert missed == {}


def test_a_number_outside_the_range_is_drawn_evenly_from_it() -> None:
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[4:8, 4:8] = 1
    drawn = [len(sides(met(labels, seed, roof={"count": [3, 6]})[0])) for seed in range(120)]
    assert set(drawn) == {3, 4, 5, 6}
    assert min(drawn.count(number) for number in (3, 4, 5, 6)) >= 15  # 30, and three standard deviations


def test_objects_grow_in_place_by_a_factor() -> None:
    labels = np.zeros((60, 60), dtype=np.uint8)
    rows, columns = np.ogrid[:60, :60]
    labels[(rows - 30) ** 2 + (columns - 20) ** 2 <= 36] = 1
    instances = np.where(labels == 1, 7, 0).astype(np.int32)
    made, missed = met(labels, 0, instances, roof={"size": 2.0})
    assert missed == {}
    area = int((labels == 1).sum())
    assert (made.labels == 1).sum() == pytest.approx(4 * area, rel=0.05)
    assert np.argwhere(made.labels == 1).mean(axis=0) == pytest.approx([30, 20], abs=0.5)
    assert made.instances is not None
    assert set(np.unique(made.instances)) == {0, 7}


def test_an_object_that_the_border_cuts_keeps_its_size_and_is_the_last_to_be_repeated() -> None:
    labels = np.zeros((60, 60), dtype=np.uint8)
    labels[0:2, 10:40], labels[30:36, 30:36] = 1, 1
    made, missed = met(labels, 3, roof={"count": 4, "size": [9, 11]})
    assert missed == {}
    shapes = sorted((int(np.ptp(what.rows)) + 1, int(np.ptp(what.columns)) + 1) for what in found(made))
    assert shapes[0] == (2, 30), "its size is not known"
    assert all(2 * height > width for height, width in shapes[1:]), shapes


def test_objects_that_touch_stay_apart_by_their_numbers_or_by_a_pixel() -> None:
    labels, instances = np.zeros((40, 40), dtype=np.uint8), np.zeros((40, 40), dtype=np.int32)
    labels[10:16, 10:16] = labels[10:16, 16:22] = 1
    instances[10:16, 10:16], instances[10:16, 16:22] = 1, 2
    assert len(sides(met(labels, 0, instances, roof={"size": 1.5})[0])) == 2
    assert len(sides(met(labels, 0, instances, roof={"count": 6})[0])) == 6
    apart = labels.copy()
    apart[10:16, 16] = 0
    made, missed = met(apart, roof={"size": 1.5})
    assert len(sides(made)) == 2
    assert missed == {}


def test_one_of_a_touching_pair_is_taken_out_and_the_other_stays() -> None:
    labels, instances = np.zeros((20, 20), dtype=np.uint8), np.zeros((20, 20), dtype=np.int32)
    labels[5:9, 4:12] = 1
    instances[5:9, 4:8], instances[5:9, 8:12] = 4, 9
    made, missed = met(labels, 0, instances, roof={"count": 1})
    assert missed == {}
    assert sides(made) == [4.0]


def test_what_cannot_be_met_is_said_with_its_reason() -> None:
    full = np.ones((30, 30), dtype=np.uint8)
    made, missed = met(full, roof={"count": 0})
    assert missed == {1: "nothing_else"}
    assert (made.labels == 1).all()
    crowded = np.zeros((20, 20), dtype=np.uint8)
    crowded[:, :19] = 1
    made, missed = met(crowded, roof={"count": 2})
    assert missed == {1: "no_room"}
    inner = np.zeros((20, 20), dtype=np.uint8)
    inner[1:19, 1:19] = 1
    assert met(inner, roof={"size": 1.5})[1] == {1: "no_room"}
    nothing = np.zeros((64, 64), dtype=np.uint8)
    context = TransformContext(background=GROUND)
    asked = {1: ObjectRule.model_validate({"count": 1})}
    _, missed = meet_rules(Composed(Segmentation(nothing), ()), asked, np.random.default_rng(0), context)
    assert missed == {1: "no_object"}


def test_there_is_no_room_only_if_every_place_is_taken() -> None:
    blocked = np.ones((50, 50), dtype=bool)
    blocked[31:34, 7:11] = False
    what = footprint(objects_of(Segmentation(np.ones((3, 4), dtype=np.uint8)), frozenset()), 0)
    ground = np.ones_like(blocked)
    assert any_place(scaled(what, 1, whole=True), blocked, ground, np.random.default_rng(0)) == (31, 7)
    blocked[33, 10] = True
    assert any_place(scaled(what, 1, whole=True), blocked, ground, np.random.default_rng(0)) is None


BODY: dict[str, Any] = {
    "count": 40,
    "objects": {"roofs": {"count": [2, 5], "size": [3, 12]}, "water": {"count": 0}},
    "masks": {"transforms": ["flip", "merge", "scale"]},
}


def test_a_plan_makes_masks_that_meet_its_rules() -> None:
    plan = plan_of(**BODY)
    made = entries(plan, 40)
    assert same(made, entries(plan_of(**BODY), 40))
    for entry in made:
        assert entry.labels is not None
        segmentation = Segmentation(entry.labels)
        if not entry.missed:
            assert 2 <= len(sides(segmentation)) <= 5
            assert 3 not in entry.labels
        others = [Segmentation(SCENES[item]) for item in entry.wanted.others]
        assert np.array_equal(
            remake(Segmentation(SCENES[entry.wanted.item]), entry.applied, others).labels, entry.labels
        )
        assert np.array_equal(plan.compose(entry.wanted).segmentation.labels, entry.labels)
    assert sum(bool(entry.missed) for entry in made) <= 2
    assert {entry.wanted.source for entry in made} == {"real", "transformed"}


def test_the_report_counts_the_masks_that_miss_a_rule() -> None:
    plan = plan_of(count=40, objects={"roof": {"count": 24, "size": [6, 8]}})
    figures = object_figures(plan, first_entries(plan))
    assert [(one.name, one.rule, one.masks) for one in figures] == [("roof", "24 objects of 6 to 8 px", 24)]
    assert figures[0].met + sum(figures[0].missed.values()) == 24
    assert figures[0].missed["no_room"] > 12
    (note,) = object_notes(figures)
    assert note.startswith(f"Roof: {24 - figures[0].met} of the first 24 masks do not get 24 objects of 6 to 8 px: ")
    assert note.endswith("have no room for them; ask for fewer or smaller ones.")
    fine = plan_of(count=40, objects={"roof": {"count": [1, 30]}})
    assert object_notes(object_figures(fine, first_entries(fine))) == []


@pytest.mark.parametrize(
    ("objects", "where", "message"),
    [
        ({}, "/objects", "names no class"),
        ({"rooff": {"count": 1}}, "/objects/rooff", 'did you mean "roof"'),
        ({"roof": {"count": 1}, "roofs": {"count": 2}}, "/objects/roofs", "names roof twice"),
        ({"background": {"count": 1}}, "/objects/background", "what objects stand on"),
        ({"roof": {}}, "/objects/roof", "give count, size, or both"),
        ({"roof": {"count": 0, "size": 2.0}}, "/objects/roof/size", "0 objects, so there is no size"),
        ({"roof": {"size": [33, 40]}}, "/objects/roof/size", "do not fit into twins of 32 x 32 px; give at most 32"),
        (
            {"roof": {"count": 20, "size": [8, 9]}},
            "/objects/roof/count",
            "have 1280 px, and a twin 1024; give at most 16",
        ),
    ],
)
def test_impossible_rules_are_refused_before_anything_is_made(
    objects: dict[str, Any], where: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        plan_of(count=4, objects=objects)
    assert [fault["pointer"] for fault in caught.value.extra["errors"]] == [where]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"count": -1}, "0 \\(none\\) to 1000"),
        ({"count": [5, 2]}, "least and the most"),
        ({"count": 1.5}, "a number of objects"),
        ({"count": True}, "a number of objects"),
        ({"size": 9.0}, "0.25 to 4"),
        ({"size": [0, 4]}, "1 and up"),
    ],
)
def test_a_rule_says_what_it_takes(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectRule.model_validate(rule)


def test_rules_need_masks_that_have_objects() -> None:
    with pytest.raises(InvalidRequest, match="draws the masks itself"):
        plan_of(DRAWS, count=4, objects={"roof": {"count": 1}})
    with pytest.raises(InvalidRequest, match=r"balance asks for a share of 0\.2"):
        plan_of(count=4, objects={"water": {"count": 0}}, balance={"waters": 0.2})
    land = [np.where(mask == 3, 0, mask).astype(np.uint8) for mask in SCENES[:20]]
    with pytest.raises(InvalidRequest, match="asks for water, and none of the 20 masks has any to clone"):
        plan_of(MASKS, land, count=4, objects={"water": {"count": [1, 2]}})
