"""Repairs in the store: those that were requested, and what each found and did.

    repairing/{job}.json                  a requested repair; written first, removed last
    jobs/{job}/repairs/{number:04d}.json  :class:`Repair`, written once when the repair is done

A worker checks the objects that the job's records count, and makes the damaged and missing ones again. So a repair may
be interrupted anywhere and starts over: what has been repaired by then is found intact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from service.errors import ObjectNotFound
from service.kit.frozen import _Frozen, parse_stored
from service.kit.ids import JOB_ID_PATTERN, is_job_id
from service.store import keys
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_once


class RepairRequest(_Frozen):
    """A requested repair."""

    format: Literal[1] = 1
    job: str = Field(pattern=JOB_ID_PATTERN)
    requested_at: AwareDatetime


class RepairFailure(_Frozen):
    """A twin that could not be repaired, and why."""

    index: int = Field(ge=0)
    reason: str


class Repair(_Frozen):
    """What a repair found and did. All counts but ``lost_records`` are of twins."""

    format: Literal[1] = 1
    job: str = Field(pattern=JOB_ID_PATTERN)
    number: int = Field(ge=1)
    requested_at: AwareDatetime
    finished_at: AwareDatetime
    checked: int = Field(ge=0, description="twins whose files were compared with their records")
    damaged: int = Field(ge=0, description="twins with a file that was not the recorded one")
    missing: int = Field(ge=0, description="twins with a file that was gone")
    lost_records: int = Field(ge=0, description="chunks whose record was gone or not readable, made again whole")
    restored: int = Field(ge=0, description="twins that have their recorded bytes again")
    replaced: int = Field(ge=0, description="twins made again with other bytes, as their new records say")
    failed: int = Field(ge=0, description="twins that could not be made again")
    failures: tuple[RepairFailure, ...] = Field((), description="the first of these")
    manifest: StoredObject | None = Field(None, description="the manifest that counts from now on, if it is another")


@dataclass(frozen=True)
class Repairs:
    """The repairs of jobs in ``store``. It has no state of its own."""

    store: ObjectStore

    def request(self, job: str, now: datetime) -> RepairRequest:
        """Requests a repair, unless one was requested and is not done; the request that holds."""
        request = RepairRequest(job=job, requested_at=now)
        put_once(self.store, keys.pending_repair(job), request.model_dump_json().encode())
        return self.pending(job) or request

    def pending(self, job: str) -> RepairRequest | None:
        """The job's requested repair; None if there is none, or it is done."""
        key = keys.pending_repair(job)
        try:
            return parse_stored(RepairRequest, self.store.get(key), key, job=job)
        except ObjectNotFound:
            return None

    def all_pending(self) -> Iterator[str]:
        """The jobs whose repair was requested and is not done."""
        prefix = keys.pending_repairs_prefix()
        for info in self.store.list(prefix):
            job = info.key[len(prefix) :].removesuffix(".json")
            if is_job_id(job):
                yield job

    def of_job(self, job: str) -> list[Repair]:
        """The job's repairs that are done, in order."""
        found = self.store.list(keys.job_repairs_prefix(job))
        return [parse_stored(Repair, self.store.get(info.key), info.key) for info in found]

    def record(self, repair: Repair) -> Repair:
        """Records a repair under the next free number, then removes its request; the repair as recorded."""
        while not put_once(self.store, keys.job_repair(repair.job, repair.number), repair.model_dump_json().encode()):
            repair = repair.model_copy(update={"number": repair.number + 1})
        self.store.delete(keys.job_swept(repair.job))
        self.drop_request(repair.job)
        return repair

    def drop_request(self, job: str) -> None:
        """Removes the request of a repair that is done, or whose job is gone."""
        self.store.delete(keys.pending_repair(job))
