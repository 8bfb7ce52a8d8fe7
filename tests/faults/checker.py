"""Check of a store after faults: every accepted sample is there once, with the bytes of an undisturbed run."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.errors import ObjectNotFound
from service.jobs.repository import JobRepository
from service.jobs.sample_files import SampleFile, read_as_stored, sample_files_of
from service.jobs.spec import JobSpec
from service.store import keys
from service.store.base import ObjectStore
from tests.stored_twins import manifest_lines

Reference = Mapping[int, frozenset[tuple[str, str | None]]]
"""For each index the sha256 of image and mask from an undisturbed run; several in a fleet of several makes."""


@dataclass
class Findings:
    """The faults found, all lists empty if there are none. Samples are named ``job#index``, objects by their keys."""

    samples: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.damaged or self.differing or self.stray or self.unfinished)


def reference_of(store: ObjectStore, spec: JobSpec) -> Reference:
    """The hashes of an undisturbed job, which are those of every job with the same request."""
    made = {}
    for _, item in JobRepository(store).chunks.items(spec):
        assert item.image_sha256 is not None, item.error
        made[item.index] = frozenset({(item.image_sha256, item.mask_sha256)})
    return made


def either(one: Reference, other: Reference) -> Reference:
    """The hashes in a fleet of two makes of worker, each with its own reference."""
    return {index: one[index] | other[index] for index in one}


def check_job(store: ObjectStore, spec: JobSpec, reference: Reference, findings: Findings | None = None) -> Findings:
    """Adds the faults of a job, which must have succeeded, to ``findings``."""
    findings = findings or Findings()
    repository = JobRepository(store)
    findings.samples += spec.count
    summary = repository.read_summary(spec.job)
    if summary is None or (summary.state.value, summary.done) != ("succeeded", spec.count):
        findings.unfinished.append(f"{spec.job}: {summary}")

    recorded: Counter[int] = Counter()
    expected_keys = set()
    for _, item in repository.chunks.items(spec):
        recorded[item.index] += item.error is None
        if item.error is not None:
            continue
        if (item.image_sha256, item.mask_sha256) not in reference[item.index]:
            findings.differing.append(f"{spec.job}#{item.index}")
        for file in sample_files_of(item):
            expected_keys.add(file.key)
            if _sha256(store, file) != file.sha256:
                findings.damaged.append(file.place)

    listed: Counter[int] = Counter()
    if summary is not None:
        listed.update(json.loads(line)["index"] for line in manifest_lines(store, spec.job))
    for index in range(spec.count):
        if recorded[index] == 0 or (summary is not None and listed[index] == 0):
            findings.lost.append(f"{spec.job}#{index}")
        if recorded[index] > 1 or listed[index] > 1:
            findings.duplicated.append(f"{spec.job}#{index}")
    for prefix in keys.job_sample_prefixes(spec.job):
        found = {info.key for info in store.list(prefix)}
        findings.stray += sorted(found - expected_keys)
    findings.stray += [f"{spec.job}#{index}" for index in recorded.keys() | listed.keys() if index >= spec.count]
    return findings


def _sha256(store: ObjectStore, file: SampleFile) -> str | None:
    try:
        return hashlib.sha256(read_as_stored(store, file)).hexdigest()
    except ObjectNotFound:
        return None
