"""What a training writes while it goes on: checkpoints with their loss curve, and the results of its stages.

Files come first and the record last, so a checkpoint without a record has not happened. Records are small and stay;
of the files only those of the last two checkpoints, of the best one, and of every ``keep_every``-th are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime, Field

from service.errors import ObjectNotFound
from service.kit.frozen import _Frozen, parse_stored
from service.store import training_keys
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_once

MAX_POINTS = 512
"""Points of a loss curve in a record."""
_PICTURE = re.compile(r"(\d{2})-(\d{8})\.[0-9a-f]{16}\.png")
_RECORD = re.compile(r"(\d{2})-(\d{8})\.json")


class CheckpointRecord(_Frozen):
    """A checkpoint in the store, and how its stage came there."""

    format: int = Field(1, ge=1, le=1)
    run: str
    stage: int = Field(ge=0)
    iteration: int = Field(ge=0, description="iterations of the stage that are done")
    iterations: int = Field(ge=1, description="iterations of the whole stage")
    file: StoredObject
    loss: float | None = Field(None, description="the mean of the stage's first loss since the checkpoint before")
    series: tuple[dict[str, float], ...] = Field((), description="the stage's log so far, thinned to 512 lines")
    seconds: float = Field(ge=0, description="of training so far, over all stages and workers")
    device_seconds: float = Field(ge=0, description="the same, times devices")
    at: AwareDatetime
    worker: str


class StageRecord(_Frozen):
    """A stage that is done: the files of its part, or the model that was registered."""

    format: int = Field(1, ge=1, le=1)
    run: str
    stage: int = Field(ge=0)
    iterations: int = Field(ge=0, description="of this stage")
    seconds: float = Field(ge=0, description="of training so far, over all stages and workers")
    device_seconds: float = Field(ge=0, description="the same, times devices")
    files: dict[str, StoredObject] = Field(default_factory=dict, description="of a part, by their names")
    model: str | None = Field(None, description="name@version")
    candidate: bool = Field(False, description="whether the model's figures kept it from being the newest version")
    missed: tuple[str, ...] = Field((), description="the figures that did, and their least values")
    figures: dict[str, Any] = Field(default_factory=dict, description="what was measured on the test split")
    series: tuple[dict[str, float], ...] = ()
    at: AwareDatetime


@dataclass(frozen=True)
class SamplesPicture:
    """A picture of samples that were made after so many iterations of a stage."""

    stage: int
    iteration: int
    key: str


@dataclass(frozen=True)
class TrainingRecords:
    """The records of one training."""

    store: ObjectStore
    run: str

    def positions(self) -> list[tuple[int, int]]:
        """(stage, iteration) of all checkpoints that have a record, in order."""
        prefix = training_keys.training_checkpoints_prefix(self.run)
        found = (_RECORD.fullmatch(info.key[len(prefix) :]) for info in self.store.list(prefix))
        return [(int(match[1]), int(match[2])) for match in found if match]

    def checkpoint(self, stage: int, iteration: int) -> CheckpointRecord | None:
        """The record of a checkpoint; None if there is none. Raises RecordUnreadable."""
        key = training_keys.training_checkpoint(self.run, stage, iteration)
        try:
            return parse_stored(CheckpointRecord, self.store.get(key), key, run=self.run)
        except ObjectNotFound:
            return None

    def checkpoints(self) -> list[CheckpointRecord]:
        """All records, in order."""
        found = (self.checkpoint(*position) for position in self.positions())
        return [record for record in found if record is not None]

    def last(self, stage: int | None = None) -> CheckpointRecord | None:
        """The newest record, of ``stage`` if given; None if there is none."""
        positions = [position for position in self.positions() if stage in (None, position[0])]
        return self.checkpoint(*positions[-1]) if positions else None

    def device_seconds(self) -> float:
        """What the training has used by its newest checkpoint, with what it continued from."""
        last = self.last()
        return 0.0 if last is None else last.device_seconds

    def write_checkpoint(self, record: CheckpointRecord) -> bool:
        """Writes the record of a checkpoint whose file is stored; False if another worker's is there already."""
        key = training_keys.training_checkpoint(self.run, record.stage, record.iteration)
        return put_once(self.store, key, record.model_dump_json().encode())

    def stage(self, number: int) -> StageRecord | None:
        """The record of a stage that is done; None if it is not."""
        key = training_keys.training_stage(self.run, number)
        try:
            return parse_stored(StageRecord, self.store.get(key), key, run=self.run)
        except ObjectNotFound:
            return None

    def samples(self) -> list[SamplesPicture]:
        """The pictures of samples, in order; of two attempts the last one listed."""
        prefix = training_keys.training_samples_prefix(self.run)
        found: dict[tuple[int, int], SamplesPicture] = {}
        for info in self.store.list(prefix):
            match = _PICTURE.fullmatch(info.key[len(prefix) :])
            if match is not None:
                place = int(match[1]), int(match[2])
                found[place] = SamplesPicture(*place, info.key)
        return list(found.values())

    def write_stage(self, record: StageRecord) -> StageRecord:
        """Writes the record of a stage, once; the record that holds."""
        key = training_keys.training_stage(self.run, record.stage)
        if put_once(self.store, key, record.model_dump_json().encode()):
            return record
        return self.stage(record.stage) or record

    def stages(self) -> list[StageRecord]:
        """The records of the stages that are done, in order."""
        prefix = training_keys.training_stages_prefix(self.run)
        numbers = [int(info.key[len(prefix) :].removesuffix(".json")) for info in self.store.list(prefix)]
        return [record for number in numbers if (record := self.stage(number)) is not None]

    def counted_keys(self) -> set[str]:
        """The keys of all objects that count: those that records name, and the pictures."""
        counted = {picture.key for picture in self.samples()}
        for record in self.checkpoints():
            counted.add(record.file.key)
        for stage in self.stages():
            counted.update(stored.key for stored in stage.files.values())
        return counted

    def mark_validated(self) -> None:
        """Marks that a worker has read the data."""
        body = {"run": self.run, "at": datetime.now(UTC).isoformat()}
        put_once(self.store, training_keys.training_validated(self.run), json.dumps(body).encode())

    def is_validated(self) -> bool:
        return self.store.head(training_keys.training_validated(self.run)) is not None


def kept(records: Sequence[CheckpointRecord], keep_every: int | None) -> set[tuple[int, int]]:
    """(stage, iteration) of the checkpoints of one stage whose files stay.

    They are the last two, the best by its loss, and every ``keep_every``-th.
    """
    stay = {(record.stage, record.iteration) for record in records[-2:]}
    measured = [record for record in records if record.loss is not None]
    if measured:
        best = min(measured, key=lambda record: (record.loss, -record.iteration))
        stay.add((best.stage, best.iteration))
    if keep_every:
        stay.update((r.stage, r.iteration) for number, r in enumerate(records, 1) if number % keep_every == 0)
    return stay


def thinned(lines: Sequence[dict[str, float]], points: int = MAX_POINTS) -> tuple[dict[str, float], ...]:
    """At most ``points`` lines of a log, evenly spaced, with the first and the last one."""
    if len(lines) <= points:
        return tuple(lines)
    places = (round(number * (len(lines) - 1) / (points - 1)) for number in range(points))
    return tuple(lines[place] for place in places)
