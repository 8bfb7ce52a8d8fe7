"""Retries: a new job that makes exactly the samples that an ended job lacks. The ended job never changes.

The samples keep their indices, so each gets the seed, and with it the bytes, that it would have had in the first job.
The given masks are copied, because the first job may be deleted before its retry. A job has one retry, whose id is
recorded before the retry exists (``jobs/{job}/retry.json``), so that a second request gets the same job. What the retry
fails to make is left to a retry of the retry.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.errors import JobStateConflict, ObjectDamaged, ObjectNotFound, UnknownJob
from service.jobs.idempotency import RESERVATION_TTL
from service.jobs.spec import JobSpec, Run, StoredInput, runs_of
from service.jobs.submit import JobSubmitter
from service.jobs.validate import check_count
from service.kit.ids import accepted_at, new_job_id
from service.kit.log_context import current_origin
from service.kit.validation import Faults
from service.store import keys
from service.store.checked import read_checked
from service.store.immutable import StoredObject, put_immutable

_MAX_CONCURRENT_COPIES = 8


@dataclass(frozen=True)
class Retries:
    """Makes retries of jobs, by ``submitter``. A retry belongs to its job's tenant."""

    submitter: JobSubmitter

    def retry(self, spec: JobSpec) -> tuple[JobSpec, bool]:
        """The retry of the job of ``spec``, and whether this call created it.

        Raises :class:`JobStateConflict` if the job has not ended, or lacks no sample;
        :class:`InvalidRequest`, :class:`UnknownModel`, :class:`LimitReached` as for any other job.
        """
        repository, submitter = self.submitter.repository, self.submitter
        summary = repository.read_summary(spec.job)
        if summary is None:
            raise JobStateConflict(
                f"job {spec.job} has not ended, and its missing twins may still be made; "
                "wait until it has ended, or cancel it"
            )
        reserved = self._reserved(spec.job)
        if reserved is not None:
            try:
                return repository.read_spec(reserved), False
            except UnknownJob:
                pass  # the id was reserved, and the spec never written
        missing = runs_of(repository.chunks.missing_samples(spec, summary))
        if not missing:
            raise JobStateConflict(
                f"job {spec.job} has ended as {summary.state.value} with all its {summary.total} twins; "
                f"there is nothing to make again. If a stored twin is damaged, POST /jobs/{spec.job}/repair",
                state=summary.state.value,
            )
        retry = self._spec(spec, reserved, missing)
        submitter.limits.check_stored(tenant=spec.tenant)
        submitter.limits.take_queue(retry)
        if reserved is None:
            reserved = repository.reserve_retry(spec.job, retry.job)
            if reserved != retry.job:
                submitter.limits.leave_queue(retry)  # the request that came first has its own place in the queue
                retry = retry.model_copy(update={"job": reserved})
        self._copy_masks(spec, retry)
        return submitter.accept(retry)

    def _reserved(self, job: str) -> str | None:
        """The id of the retry that the job is bound to; None if there is none, or it can no longer be written."""
        repository = self.submitter.repository
        reserved = repository.read_retry(job)
        if reserved is None:
            return None
        if repository.deletions.is_pending(reserved):
            raise JobStateConflict(
                f"job {job} was retried as {reserved}, which is being deleted; ask again in a minute"
            )
        gone = repository.store.head(keys.job_spec(reserved)) is None
        if gone and self.submitter.now() - accepted_at(reserved) > RESERVATION_TTL:
            repository.store.delete(keys.job_retry(job))
            return None
        return reserved

    def _spec(self, spec: JobSpec, reserved: str | None, missing: tuple[Run, ...]) -> JobSpec:
        submitter = self.submitter
        count = sum(last - first + 1 for first, last in missing)
        faults = Faults()
        check_count(count, spec.priority, submitter.settings, faults)
        faults.raise_if_any()
        submitter.catalogue.pinned(spec.model_key)
        now = submitter.now()
        changes = {
            "format": max(spec.format, JobSpec.model_fields["format"].default),
            "job": reserved or new_job_id(now),
            "created_at": now,
            "retry_of": spec.job,
            "only": missing,
            "count": count,
            "chunk_size": submitter.settings.chunk_size,
            "idempotency_key": None,
            **current_origin(),
        }
        return JobSpec(**{**spec.model_dump(), **changes})

    def _copy_masks(self, spec: JobSpec, retry: JobSpec) -> None:
        """Copies those of the job's masks, with their instance maps, that the retry's samples follow."""
        store, followed = self.submitter.repository.store, set(_followed(retry))

        def copy(there: StoredInput, here: StoredInput) -> None:
            try:
                data = read_checked(store, there.key, there.sha256)
            except (ObjectNotFound, ObjectDamaged):
                raise JobStateConflict(
                    f"{there.key}, a mask that was given for job {spec.job}, has been removed or damaged; "
                    "send it again in a new job"
                ) from None
            put_immutable(store, StoredObject(key=here.key, sha256=here.sha256, bytes=len(data)), data)

        both = [each for each in zip(spec.given_files, retry.given_files, strict=True) if each[0].number in followed]
        with ThreadPoolExecutor(_MAX_CONCURRENT_COPIES, thread_name_prefix="copy-masks") as pool:
            for copied in [pool.submit(copy, there, here) for there, here in both]:
                copied.result()


def _followed(spec: JobSpec) -> Iterator[int]:
    """The numbers of the given masks that the job's samples follow."""
    total = len(spec.mask or ())
    for first, last in spec.only or () if total else ():
        # after one round all masks have been seen
        yield from (index % total for index in range(first, min(last + 1, first + total)))
