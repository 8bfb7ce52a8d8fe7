"""What a tenant holds, told by the names of small objects in the store: a listing is all it takes to know.

    tenants/{tenant}/jobs/{job}             its jobs, newest first; not kept for the default tenant
    tenants/{tenant}/open/{job}.{samples}   those that have not ended, from before the spec until after the summary;
                                            kept for jobs accepted while queued samples are limited
    tenants/{tenant}/stored/{job}.{bytes}   those that have ended, with the bytes of their files, from before the summary;
                                            and runs (:mod:`service.runs`), by their ids

Each is written before what it tells of, so a crash in between leaves an entry too many and never one too few. Such
entries are looked through, and removed, before anybody is refused for them (:meth:`TenantUsage.reconcile`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.jobs.spec import JobSpec
from service.kit.ids import is_job_id
from service.kit.prefetch import prefetch
from service.kit.run_kinds import kind_of
from service.kit.tenants import DEFAULT_TENANT
from service.store import keys, run_keys
from service.store.base import ObjectInfo, ObjectStore

_MENDED_AT_ONCE = 100
_SETTLED_AFTER = timedelta(minutes=10)
"""An entry as young as this may belong to a job that is only just being written."""


@dataclass(frozen=True)
class TenantUsage:
    """The holdings of all tenants in ``store``."""

    store: ObjectStore

    def add_job(self, spec: JobSpec) -> None:
        """Lets the job be found among its tenant's; before its spec is written."""
        if spec.tenant != DEFAULT_TENANT:
            self.store.put(keys.tenant_job(spec.tenant, spec.job), b"")

    def jobs(self, tenant: str, *, start_after: str | None = None) -> Iterator[str]:
        """Ids of the tenant's jobs, newest first, those after ``start_after`` only; some may never have got a spec.

        Without keys there is one tenant, whose jobs need no index, and older ones have none: for the default tenant
        these are the jobs of everybody, and it is for the reader to leave others' out.
        """
        if tenant == DEFAULT_TENANT:
            names = self.store.list_folders(keys.jobs_prefix(), start_after=start_after)
        else:
            prefix = keys.tenant_jobs_prefix(tenant)
            after = None if start_after is None else keys.tenant_job(tenant, start_after)
            names = (info.key[len(prefix) :] for info in self.store.list(prefix, start_after=after))
        return (name for name in names if is_job_id(name))

    def add_open(self, spec: JobSpec) -> None:
        """Counts the job's samples as queued; before its spec is written."""
        self.store.put(keys.tenant_open_job(spec.tenant, spec.job, spec.count), b"")

    def drop_open(self, spec: JobSpec) -> None:
        """Counts them no more: the job has ended, or is not to be."""
        self.store.delete(keys.tenant_open_job(spec.tenant, spec.job, spec.count))

    def drop_job(self, job: str, tenant: str | None) -> None:
        """Removes all entries of a job whose objects are gone; looks among every tenant's where nobody knows whose it
        was."""
        tenants = self.store.list_folders(keys.tenants_prefix()) if tenant is None else (tenant,)
        for each in list(tenants):
            for prefix in (keys.tenant_open_prefix(each), keys.tenant_stored_prefix(each)):
                for info in list(self.store.list(f"{prefix}{job}.")):
                    self.store.delete(info.key)
            self.store.delete(keys.tenant_job(each, job))

    def queued_samples(self, tenant: str) -> dict[str, int]:
        """The samples of each job that has not ended."""
        return dict(self._numbers(keys.tenant_open_prefix(tenant)))

    def record_stored(self, spec: JobSpec, size: int) -> None:
        """Says what the job's files come to, in bytes; before its summary is written."""
        self.record_bytes(spec.tenant, spec.job, size)

    def record_bytes(self, tenant: str, owner: str, size: int) -> None:
        """The same of a job or a run by its id."""
        if size > 0:
            self.store.put(keys.tenant_stored_job(tenant, owner, size), b"")

    def drop_bytes(self, tenant: str, owner: str) -> None:
        """Counts them no more: they are gone."""
        for info in list(self.store.list(f"{keys.tenant_stored_prefix(tenant)}{owner}.")):
            self.store.delete(info.key)

    def stored_bytes(self, tenant: str) -> dict[str, int]:
        """The bytes of each job and run that has ended."""
        sizes: dict[str, int] = {}
        for job, size in self._numbers(keys.tenant_stored_prefix(tenant)):
            # Two who ended the job at once may have counted differently: one of them had not seen the last record.
            sizes[job] = max(size, sizes.get(job, 0))
        return sizes

    def uploaded_bytes(self, tenant: str) -> int:
        """The bytes of the masks that were sent."""
        return sum(info.size for info in self.store.list(keys.uploads_prefix(tenant)))

    def reconcile(self, tenant: str, *, now: datetime | None = None) -> int:
        """Removes entries that are not true (any more), of the oldest jobs first; how many.

        Untrue is an open job that has a summary, or after ten minutes still no spec, and an ended job whose summary is
        gone, since somebody has removed its files. A call looks at a hundred entries of each kind at most, so that
        being refused stays cheap.
        """
        before = (now or datetime.now(UTC)) - _SETTLED_AFTER
        untrue: list[ObjectInfo] = []
        for is_untrue, prefix in (
            (self._open_is_untrue, keys.tenant_open_prefix(tenant)),
            (self._stored_is_untrue, keys.tenant_stored_prefix(tenant)),
        ):
            looked_at = prefetch(lambda info: is_untrue(info, before), self._oldest(prefix))
            untrue += [info for info, found in looked_at if found]
        for info in untrue:
            self.store.delete(info.key)
        return len(untrue)

    def _open_is_untrue(self, info: ObjectInfo, before: datetime) -> bool:
        job = _job_of(info)
        if self.store.head(keys.job_summary(job)) is not None:
            return True
        return info.modified < before and self.store.head(keys.job_spec(job)) is None

    def _stored_is_untrue(self, info: ObjectInfo, before: datetime) -> bool:
        return info.modified < before and self.store.head(_summary_of(_job_of(info))) is None

    def _oldest(self, prefix: str) -> list[ObjectInfo]:
        # Ids sort newest first.
        entries = (info for info in self.store.list(prefix) if _is_owner(_job_of(info)))
        return list(deque(entries, maxlen=_MENDED_AT_ONCE))

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
