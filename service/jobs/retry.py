"""A retry: a new job that makes exactly what is missing of one that has ended, which itself never changes again.

The samples keep their indices, so each gets the seed, and with it the bytes, that it would have had in the first job.
The given masks are copied, for the first job may be deleted before its retry. A job has one retry, which its record
names from before the retry exists (``jobs/{job}/retry.json``), so that asking twice gives the same; what that cannot
make either is for a retry of the retry.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.errors import JobStateConflict, ObjectDamaged, ObjectNotFound, UnknownJob
from service.jobs.idempotency import RESERVATION_TTL
from service.jobs.spec import JobSpec, Run, runs_of
from service.jobs.submit import JobSubmitter
from service.jobs.validate import check_count
from service.kit.ids import accepted_at, new_job_id
from service.kit.validation import Faults
from service.store import keys
from service.store.checked import read_checked

_COPIES_AT_ONCE = 8


@dataclass(frozen=True)
class Retries:
    """Makes retries of jobs, by ``submitter``. A retry belongs to its job's tenant."""

    submitter: JobSubmitter

    def retry(self, spec: JobSpec) -> tuple[JobSpec, bool]:
        """The job that makes what is missing of ``spec``'s, and whether this call made it.

        Raises :class:`JobStateConflict` if that one has not ended, or nothing is missing of it;
        :class:`InvalidRequest`, :class:`UnknownModel`, :class:`LimitReached` as for any other job.
        """
        repository, submitter = self.submitter.repository, self.submitter
        summary = repository.read_summary(spec.job)
        if summary is None:
            raise JobStateConflict(
                f"job {spec.job} has not ended, and what is missing of it may still be made; wait for its end, or cancel it"
            )
        reserved = self._reserved(spec.job)
        if reserved is not None:
            try:
                return repository.read_spec(reserved), False
            except UnknownJob:
                pass  # reserved, and its spec was never written
        missing = runs_of(repository.missing_samples(spec, summary))
        if not missing:
            raise JobStateConflict(
                f"job {spec.job} has ended as {summary.state.value} with all its {summary.total} twins; there is nothing to "
                "make again",
                state=summary.state.value,
            )
        retry = self._spec(spec, reserved, missing)
        submitter.limits.check_stored(tenant=spec.tenant)
        submitter.limits.take_queue(retry)
        if reserved is None:
            reserved = repository.reserve_retry(spec.job, retry.job)
            if reserved != retry.job:
                submitter.limits.leave_queue(retry)  # whoever came first has taken its own place
                retry = retry.model_copy(update={"job": reserved})
        self._copy_masks(spec.job, retry)
        return submitter.accept(retry)

    def _reserved(self, job: str) -> str | None:
        """The retry that the job is bound to, unless that can no longer come to be."""
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
        submitter.catalogue.resolve(spec.model)
        now = submitter.now()
        changes = {
            "job": reserved or new_job_id(now),
            "created_at": now,
            "retry_of": spec.job,
            "only": missing,
            "count": count,
            "chunk_size": submitter.settings.chunk_size,
            "idempotency_key": None,
        }
        return JobSpec(**{**spec.model_dump(), **changes})

    def _copy_masks(self, job: str, retry: JobSpec) -> None:
        """Copies those of the job's masks that the retry's samples follow."""
        store, masks = self.submitter.repository.store, retry.mask or ()

        def copy(number: int) -> None:
            key = keys.job_input(job, number)
            try:
                data = read_checked(store, key, masks[number].sha256)
            except (ObjectNotFound, ObjectDamaged):
                raise JobStateConflict(
                    f"{key}, a mask that was given for job {job}, is no longer what it was; send it again in a new job"
                ) from None
            store.put(keys.job_input(retry.job, number), data)

        with ThreadPoolExecutor(_COPIES_AT_ONCE, thread_name_prefix="copy-masks") as pool:
            for copied in [pool.submit(copy, number) for number in sorted(set(_followed(retry)))]:
                copied.result()


def _followed(spec: JobSpec) -> Iterator[int]:
    """The numbers of the given masks that the job's samples follow."""
    total = len(spec.mask or ())
    for first, last in spec.only or () if total else ():
        # after one round all have come by
        yield from (index % total for index in range(first, min(last + 1, first + total)))
