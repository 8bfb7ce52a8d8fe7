"""Acceptance of a round: decides for each planned sample whether it was made, and whether it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from service.augmentations.acceptance import Verdict, duplicate_bits, judge
from service.augmentations.entries import Wanted
from service.augmentations.fingerprints import fingerprint_of
from service.augmentations.near_duplicates import NearDuplicates
from service.augmentations.rounds import RoundJobs, RoundState, WantedLine
from service.augmentations.set_counts import SetCounts
from service.augmentations.stored import PlannedAugmentation
from service.errors import ObjectDamaged, ObjectNotFound, StoreError, UnknownJob
from service.jobs.sample_files import read_sample_file, sample_files_of
from service.jobs.spec import SampleRecord
from service.kit.image_files import open_image_file
from service.store.round_keys import AcceptedLine
from workers.bulk.context import RunContext

SURPLUS = "not_needed"
"""Reason for a twin that would be accepted if the set were not full already."""


@dataclass
class Judge:
    """Judge of one round of a set. ``counts`` and the state ``before`` are those before it; ``counts`` are added to."""

    context: RunContext
    augmentation: PlannedAugmentation
    counts: SetCounts
    before: RoundState
    earlier_fingerprints: bytes | None
    _near: NearDuplicates | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.rejected = dict(self.before.rejected)
        self.objects = {name: dict(found) for name, found in self.before.objects.items()}
        if duplicate_bits(self.augmentation.parameters.acceptance) is None:
            return
        try:
            self._near = (
                NearDuplicates()
                if self.earlier_fingerprints is None
                else NearDuplicates.from_bytes(self.earlier_fingerprints)
            )
        except ValueError as error:
            raise StoreError(
                f"the fingerprints of {self.context.spec.run} in the object store are damaged: {error}"
            ) from None

    def judge(self, lines: Sequence[WantedLine], jobs: RoundJobs) -> list[AcceptedLine]:
        """The twins of the round that count, in the order of its plan."""
        places = {line: (job.job, index) for job in jobs.jobs for index, line in enumerate(job.lines)}
        samples = {job.job: self._samples(job.job) for job in jobs.jobs}
        accepted = []
        for number, line in enumerate(lines):
            self.context.check()
            job, index = places[number]
            wanted = Wanted.from_json(line.wanted)
            planned, made = np.array(line.shares), None
            item = samples[job].get(index)
            verdict = Verdict("failed") if item is None else self._verdict(item, wanted, line)
            if verdict.reason is None and self.counts.accepted >= self.augmentation.plan.count:
                self._reject(SURPLUS)
            elif verdict.reason is not None:
                self._reject(verdict.reason)
            else:
                assert item is not None
                made = self._shares(item, line)
                accepted.append(self._line(job, index, line, wanted))
                self._count_objects(line)
            self.counts.add_judged(wanted.item, planned, made)
        return accepted

    def fingerprints(self) -> bytes | None:
        """The fingerprints that later rounds are compared with; None if near-duplicates are allowed."""
        return None if self._near is None else self._near.to_bytes()

    def _samples(self, job: str) -> dict[int, SampleRecord]:
        repository = self.context.worker.repository
        try:
            spec = repository.read_spec(job)
        except UnknownJob:
            return {}
        return {item.index: item for _, item in repository.chunks.items(spec)}

    def _verdict(self, item: SampleRecord, wanted: Wanted, line: WantedLine) -> Verdict:
        rules, given = self.augmentation.parameters.acceptance, line.upload is not None
        first = judge(item, wanted.requested, rules, mask_given=given)
        if not first.accepted or self._near is None:
            return first
        try:
            image, mask = (read_sample_file(self.context.worker.store, file) for file in sample_files_of(item)[:2])
            with open_image_file(mask) as labels:
                fingerprint = fingerprint_of(image, np.array(labels))
        except (ObjectDamaged, ObjectNotFound, ValueError, OSError):
            return Verdict("failed")
        verdict = judge(item, wanted.requested, rules, mask_given=given, fingerprint=fingerprint, earlier=self._near)
        # once the set is full, no twin is accepted, and only accepted ones are compared with
        if verdict.accepted and self.counts.accepted < self.augmentation.plan.count:
            self._near.add(fingerprint)
        return verdict

    def _shares(self, item: SampleRecord, line: WantedLine) -> np.ndarray:
        """The classes' shares of the mask's pixels: those of the given mask, or those found in a drawn one."""
        if line.upload is not None:
            return np.array(line.shares)
        shares = np.zeros(len(line.shares))
        for found in item.classes:
            shares[found.index] = found.share
        return shares

    def _line(self, job: str, index: int, line: WantedLine, wanted: Wanted) -> AcceptedLine:
        made_from: dict[str, object] = {
            "dataset": self.augmentation.work.dataset,
            "item": line.item,
            "masks": wanted.source,
        }
        if line.applied:
            made_from["transforms"] = list(line.applied)
        if line.scale is not None:
            made_from["scale"] = list(line.scale)
        if line.missed:
            made_from["objects_missed"] = line.missed
        return AcceptedLine(job=job, index=index, source_mask=line.source_mask, made_from=made_from)

    def _count_objects(self, line: WantedLine) -> None:
        for index in self.augmentation.parameters.objects:
            name = self.augmentation.card.classes[index].name
            found, how = self.objects.setdefault(name, {}), line.missed.get(name, "met")
            found[how] = found.get(how, 0) + 1

    def _reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
