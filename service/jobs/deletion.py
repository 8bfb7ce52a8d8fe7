"""Pending deletions: jobs that no longer exist for users, while their objects are removed in the background.

    deleting/{job}.json   written first, removed last; while it exists, the job does not

It holds what is needed once the job's spec is gone, so that another worker can continue the deletion.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, Field

from service.errors import ObjectExists, ObjectNotFound, RecordUnreadable
from service.jobs import idempotency
from service.kit.frozen import _Frozen, parse_members, parse_stored
from service.kit.ids import JOB_ID_PATTERN, is_job_id
from service.kit.tenants import TENANT_PATTERN
from service.store import keys
from service.store.base import ObjectStore

if TYPE_CHECKING:
    from service.jobs.spec import JobSpec

Why = Literal["asked for", "expired", "never accepted"]


class Deletion(_Frozen):
    """A job that is being deleted. ``tenant`` is None for a job without a spec that can be read."""

    format: Literal[1] = 1
    job: str = Field(pattern=JOB_ID_PATTERN)
    why: Why
    noted_at: AwareDatetime
    tenant: str | None = Field(None, pattern=TENANT_PATTERN)
    retry_of: str | None = Field(None, pattern=JOB_ID_PATTERN)
    idempotency: str | None = Field(None, description="the key of the record that binds an Idempotency-Key to the job")
    model: str | None = Field(None, description="the key of its model, among whose uses the job is listed")


@dataclass(frozen=True)
class Deletions:
    """The pending deletions in ``store``. It has no state of its own, so any process may use one."""

    store: ObjectStore

    def enqueue(self, spec: JobSpec, why: Why) -> None:
        """Deletes the job: from now on it is unknown, and its objects are removed in the background."""
        key = spec.idempotency_key
        record = None if key is None else idempotency.record_key(tenant=spec.tenant, key=key)
        now = datetime.now(UTC)
        self._write(
            Deletion(
                job=spec.job,
                why=why,
                noted_at=now,
                tenant=spec.tenant,
                retry_of=spec.retry_of,
                idempotency=record,
                model=spec.model_key,
            )
        )

    def enqueue_unreadable(self, job: str, tenant: str | None) -> None:
        """Deletes a job whose spec or summary cannot be read. What else names it is taken from the spec if possible.

        Without ``tenant``, all that any tenant has of it is removed.
        """
        key = keys.job_spec(job)
        try:
            members = parse_members(self.store.get(key), key)
        except (ObjectNotFound, RecordUnreadable):
            members = {}
        chosen, retry_of = members.get("idempotency_key"), members.get("retry_of")
        self._write(
            Deletion(
                job=job,
                why="asked for",
                noted_at=datetime.now(UTC),
                tenant=tenant,
                retry_of=retry_of if isinstance(retry_of, str) and is_job_id(retry_of) else None,
                idempotency=idempotency.record_key(tenant=tenant, key=chosen)
                if tenant is not None and isinstance(chosen, str)
                else None,
            )
        )

    def enqueue_leftovers(self, job: str) -> None:
        """Has the objects removed that lie under the id of a job that was never accepted."""
        self._write(Deletion(job=job, why="never accepted", noted_at=datetime.now(UTC)))

    def is_pending(self, job: str) -> bool:
        """Whether the job is being deleted."""
        return self.store.head(keys.deletion(job)) is not None

    def pending(self, *, limit: int | None = None) -> Iterator[str]:
        """The ids of jobs that are being deleted."""
        prefix = keys.deletions_prefix()
        for info in self.store.list(prefix, limit=limit):
            job = info.key[len(prefix) :].removesuffix(".json")
            if is_job_id(job):
                yield job

    def read(self, job: str) -> Deletion | None:
        """The job's pending deletion; None if it is not being deleted.

        An entry that cannot be read deletes the job all the same, with all that any tenant has of it.
        """
        key = keys.deletion(job)
        try:
            return parse_stored(Deletion, self.store.get(key), key, job=job)
        except ObjectNotFound:
            return None
        except RecordUnreadable:
            return Deletion(job=job, why="asked for", noted_at=datetime.now(UTC))

    def delete_entry(self, job: str) -> None:
        """Removes the entry, once all of the job's objects are gone."""
        self.store.delete(keys.deletion(job))

    def _write(self, deletion: Deletion) -> None:
        with contextlib.suppress(ObjectExists):
            self.store.put(keys.deletion(deletion.job), deletion.model_dump_json().encode(), if_absent=True)
