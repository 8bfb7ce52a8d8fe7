"""Verdicts on twins by each rule, with the value and the limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.augmentations.acceptance import ACCEPTED, Verdict, class_agreement, duplicate_bits, judge
from service.augmentations.near_duplicates import NearDuplicates
from service.augmentations.request import Acceptance
from service.jobs.spec import ItemClass, SampleRecord

SHA = "0" * 64
STRICT = Acceptance(min_confident_share=0.9, min_mean_confidence=0.5, min_class_agreement=0.75, no_near_duplicates=True)


def item(**changes: Any) -> SampleRecord:
    made = {
        "index": 3,
        "seed": 4,
        "image_key": "i.png",
        "image_sha256": SHA,
        "image_bytes": 9,
        "mask_key": "m.png",
        "mask_sha256": SHA,
        "mask_bytes": 9,
        "classes": (ItemClass(name="roof", index=1, share=0.5), ItemClass(name="road", index=2, share=0.2)),
        "confident_share": 0.95,
        "mean_confidence": 0.6,
    }
    return SampleRecord.model_validate({**made, **changes})


def test_a_good_twin_is_accepted() -> None:
    assert judge(item(), ["roof", "road"], STRICT, mask_given=False) is ACCEPTED
    assert ACCEPTED.accepted
    assert ACCEPTED.to_json() == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"confident_share": 0.89}, Verdict("low_confidence", "confident_share", 0.89, 0.9)),
        ({"mean_confidence": 0.49}, Verdict("low_confidence", "mean_confidence", 0.49, 0.5)),
        ({"confident_share": None}, Verdict("low_confidence", "confident_share", None, 0.9)),
        ({"mask_key": None}, Verdict("no_mask")),
        ({"classes": ()}, Verdict("class_disagreement", "class_agreement", 0.0, 0.75)),
    ],
)
def test_the_verdict_names_the_first_rule_that_fails(changes: dict[str, Any], expected: Verdict) -> None:
    verdict = judge(item(**changes), ["roof", "road"], STRICT, mask_given=False)
    assert verdict == expected
    assert not verdict.accepted
    if verdict.reason != "no_mask":
        assert judge(item(**changes), ["roof", "road"], Acceptance(), mask_given=False).accepted


def test_a_value_equal_to_its_limit_is_accepted() -> None:
    exact = item(confident_share=0.9, mean_confidence=0.5)
    assert judge(exact, ["roof", "road", "road", "water"], STRICT, mask_given=False).accepted


def test_rules_on_drawn_masks_do_not_apply_to_given_ones() -> None:
    unsure = item(confident_share=None, mean_confidence=None, classes=())
    assert judge(unsure, ["roof"], STRICT, mask_given=True).accepted


def test_a_failed_sample() -> None:
    failed = SampleRecord(index=1, seed=2, error="out of memory")
    assert judge(failed, ["roof"], Acceptance(), mask_given=True) == Verdict("failed")


def test_near_duplicates_of_accepted_twins_are_rejected() -> None:
    earlier = NearDuplicates()
    one = np.arange(4, dtype=np.uint64)
    near = one ^ np.array([0, 0, 2**40 - 1, 0], dtype=np.uint64)
    far = one ^ np.array([0, 0, 2**41 - 1, 0], dtype=np.uint64)
    assert judge(item(), [], STRICT, mask_given=True, fingerprint=one, earlier=earlier).accepted
    earlier.add(~one)
    earlier.add(one)
    verdict = judge(item(), [], STRICT, mask_given=True, fingerprint=near, earlier=earlier)
    assert verdict == Verdict("near_duplicate", "differing_bits", 40, 40, 1)
    assert verdict.to_json() == {
        "reason": "near_duplicate",
        "measure": "differing_bits",
        "value": 40,
        "limit": 40,
        "duplicate_of": 1,
    }
    assert judge(item(), [], STRICT, mask_given=True, fingerprint=far, earlier=earlier).accepted
    assert judge(item(), [], Acceptance(), mask_given=True, fingerprint=one, earlier=earlier).accepted
    exact = Acceptance(no_near_duplicates=0)
    assert not judge(item(), [], exact, mask_given=True, fingerprint=one, earlier=earlier).accepted
    assert judge(item(), [], exact, mask_given=True, fingerprint=near, earlier=earlier).accepted


def test_bits_and_agreement() -> None:
    assert [duplicate_bits(Acceptance(no_near_duplicates=given)) for given in (False, True, 0, 1, 12)] == [
        None,
        40,
        0,
        1,
        12,
    ]
    assert class_agreement(item(), ["roof", "road", "water"]) == pytest.approx(2 / 3)
    assert class_agreement(item(), []) == 1
