"""Acceptance of made twins: a verdict by the request's rules, with the value and the limit of a rejection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from service.augmentations.near_duplicates import DEFAULT_BITS, NearDuplicates
from service.augmentations.request import Acceptance
from service.jobs.spec import SampleRecord

Reason = Literal["failed", "no_mask", "low_confidence", "class_disagreement", "near_duplicate"]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a twin: accepted if ``reason`` is None.

    Otherwise ``value`` is that of the ``measure`` which missed its ``limit``; ``duplicate_of`` is the number of the
    twin that a near-duplicate repeats.
    """

    reason: Reason | None = None
    measure: str | None = None
    value: float | None = None
    limit: float | None = None
    duplicate_of: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether the twin is accepted."""
        return self.reason is None

    def to_json(self) -> dict[str, Any]:
        """The members that are not None, as JSON-able values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


ACCEPTED = Verdict()


def judge(
    item: SampleRecord,
    requested: Sequence[str],
    rules: Acceptance,
    *,
    mask_given: bool,
    fingerprint: np.ndarray | None = None,
    earlier: NearDuplicates | None = None,
) -> Verdict:
    """The verdict on a sample of a chunk record, by the first rule that it fails.

    ``requested`` names the classes that its mask should contain. ``mask_given``: the model was given the mask, so the
    rules on drawn masks do not apply. ``fingerprint`` is that of its image, ``earlier`` those of the twins accepted so
    far; the caller adds the fingerprint of an accepted twin. Without both, near-duplicates are not searched for.
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
        agreement = class_agreement(item, requested)
        if rules.min_class_agreement is not None and agreement < rules.min_class_agreement:
            return Verdict("class_disagreement", "class_agreement", round(agreement, 6), rules.min_class_agreement)
    within = duplicate_bits(rules)
    if within is not None and fingerprint is not None and earlier is not None:
        near = earlier.find(fingerprint, within)
        if near is not None:
            return Verdict("near_duplicate", "differing_bits", near.bits, within, near.number)
    return ACCEPTED


def class_agreement(item: SampleRecord, requested: Sequence[str]) -> float:
    """The share of the ``requested`` classes that the mask contains, 0..1 (the papers' PPV); 1 if none is requested."""
    found = {entry.name for entry in item.classes}
    return sum(name in found for name in requested) / len(requested) if requested else 1.0


def duplicate_bits(rules: Acceptance) -> int | None:
    """Largest number of differing bits, of 256, between near-duplicates; None if they are allowed."""
    given = rules.no_near_duplicates
    if given is True:
        return DEFAULT_BITS
    return None if given is False else given
