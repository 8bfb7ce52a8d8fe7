"""The repository of jobs: reads and writes a job's objects in the store, without any state of its own.

Every write may be repeated: specs, chunk records, cancels and summaries are written only if absent, and the method
returns whether this call wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel

from service.errors import ObjectExists, ObjectNotFound, RecordUnreadable, StoreError, UnknownJob
from service.jobs.chunk_records import ChunkRecords, Unreadable
from service.jobs.deletion import Deletions
from service.jobs.manifest import manifest_line
from service.jobs.repairs import Repairs
from service.jobs.spec import JobSpec, Summary, runs_of
from service.jobs.usage import TenantUsage
from service.kit.frozen import parse_members, parse_stored
from service.kit.ids import is_job_id
from service.kit.states import final_state
from service.store import keys
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_attempt, put_once
from service.webhooks.outbox import Outbox

_MAX_RUNS_NAMED = 10


@dataclass(frozen=True)
class JobRepository:
    """The jobs in ``store``."""

    store: ObjectStore

    @property
    def chunks(self) -> ChunkRecords:
        """The records of chunks, in the same store."""
        return ChunkRecords(self.store)

    @property
    def usage(self) -> TenantUsage:
        """The usage of tenants, in the same store."""
        return TenantUsage(self.store)

    @property
    def outbox(self) -> Outbox:
        """The outbox of callbacks, in the same store."""
        return Outbox(self.store)

    @property
    def repairs(self) -> Repairs:
        """The repairs of jobs, in the same store."""
        return Repairs(self.store)

    @property
    def deletions(self) -> Deletions:
        """The pending deletions, in the same store."""
        return Deletions(self.store)

    def write_spec(self, spec: JobSpec) -> bool:
        """Writes the spec if the job has none; True if this call wrote it.

        The job is listed among its tenant's before.
        """
        self.usage.add_job(spec.job, spec.tenant)
        return self._put_once(keys.job_spec(spec.job), spec)

    def read_spec(self, job: str, *, tenant: str | None = None) -> JobSpec:
        """The job's spec. Raises :class:`UnknownJob` if there is none, or ``job`` is not a job id.

        With ``tenant``, another tenant's job is unknown too, with the same message, so that nothing is revealed of it.
        So is a job that is being deleted. Raises :class:`RecordUnreadable` for a spec that cannot be read: who may see
        the job is then decided by the tenants' lists.
        """
        if not is_job_id(job):
            raise UnknownJob(f"{job[:80]!r} is not a job id; job ids come from POST /generate and GET /jobs")
        spec: JobSpec | None = None
        try:
            spec = parse_stored(JobSpec, self.store.get(keys.job_spec(job)), keys.job_spec(job), job=job)
        except ObjectNotFound:
            pass
        except RecordUnreadable:
            if (tenant is None or self.usage.lists_job(job, tenant)) and not self.deletions.is_pending(job):
                raise
        if spec is None or tenant not in (None, spec.tenant) or self.deletions.is_pending(job):
            raise UnknownJob(f"job {job!r} does not exist; GET /jobs lists those that do")
        return spec

    def jobs(self, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """Job ids, newest first, those after ``start_after`` only."""
        for name in self.store.list_folders(keys.jobs_prefix(), start_after=start_after, limit=limit):
            if is_job_id(name):
                yield name

    def record_started(self, job: str) -> bool:
        """Marks the job as started, before a worker looks for its cancel; False if it was marked before."""
        text = json.dumps({"format": 1, "job": job, "started_at": datetime.now(UTC).isoformat()}).encode()
        try:
            self.store.put(keys.job_started(job), text, if_absent=True)
        except ObjectExists:
            return False
        return True

    def is_started(self, job: str) -> bool:
        """Whether a worker has started the job."""
        return self.store.head(keys.job_started(job)) is not None

    def reserve_retry(self, job: str, retry: str) -> str:
        """Binds the job to ``retry``, unless it is bound to another retry; the retry that holds."""
        text = json.dumps({"format": 1, "job": retry}).encode()
        try:
            self.store.put(keys.job_retry(job), text, if_absent=True)
        except ObjectExists:
            return self.read_retry(job) or retry
        return retry

    def read_retry(self, job: str) -> str | None:
        """The id of the job's retry, which may not exist yet; None if no retry was requested."""
        try:
            return str(parse_members(self.store.get(keys.job_retry(job)), keys.job_retry(job), "job")["job"])
        except ObjectNotFound:
            return None

    def request_cancel(self, job: str, *, now: datetime | None = None) -> bool:
        """Requests the job's cancel; False if it was requested before."""
        moment = (now or datetime.now(UTC)).isoformat()
        text = json.dumps({"format": 1, "job": job, "requested_at": moment}).encode()
        try:
            self.store.put(keys.job_cancel(job), text, if_absent=True)
        except ObjectExists:
            return False
        return True

    def is_cancelled(self, job: str) -> bool:
        """Whether the job's cancel was requested."""
        return self.store.head(keys.job_cancel(job)) is not None

    def write_summary(self, summary: Summary) -> bool:
        """Ends the job; False if it had already ended, perhaps in another state."""
        return self._put_once(keys.job_summary(summary.job), summary)

    def read_summary(self, job: str) -> Summary | None:
        """How the job ended, or None if it has not."""
        key = keys.job_summary(job)
        try:
            return parse_stored(Summary, self.store.get(key), key, job=job)
        except ObjectNotFound:
            return None

    def write_manifest(self, spec: JobSpec, unreadable: Unreadable | None = None) -> StoredObject:
        """Writes a manifest: a line for each twin made so far, in order. It counts once a summary or a repair names it.

        Two workers that end a job at once, or after a cancel, may have seen different records. ``unreadable`` as in
        :class:`ChunkRecords`.
        """
        items = self.chunks.items(spec, unreadable)
        lines = (manifest_line(spec, record, item) for record, item in items if item.error is None)
        return put_attempt(self.store, keys.job_manifest(spec.job, None), b"".join(lines))

    def manifest_key(self, job: str, summary: Summary) -> str:
        """The key of an ended job's manifest: of its last repair that wrote one, or of its end."""
        written = [repair.manifest for repair in self.repairs.of_job(job) if repair.manifest is not None]
        last = written[-1] if written else summary.manifest
        return keys.job_manifest(job, None) if last is None else last.key

    def conclude(self, spec: JobSpec, *, reason: str | None = None, now: datetime | None = None) -> Summary:
        """Ends the job from its records; the summary that holds.

        Writes the manifest, the size of the job's files, the pending callback, then the summary. Samples whose record
        cannot be read count as failed. The caller makes sure that no worker is processing the job.
        """
        unreadable: Unreadable = {}
        tally = self.chunks.tally(spec, unreadable)
        manifest = self.write_manifest(spec, {})
        self.usage.record_stored(spec, tally.bytes + manifest.bytes)
        moment = now or datetime.now(UTC)
        state = final_state(
            done=tally.done, failed=tally.failed, total=spec.count, cancelled=self.is_cancelled(spec.job)
        )
        summary = Summary(
            job=spec.job,
            state=state,
            done=tally.done,
            failed=tally.failed,
            total=spec.count,
            started_at=tally.started_at,
            finished_at=moment,
            seconds=max(0.0, (moment - spec.created_at).total_seconds()),
            reason="; ".join(filter(None, (reason, _what_is_lost(spec, unreadable)))) or None,
            manifest=manifest,
        )
        if spec.callback is not None:
            self.outbox.enqueue(spec.job)
        first = self.write_summary(summary)
        with suppress(StoreError):  # reconcile() removes an entry that stays
            self.usage.drop_open(spec)
        return summary if first else self.read_summary(spec.job) or summary

    def _put_once(self, key: str, value: BaseModel) -> bool:
        return put_once(self.store, key, value.model_dump_json().encode())


def _what_is_lost(spec: JobSpec, unreadable: Unreadable) -> str | None:
    """The samples whose records cannot be read, and the remedy; None if there are none."""
    if not unreadable:
        return None
    runs = runs_of(index for chunk in sorted(unreadable) for index in spec.chunk_range(chunk))
    named = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs[:_MAX_RUNS_NAMED])
    more = f" and {len(runs) - _MAX_RUNS_NAMED} more runs" if len(runs) > _MAX_RUNS_NAMED else ""
    return (
        f"the records of samples {named}{more} cannot be read, so that they count as failed; "
        f"POST /jobs/{spec.job}/repair makes them again: {unreadable[min(unreadable)].detail}"
    )
