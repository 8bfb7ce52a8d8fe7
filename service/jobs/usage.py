"""Usage of each tenant, in the names of small objects in the store: a listing is enough to read it.

    tenants/{tenant}/jobs/{job}             its jobs, newest first
    tenants/{tenant}/open/{job}.{samples}   those that have not ended, from before the spec until after the summary;
                                            written for jobs accepted while queued samples are limited
    tenants/{tenant}/stored/{job}.{bytes}   those that have ended, with the bytes of their files, from before the
                                            summary; and runs (:mod:`service.runs`), by their ids
    tenants/{tenant}/models/...             its models (:mod:`service.store.model_keys`)

Each is written before what it counts, so a crash in between leaves an entry too many and never one too few. Such
entries are removed before a request is refused because of them (:meth:`TenantUsage.reconcile`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from service.jobs.spec import JobSpec
from service.kit.ids import is_job_id
from service.kit.prefetch import prefetch
from service.kit.run_kinds import kind_of
from service.store import keys, model_keys, run_keys
from service.store.base import ObjectInfo, ObjectStore

_MAX_RECONCILED = 100
_SETTLED_AFTER = timedelta(minutes=10)
"""A younger entry may belong to a job that is being written."""


@dataclass(frozen=True)
class TenantUsage:
    """The usage of all tenants in ``store``."""

    store: ObjectStore

    def add_job(self, job: str, tenant: str) -> None:
        """Lists the job among its tenant's. Call it before its spec is written.

        This does not wait for the disk, as the spec does: what a power cut takes from the lists, the sweeper puts back.
        """
        self.store.put(keys.tenant_job(tenant, job), b"", flush=False)

    def lists_job(self, job: str, tenant: str) -> bool:
        """Whether the job is listed among the tenant's."""
        return self.store.head(keys.tenant_job(tenant, job)) is not None

    def tenants(self) -> Iterator[str]:
        """The tenants that have, or had, anything in the store."""
        return self.store.list_folders(keys.tenants_prefix())

    def jobs(self, tenant: str, *, start_after: str | None = None) -> Iterator[str]:
        """Ids of the tenant's jobs, newest first, those after ``start_after`` only; some may have no spec."""
        prefix = keys.tenant_jobs_prefix(tenant)
        after = None if start_after is None else keys.tenant_job(tenant, start_after)
        names = (info.key[len(prefix) :] for info in self.store.list(prefix, start_after=after))
        return (name for name in names if is_job_id(name))

    def add_open(self, spec: JobSpec) -> None:
        """Counts the job's samples as queued. Call it before its spec is written."""
        self.store.put(keys.tenant_open_job(spec.tenant, spec.job, spec.count), b"")

    def drop_open(self, spec: JobSpec) -> None:
        """Stops counting the job's samples as queued: it has ended, or will not be created."""
        self.store.delete(keys.tenant_open_job(spec.tenant, spec.job, spec.count))

    def drop_job(self, job: str, tenant: str | None) -> None:
        """Removes all entries of a job whose objects are gone; if ``tenant`` is None, among those of every tenant."""
        tenants = self.tenants() if tenant is None else (tenant,)
        for each in list(tenants):
            for prefix in (keys.tenant_open_prefix(each), keys.tenant_stored_prefix(each)):
                for info in list(self.store.list(f"{prefix}{job}.")):
                    self.store.delete(info.key)
            self.store.delete(keys.tenant_job(each, job))

    def queued_samples(self, tenant: str) -> dict[str, int]:
        """The samples of each job that has not ended."""
        return dict(self._numbers(keys.tenant_open_prefix(tenant)))

    def record_stored(self, spec: JobSpec, size: int) -> None:
        """Records the size of the job's files in bytes. Call it before its summary is written."""
        self.record_bytes(spec.tenant, spec.job, size)

    def record_bytes(self, tenant: str, owner: str, size: int) -> None:
        """Records the size of the files of a job or run, by its id, in bytes."""
        if size > 0:
            self.store.put(keys.tenant_stored_job(tenant, owner, size), b"")

    def replace_bytes(self, tenant: str, owner: str, size: int) -> None:
        """Records ``size`` bytes for a job or run, in place of what was recorded before."""
        self.record_bytes(tenant, owner, size)
        for info in list(self.store.list(f"{keys.tenant_stored_prefix(tenant)}{owner}.")):
            if size <= 0 or info.key != keys.tenant_stored_job(tenant, owner, size):
                self.store.delete(info.key)

    def drop_bytes(self, tenant: str, owner: str) -> None:
        """Stops counting the bytes of a job or run: its files are gone."""
        for info in list(self.store.list(f"{keys.tenant_stored_prefix(tenant)}{owner}.")):
            self.store.delete(info.key)

    def stored_bytes(self, tenant: str) -> dict[str, int]:
        """The bytes of each job and run that has ended."""
        sizes: dict[str, int] = {}
        for job, size in self._numbers(keys.tenant_stored_prefix(tenant)):
            # Two workers that ended the job at once may have counted differently: one had not seen the last record.
            sizes[job] = max(size, sizes.get(job, 0))
        return sizes

    def uploaded_bytes(self, tenant: str) -> int:
        """The bytes of the tenant's uploaded masks."""
        return sum(info.size for info in self.store.list(keys.uploads_prefix(tenant)))

    def model_bytes(self, tenant: str) -> int:
        """The bytes of the tenant's registered models. Each counts in full, also if others have the same weights."""
        sizes: dict[str, int] = {}
        for info in self.store.list(model_keys.tenant_models_prefix(tenant)):
            version, _, size = info.key.rpartition("/")
            if size.isascii() and size.isdigit():
                sizes[version] = max(int(size), sizes.get(version, 0))
        return sum(sizes.values())

    def reconcile(self, tenant: str, *, now: datetime | None = None) -> int:
        """Removes outdated entries, those of the oldest jobs first; how many.

        Outdated is an open job that has a summary, or no spec after ten minutes, and an ended job whose summary has
        been removed. A call looks at a hundred entries of each kind at most, so that a refusal stays cheap.
        """
        before = (now or datetime.now(UTC)) - _SETTLED_AFTER
        outdated: list[ObjectInfo] = []
        for is_outdated, prefix in (
            (self._open_is_outdated, keys.tenant_open_prefix(tenant)),
            (self._stored_is_outdated, keys.tenant_stored_prefix(tenant)),
        ):
            looked_at = prefetch(partial(is_outdated, before=before), self._oldest(prefix))
            outdated += [info for info, found in looked_at if found]
        for info in outdated:
            self.store.delete(info.key)
        return len(outdated)

    def _open_is_outdated(self, info: ObjectInfo, before: datetime) -> bool:
        job = _job_of(info)
        if self.store.head(keys.job_summary(job)) is not None:
            return True
        return info.modified < before and self.store.head(keys.job_spec(job)) is None

    def _stored_is_outdated(self, info: ObjectInfo, before: datetime) -> bool:
        if info.modified >= before or self.store.head(_summary_of(owner := _job_of(info))) is not None:
            return False
        # an archive that was counted before its run had a spec; the sweeper removes both
        return kind_of(owner) is None or self.store.head(run_keys.open_run(owner)) is None

    def _oldest(self, prefix: str) -> list[ObjectInfo]:
        # Ids sort newest first.
        entries = (info for info in self.store.list(prefix) if _is_owner(_job_of(info)))
        return list(deque(entries, maxlen=_MAX_RECONCILED))

    def _numbers(self, prefix: str) -> Iterator[tuple[str, int]]:
        for info in self.store.list(prefix):
            job, _, number = info.key[len(prefix) :].partition(".")
            if _is_owner(job) and number.isascii() and number.isdigit():
                yield job, int(number)


def _job_of(info: ObjectInfo) -> str:
    return info.key.rpartition("/")[2].partition(".")[0]


def _is_owner(name: str) -> bool:
    return is_job_id(name) or kind_of(name) is not None


def _summary_of(owner: str) -> str:
    return keys.job_summary(owner) if is_job_id(owner) else run_keys.run_summary(owner)
