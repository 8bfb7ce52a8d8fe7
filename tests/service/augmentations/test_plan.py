"""Plans from request to entries: deterministic, resumable, and balanced whatever is rejected."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from typing import Any

import numpy as np
import pytest

from model_store.card import ModelCard
from service.augmentations.admission import admit
from service.augmentations.entries import PlanEntry
from service.augmentations.plan import Plan, Wanted, job_groups, make_plan
from service.augmentations.plan_report import report
from service.augmentations.pool import ArrayPool, histogram
from service.augmentations.request import AugmentationRequest
from service.augmentations.set_counts import SetCounts
from service.augmentations.transforms.base import Segmentation
from service.augmentations.transforms.compose import remake
from service.errors import InvalidRequest
from service.settings import Settings
from tests.service.augmentations.scenes import (
    CLASSES,
    DRAWS,
    MASKS,
    WORDS,
    scene,
)

SETTINGS = Settings(max_steps=100, max_prompt_chars=200)
SCENES = [scene(seed) for seed in range(150)]
ALL = ["crop", "merge", "drop", "clone", "flip", "scale", "rotate", "shift", "elastic"]


def plan_of(
    the_card: ModelCard = MASKS, tiles: list[np.ndarray] = SCENES, captions: list[str | None] | None = None, **body: Any
) -> Plan:
    request = AugmentationRequest.model_validate({"dataset": "tiles", "model": "toy", "seed": 5, "size": 32, **body})
    parameters = admit(request, the_card, CLASSES, sizes=[mask.shape[::-1] for mask in tiles], settings=SETTINGS)
    return make_plan(parameters, the_card, ArrayPool(tiles, len(WORDS), captions or ()))


def entries(plan: Plan, count: int, counts: SetCounts | None = None) -> list[PlanEntry]:
    return list(plan.next(counts or SetCounts.empty(len(WORDS)), count))


def counted(counts: SetCounts, made: list[PlanEntry]) -> SetCounts:
    for entry in made:
        counts.add_judged(entry.wanted.item, entry.shares, entry.shares)
    return counts


def same(one: list[PlanEntry], other: list[PlanEntry]) -> bool:
    def one_like(a: PlanEntry, b: PlanEntry) -> bool:
        masks = (a.labels is None and b.labels is None) or np.array_equal(a.labels, b.labels)  # type: ignore[arg-type]
        return a.wanted == b.wanted and masks and a.applied == b.applied

    return len(one) == len(other) and all(map(one_like, one, other))


def test_the_same_plan_makes_the_same_entries_and_continues_from_counts() -> None:
    body = {"count": 300, "balance": "even", "masks": {"transforms": ALL}}
    first = entries(plan_of(**body), 100)
    assert same(first, entries(plan_of(**body), 100))
    assert same(first[:70], entries(plan_of(**body), 70))
    assert not same(first, entries(plan_of(**body, seed=6), 100))
    counts = counted(SetCounts.empty(4), first)
    restored = SetCounts.from_json(json.loads(json.dumps(counts.to_json())))
    further = entries(plan_of(**body), 50, counts)
    assert same(further, entries(plan_of(**body), 50, restored))
    assert [entry.wanted.index for entry in further] == list(range(100, 150))
    assert counts.tried == 100


def test_entries_hold_what_the_model_needs() -> None:
    plan = plan_of(count=100, balance={"water": 0.1}, masks={"transforms": ALL})
    made = entries(plan, 100)
    assert {entry.wanted.source for entry in made} == {"real", "transformed"}
    assert sum(entry.wanted.source == "real" for entry in made) == pytest.approx(25, abs=1)
    merged = 0
    for entry in made:
        wanted, labels = entry.wanted, entry.labels
        assert labels is not None
        assert labels.shape == (32, 32)
        assert labels.max() < 4
        assert wanted.prompt is None
        assert wanted.classes is None
        assert Wanted.from_json(json.loads(json.dumps(wanted.to_json()))) == wanted
        assert np.array_equal(plan.compose(wanted).segmentation.labels, labels)
        others = [] if wanted.partner is None else [Segmentation(SCENES[wanted.partner])]
        assert np.array_equal(remake(Segmentation(SCENES[wanted.item]), entry.applied, others).labels, labels)
        assert np.array_equal(entry.shares, histogram(labels, 4))
        assert wanted.requested == tuple(
            word for word, share in zip(WORDS, entry.shares, strict=True) if share >= 0.005
        )
        if wanted.source == "real":
            assert [step["transform"] for step in entry.applied] == ["resize"]
        merged += any(step["transform"] == "merge" for step in entry.applied)
    assert merged > 3


@pytest.mark.parametrize("by", ["pixels", "images"])
@pytest.mark.parametrize("balance", ["even", "inverse", {"water": 0.12}])
def test_accepted_twins_meet_a_target_that_can_be_met(balance: Any, by: str) -> None:
    if by == "images" and isinstance(balance, dict):
        balance = {"water": 0.5, "road": 0.4}
    plan = plan_of(
        count=600, balance=balance, balance_by=by, masks={"transforms": ["crop", "flip", "shift"], "max_uses": 100.0}
    )
    assert all(one.met for one in report(plan).classes)
    counts = SetCounts.empty(4)
    rng = np.random.default_rng(1)
    while (lacking := plan.lacking(counts)) > 0:
        for entry in entries(plan, min(64, lacking), counts):
            # twins with water are rejected half of the time
            accepted = counts.accepted < 600 and rng.random() < (0.5 if entry.shares[3] > 0.005 else 0.95)
            counts.add_judged(entry.wanted.item, entry.shares, entry.shares if accepted else None)
    assert counts.accepted == 600
    assert plan.target.met(counts.shares(by)).all()
    # more of it was requested than was accepted
    assert counts.requested_totals.shares(by)[3] > 1.08 * counts.shares(by)[3]


def test_a_plan_reports_its_shares() -> None:
    shares = report(plan_of(ratio=2.0, balance={"water": 0.5}, budget=1.5))
    assert (shares.count, shares.max_samples, shares.items, shares.by) == (300, 450, 150, "pixels")
    water = next(one for one in shares.classes if one.name == "water")
    real = np.mean([(mask == 3).mean() for mask in SCENES])
    assert water.target == 0.5
    assert not water.met
    assert water.real == pytest.approx(real, abs=1e-6)
    assert water.planned == pytest.approx(water.feasible, abs=0.01)
    assert real < water.planned < 0.2
    assert any(
        note.startswith("Water can reach at most") and note.endswith("50.0 % are requested.") for note in shares.notes
    )
    assert any("max_uses" in note for note in shares.notes)
    plain = report(plan_of(ratio=2.0))
    assert all(one.met and one.planned == pytest.approx(one.real, rel=0.02) for one in plain.classes)
    assert [note for note in plain.notes if "px" not in note] == []
    assert plain.scale is not None
    assert (plain.scale.size, plain.scale.twin_px_per_real_px) == (32, (0.8, 0.8))
    assert plain.notes[0].startswith("Twins come at 0.80 times the real items' scale")
    free = report(plan_of(DRAWS, count=50, balance={"water": 0.3}, balance_by="images"))
    assert [one.target for one in free.classes] == [None, None, None, 0.3]


def test_a_target_that_so_few_twins_cannot_meet_is_noted() -> None:
    shares = report(plan_of(DRAWS, count=3, balance={"water": 0.5}, balance_by="images"))
    water = next(one for one in shares.classes if one.name == "water")
    assert water.feasible == pytest.approx(0.5, abs=0.01)
    assert not water.met
    assert (
        f"In 3 whole twins water reaches {100 * water.planned:.1f} % of the images; 50.0 % are requested."
        in shares.notes
    )


def test_only_remedies_that_help_are_noted() -> None:
    alone = report(plan_of(tiles=SCENES[:1], count=4, balance={"water": 0.9}))
    assert any("water" in note.casefold() for note in alone.notes)
    assert not any("max_uses" in note for note in alone.notes)
    land = [np.zeros((64, 64), dtype=np.uint8)] * 3
    none = report(plan_of(tiles=land, count=4, balance={"water": 0.5}))
    assert any("Water is in none of these masks" in note for note in none.notes)
    assert not any("Clone" in note for note in none.notes)


def test_no_item_is_used_more_often_than_max_uses() -> None:
    plan = plan_of(count=600, balance={"water": 0.3}, masks={"real": 1, "max_uses": 3.0})
    uses = np.bincount([entry.wanted.item for entry in entries(plan, 600)], minlength=150)
    assert uses.max() <= 3 * 600 / 150 + 3
    assert uses.max() > 6


def test_class_sets_are_given_as_classes_or_in_words() -> None:
    plan = plan_of(DRAWS, count=120, balance="even", balance_by="images")
    occurring = {
        tuple(word for number, word in enumerate(WORDS) if number and (mask == number).mean() >= 0.005)
        for mask in SCENES
    }
    made = entries(plan, 120)
    for entry in made:
        assert entry.labels is None
        assert entry.applied == ()
        assert entry.wanted.prompt is None
        assert entry.wanted.classes == entry.wanted.requested
        assert entry.wanted.classes in occurring - {()}
    for word in WORDS[1:]:
        share = np.mean([word in entry.wanted.requested for entry in made])
        assert share == pytest.approx(plan.target.shares[WORDS.index(word)], rel=0.06)
    with pytest.raises(ValueError, match="made by classes"):
        plan.compose(made[0].wanted)
    prompted = entries(plan_of(DRAWS, count=20, prompt="A photo of {classes}"), 20)
    for entry in prompted:
        assert entry.wanted.classes is None
        assert entry.wanted.requested
        assert entry.wanted.prompt == DRAWS.prompt_for(entry.wanted.requested)


def test_prompts_name_what_the_transformed_mask_holds() -> None:
    captions = [None if number % 3 == 0 else f"tile {number}" for number in range(150)]
    plan = plan_of(
        MASKS, captions=captions, count=60, prompt=["{classes}", "{caption}: {classes}"], masks={"transforms": ALL}
    )
    seen = set()
    for entry in entries(plan, 60):
        words = [f"{word}s" for word in entry.wanted.requested if word != "background"] or ["background"]
        words_said = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
        caption = captions[entry.wanted.item]
        assert entry.wanted.prompt in ({words_said, f"{caption}: {words_said}"} if caption else {words_said})
        seen.add(":" in (entry.wanted.prompt or ""))
    assert seen == {True, False}
    all_captioned = plan_of(MASKS, captions=captions, count=60, prompt="{caption}")
    assert all_captioned.skipped == {"without_caption": 50}
    assert all(captions[entry.wanted.item] == entry.wanted.prompt for entry in entries(all_captioned, 60))


def test_unusable_items_are_skipped_and_noted() -> None:
    mostly_ignored = np.full((20, 20), 255, dtype=np.uint8)
    mostly_ignored[:8] = 1
    partly = scene(3)
    partly[:10] = 255
    plan = plan_of(tiles=[*SCENES[:20], mostly_ignored, partly], count=60)
    assert plan.skipped == {"unlabelled": 1}
    assert "1 real items are skipped" in report(plan).notes[-1]
    made = entries(plan, 60)
    assert 20 not in {entry.wanted.item for entry in made}
    assert 21 in {entry.wanted.item for entry in made}
    with pytest.raises(InvalidRequest, match="1 have less than half") as caught:
        plan_of(tiles=[mostly_ignored], count=1)
    assert caught.value.extra["errors"][0]["pointer"] == "/dataset"
    with pytest.raises(InvalidRequest, match="have no class that a request may name"):
        plan_of(DRAWS, tiles=[np.zeros((20, 20), dtype=np.uint8)], count=1)


def test_the_number_of_entries_to_make_next() -> None:
    plan = plan_of(count=200, budget=2.0)
    assert plan.lacking(so_far(0, 0, 0)) == 200
    assert plan.lacking(so_far(60, 50, 0)) == 190  # the first few say nothing about the rate
    assert plan.lacking(so_far(100, 100, 50)) == 300  # half are accepted, and 300 of 400 are left
    assert plan.lacking(so_far(200, 200, 180)) == 23
    assert plan.lacking(so_far(210, 200, 180)) == 13
    assert plan.lacking(so_far(390, 390, 150)) == 10
    assert (
        plan.lacking(so_far(400, 400, 199))
        == plan.lacking(so_far(300, 300, 200))
        == plan.lacking(so_far(260, 200, 160))
        == 0
    )


def so_far(tried: int, judged: int, accepted: int) -> SetCounts:
    counts = SetCounts.empty(4)
    counts.tried, counts.requested_totals.images, counts.pending_totals.images = tried, judged, tried - judged
    counts.accepted_totals.images = counts.obtained_totals.images = accepted
    return counts


def test_pending_entries_count_as_far_as_such_were_accepted() -> None:
    """Two concurrent rounds give the same shares as one after the other."""
    plan = plan_of(count=600, balance={"water": 0.12}, masks={"transforms": ["crop", "flip"], "max_uses": 100.0})
    counts, pending = SetCounts.empty(4), []
    rng = np.random.default_rng(2)
    while counts.accepted < 600:
        assumed = counts.copy()
        for entry in pending:
            assumed.add_pending(entry.wanted.item, entry.shares)
        following = entries(plan, min(60, plan.lacking(assumed)), assumed)
        assert following or pending
        for entry in pending:
            accepted = counts.accepted < 600 and rng.random() < (0.5 if entry.shares[3] > 0.005 else 0.95)
            counts.add_judged(entry.wanted.item, entry.shares, entry.shares if accepted else None)
        pending = following
    assert plan.target.met(counts.shares("pixels")).all()
    assert counts.tried < 1000
    assert SetCounts.from_json(json.loads(json.dumps(counts.to_json()))).to_json() == counts.to_json()


def test_entries_of_one_prompt_make_one_job() -> None:
    plan = plan_of(count=90, prompt=["one {classes}", "two {classes}"], masks={"real": 1})
    made = entries(plan, 90)
    groups = job_groups(made)
    assert sorted(entry.wanted.index for group in groups for entry in group.entries) == list(range(90))
    assert len({group.prompt for group in groups}) == len(groups) < 20
    for group in groups:
        assert {entry.wanted.prompt for entry in group.entries} == {group.prompt}
    assert job_groups([]) == []


def test_masks_are_read_one_by_one() -> None:
    class Counting(ArrayPool):
        reads = 0

        def segmentation(self, item: int) -> Segmentation:
            Counting.reads += 1
            return super().segmentation(item)

    request = AugmentationRequest.model_validate(
        {"dataset": "d", "model": "m", "count": 10**6, "balance": "even", "seed": 1}
    )
    parameters = admit(request, MASKS, CLASSES, sizes=[(40, 40)] * 150, settings=SETTINGS)
    plan = make_plan(parameters, MASKS, Counting(SCENES, 4))
    assert report(plan).count == 10**6
    assert Counting.reads == 0
    assert len(list(islice(plan.next(SetCounts.empty(4), 10**6), 5))) == 5
    assert Counting.reads == 5


def test_a_pool_of_another_model_is_refused() -> None:
    parameters = plan_of(count=1).parameters
    with pytest.raises(ValueError, match="has 4 classes"):
        make_plan(parameters, MASKS, ArrayPool(SCENES, 5))
    with pytest.raises(ValueError, match="holds 3; the model's classes are 0 to 2"):
        histogram(np.full((2, 2), 3, dtype=np.uint8), 3)


def test_plans_are_made_without_torch() -> None:
    code = (
        "import sys, service.augmentations.plan, service.augmentations.plan_chart, service.augmentations.acceptance; "
        "heavy = {'torch', 'scipy', 'boto3', 'celery', 'fastapi'}; "
        "print([name for name in sys.modules if name.split('.')[0] in heavy])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
