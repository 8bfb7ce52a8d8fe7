"""Does a made twin count? If not, why, with the value and the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from service.augmentations.near_duplicates import USUAL_BITS, NearDuplicates
from service.augmentations.request import Acceptance
from service.jobs.spec import SampleRecord

Reason = Literal["failed", "no_mask", "low_confidence", "class_disagreement", "near_duplicate"]


@dataclass(frozen=True)
class Verdict:
    """Accepted if ``reason`` is None. Otherwise ``value`` met ``limit`` of ``measure``, and a near duplicate is one
    ``of`` that number."""

    reason: Reason | None = None
    measure: str | None = None
    value: float | None = None
    limit: float | None = None
    of: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether the twin counts."""
        return self.reason is None

    def to_json(self) -> dict[str, Any]:
        """What there is of it, as JSON-able values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


ACCEPTED = Verdict()


def judge(
    item: SampleRecord,
    asked: Sequence[str],
    rules: Acceptance,
    *,
    mask_given: bool,
    fingerprint: np.ndarray | None = None,
    before: NearDuplicates | None = None,
) -> Verdict:
    """The verdict on a sample of a chunk record, by the first rule that it does not meet.

    ``asked`` names the classes that its mask should hold. ``mask_given`` says whether the model was given the mask:
    then the rules on drawn masks are not applied. ``fingerprint`` is that of its image, and ``before`` those of the
    twins accepted so far, to which the caller adds it once it is accepted; without both, no near duplicate is looked
    for.
    """
    if item.error is not None:
        return Verdict("failed")
    if item.mask_key is None:
        return Verdict("no_mask")
    if not mask_given:
        confidences = (
            ("confident_share", item.confident_share, rules.min_confident_share),
            ("mean_confidence", item.mean_confidence, rules.min_mean_confidence),
        )
        for measure, value, limit in confidences:
            if limit is not None and (value is None or value < limit):
                return Verdict("low_confidence", measure, value, limit)
        agreement = class_agreement(item, asked)
        if rules.min_class_agreement is not None and agreement < rules.min_class_agreement:
            return Verdict("class_disagreement", "class_agreement", round(agreement, 6), rules.min_class_agreement)
    within = duplicate_bits(rules)
    if within is not None and fingerprint is not None and before is not None:
        near = before.find(fingerprint, within)
        if near is not None:
            return Verdict("near_duplicate", "differing_bits", near.bits, within, near.number)
    return ACCEPTED


def class_agreement(item: SampleRecord, asked: Sequence[str]) -> float:
    """The share of the ``asked`` classes that are found in the mask, 0..1 (in the papers' words, their PPV); 1 if none
    is asked."""
    found = {entry.name for entry in item.classes}
    return sum(name in found for name in asked) / len(asked) if asked else 1.0


def duplicate_bits(rules: Acceptance) -> int | None:
    """How many bits of 256 may differ between near duplicates; None where they are not looked for."""
    given = rules.no_near_duplicates
    if given is True:
        return USUAL_BITS
    return None if given is False else given
