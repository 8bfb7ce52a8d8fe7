"""Datasets by name and version. A version is a run that imports a dataset; its number is never used twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from service.errors import (
    JobStateConflict,
    ObjectExists,
    ObjectNotFound,
    RecordUnreadable,
    UnknownDataset,
    UnknownRun,
)
from service.kit.frozen import _Frozen, parse_members
from service.kit.ids import accepted_at
from service.kit.run_kinds import RunKind
from service.kit.states import JobState
from service.kit.validation import closest_match, truncated_repr
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec
from service.store import run_keys

if TYPE_CHECKING:
    from service.datasets.stored.dataset import StoredDataset

DATASET_NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
DATASET_NAME_FORM = "1 to 63 lower-case letters, digits, _ and -, the first a letter or digit"
_NAME = re.compile(DATASET_NAME_PATTERN.rstrip("$") + r"\Z")
_MAX_VERSION = 99_999_999
_MAX_NAMES = 1000
_CLOCKS_DIFFER_BY = timedelta(hours=1)
"""Difference of the store's and the API's clocks, at most; S3 refuses a request whose clock is off by 15 minutes."""
ReadFormat = Literal[
    "folders", "coco", "datumaro", "voc", "cityscapes", "yolo", "twins", "huggingface", "webdataset", "medical",
]  # fmt: skip


class DatasetWork(_Frozen):
    """The work of a run that imports a dataset. Its files are those under ``prefix``, or the archive that was sent."""

    name: str = Field(pattern=DATASET_NAME_PATTERN)
    version: int = Field(ge=1, le=_MAX_VERSION)
    prefix: str | None = None
    read_as: ReadFormat | None = None
    split_map: dict[str, str] = Field(default_factory=dict)

    @property
    def id(self) -> str:
        """name@version"""
        return f"{self.name}@{self.version}"


def is_dataset_name(name: str) -> bool:
    return _NAME.match(name) is not None


@dataclass(frozen=True)
class Datasets:
    """The datasets of ``tenant``."""

    repository: RunRepository
    tenant: str

    def names(self, *, start_after: str | None = None) -> Iterator[str]:
        """Names in order; perhaps some whose versions have all been deleted."""
        for name in self.repository.store.list_folders(
            run_keys.tenant_datasets_prefix(self.tenant), start_after=start_after
        ):
            if is_dataset_name(name):
                yield name

    def versions(self, name: str) -> list[int]:
        """The version numbers in use, ascending, including those of deleted versions."""
        return [number for number, _ in self._taken(name)]

    def take_version(self, name: str, run: str) -> int:
        """The version number of ``run``: the one that it has, or the name's next.

        Each run gets one number of its own, also with several callers at the same time.
        """
        store, version = self.repository.store, 0
        since = accepted_at(run) - _CLOCKS_DIFFER_BY
        for version, taken_at in self._taken(name):
            if taken_at >= since and self._run_of(name, version) == run:
                return version
        while True:
            version += 1
            record = json.dumps({"format": 1, "run": run}).encode()
            try:
                store.put(run_keys.tenant_dataset(self.tenant, name, version), record, if_absent=True)
            except ObjectExists:
                # numbers are taken in order, so another caller for the same run at this moment takes this very number
                if self._run_of(name, version) != run:
                    continue
            return version

    def latest(self, name: str) -> RunSpec | None:
        """The newest version that exists, in any state."""
        if not is_dataset_name(name):
            return None
        for version in reversed(self.versions(name)):
            try:
                return self._spec(name, version)
            except UnknownRun:
                continue
        return None

    def delete(self, name: str, version: str) -> None:
        """Deletes a version, also one whose records cannot be read. Raises :class:`UnknownDataset`."""
        try:
            self.repository.delete(self.find(name, version))
        except RecordUnreadable:
            run = self._run_of(name, int(version))
            if run is not None:
                self.repository.delete_unreadable(run, self.tenant, dataset=f"{name}@{int(version)}")

    def find(self, name: str, version: str | int | None = None) -> RunSpec:
        """A version, or without one the newest. Raises :class:`UnknownDataset`."""
        if version is None:
            spec = self.latest(name)
            if spec is not None:
                return spec
        elif is_dataset_name(name) and re.fullmatch(r"[1-9][0-9]{0,7}", str(version)):
            try:
                return self._spec(name, int(version))
            except UnknownRun:
                pass
        raise self._unknown(name, version)

    def ready(self, reference: str) -> StoredDataset:
        """The dataset that ``name`` (its newest version that was imported) or ``name@version`` names, for use.

        Raises :class:`UnknownDataset`, or :class:`JobStateConflict` for one that is not imported (yet).
        """
        from service.datasets.stored.dataset import StoredDataset

        name, _, version = reference.partition("@")
        if not version and is_dataset_name(name):
            for number in reversed(self.versions(name)):
                try:
                    spec = self._spec(name, number)
                    summary = self.repository.read_summary(spec.run)
                except (UnknownRun, RecordUnreadable):
                    continue
                if summary is not None and summary.state is JobState.SUCCEEDED:
                    return StoredDataset.open(self.repository.store, spec.run)
        spec = self.find(name, version or None)
        summary = self.repository.read_summary(spec.run)
        if summary is None or summary.state is not JobState.SUCCEEDED:
            state = None if summary is None else summary.state.value
            how = "is still being imported; try again when it has been"
            if summary is not None:
                how = f"has ended as {state}: {summary.reason}"
            raise JobStateConflict(f"dataset {DatasetWork.model_validate(spec.work).id} {how}", state=state)
        return StoredDataset.open(self.repository.store, spec.run)

    def _taken(self, name: str) -> Iterator[tuple[int, datetime]]:
        """The version numbers in use, ascending, and when each was taken."""
        prefix = run_keys.tenant_dataset_prefix(self.tenant, name)
        for info in self.repository.store.list(prefix):
            number = info.key[len(prefix) :].removesuffix(".json")
            if number.isascii() and number.isdigit():
                yield int(number), info.modified

    def _spec(self, name: str, version: int) -> RunSpec:
        run = self._run_of(name, version)
        if run is None:
            raise self._unknown(name, version)
        try:
            return self.repository.read_spec(run, tenant=self.tenant, kind=RunKind.DATASET)
        except RecordUnreadable as error:
            raise RecordUnreadable(error.detail, **error.extra, dataset=f"{name}@{version}") from None

    def _run_of(self, name: str, version: int) -> str | None:
        """The run of a version; None if there is none, or the record of its number is damaged."""
        key = run_keys.tenant_dataset(self.tenant, name, version)
        try:
            return str(parse_members(self.repository.store.get(key), key, "run")["run"])
        except (ObjectNotFound, RecordUnreadable):
            return None

    def _unknown(self, name: str, version: str | int | None) -> UnknownDataset:
        asked = name if version is None else f"{name}@{version}"
        near = closest_match(name, [known for known in islice(self.names(), _MAX_NAMES) if known != name])
        meant = f"did you mean {near!r}? " if near else ""
        return UnknownDataset(
            f"dataset {truncated_repr(asked)} does not exist; {meant}GET /datasets lists those that do"
        )
