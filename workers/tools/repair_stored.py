"""Repair of a stored job by the command, in its own process: no server is needed, nor one that runs disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

from service.errors import JobStateConflict
from service.jobs.repairs import Repair
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.settings import Settings
from workers.generation.repair import JobRepair
from workers.generation.twin_maker import TwinMaker
from workers.models.files import Load

_WORKER = "twinset-verify"


@contextmanager
def repairing(
    repository: JobRepository, spec: JobSpec, settings: Settings, *, load: Load | None = None
) -> Iterator[JobRepair]:
    """The job's repair, to go through and conclude. It is requested as the API does, so that nothing of the job is
    tidied away meanwhile; if it is interrupted, a worker or another command does the rest.

    Raises :class:`JobStateConflict` if the job has not ended.
    """
    summary = repository.read_summary(spec.job)
    if summary is None:
        raise JobStateConflict(f"job {spec.job} has not ended, so that it cannot be repaired; wait, or cancel it")
    request = repository.repairs.request(spec.job, datetime.now(UTC))
    with closing(TwinMaker(spec, repository.store, settings, load)) as maker:
        yield JobRepair(repository, spec, summary, request, maker, _WORKER)


def outcome_of(repair: Repair) -> list[str]:
    """What the repair found and did, in lines for people."""
    chunks = "chunk" if repair.lost_records == 1 else "chunks"
    faults = [
        f"{number} {what}"
        for number, what in (
            (repair.damaged, "damaged"),
            (repair.missing, "missing"),
            (repair.lost_records, f"{chunks} whose record was lost"),
        )
        if number
    ]
    if not faults and not repair.failed:
        return [f"All {repair.checked} stored twins are as recorded; nothing was to be repaired."]
    done = [f"{repair.restored} with their recorded bytes"] if repair.restored else []
    done += [f"{repair.replaced} with other bytes, as their new records say"] if repair.replaced else []
    done += [f"{repair.lost_records} {chunks} whole, with new records"] if repair.lost_records else []
    lines = [f"Found {', '.join(faults) or 'faults'}. Made again: {', '.join(done) or 'none'}."]
    if repair.failed:
        lines.append(f"{repair.failed} could not be made again:")
        lines += [f"  {failure.index}: {failure.reason}" for failure in repair.failures]
    return lines
