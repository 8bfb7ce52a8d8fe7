"""What follows a record: the job's next chunk is sent, and the last one ends the job with manifest and summary."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from redis.exceptions import RedisError

from service.jobs.chunk_records import Unreadable
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec, Summary
from workers.generation.dispatch import ChunkDispatcher
from workers.generation.progress import ProgressPublisher
from workers.runtime.leases import Leases

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobCompletion:
    """Sends next chunks and ends jobs, for one worker process. May be used from many threads."""

    repository: JobRepository
    leases: Leases
    dispatcher: ChunkDispatcher
    progress: ProgressPublisher

    def after_record(self, spec: JobSpec, chunk: int) -> None:
        """Sends the job's next chunk. Once all have been sent, ends the job if no record is missing."""
        if self.repository.is_cancelled(spec.job):
            self.end_if_cancelled(spec)
            return
        if self.dispatcher.send_next(spec, chunk) is None:
            self.end_if_complete(spec)

    def end_if_complete(self, spec: JobSpec) -> bool:
        """Ends the job if no record is missing, and all can be read. If several workers do, the first summary holds.

        The sweeper sees to records that cannot be read.
        """
        if next(self.repository.chunks.missing(spec), None) is not None:
            return False
        unreadable: Unreadable = {}
        reason = self._why_incomplete(spec, unreadable)
        if unreadable:
            return False
        self.end(spec, reason=reason)
        return True

    def end_with_what_can_be_read(self, spec: JobSpec) -> None:
        """Ends a job of which no record is missing. Samples in records that cannot be read count as failed."""
        self.end(spec, reason=self._why_incomplete(spec, {}))

    def end_if_cancelled(self, spec: JobSpec) -> bool:
        """Ends a cancelled job with the twins it has, once none of its chunks is leased."""
        if not self.repository.is_cancelled(spec.job):
            return False
        try:
            if self.leases.live(spec.job):
                return False
        except RedisError as error:
            logger.info("job=%s is cancelled and waits for Redis to end: %s", spec.job, error)
            return False
        # a cancel that came after the last record changes nothing
        if self.repository.read_summary(spec.job) is None and not self.end_if_complete(spec):
            self.end(spec, reason="cancelled")
        return True

    def end(self, spec: JobSpec, *, reason: str | None) -> Summary:
        """Writes the manifest, then the summary, then publishes the end."""
        summary = self.repository.conclude(spec, reason=reason)
        self.progress.publish_ended(spec, summary)
        self.leases.forget(spec.job)
        self.dispatcher.forget(spec.job)
        logger.info(
            "job=%s ended as %s with %d of %d twins", spec.job, summary.state.value, summary.done, summary.total
        )
        return summary

    def _why_incomplete(self, spec: JobSpec, unreadable: Unreadable) -> str | None:
        """The first error of a job whose samples did not all succeed; None if they did. Reads every record."""
        errors = [item.error for _, item in self.repository.chunks.items(spec, unreadable) if item.error]
        error = errors[0] if errors else None
        return None if error is None else f"the first sample that failed: {error}"
