"""View of a job's repair."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from service.api.schemas.runs import View
from service.jobs.repairs import Repair, RepairRequest


class RepairFailureView(View):
    """A twin that could not be made again."""

    index: int
    reason: str


class RepairView(View):
    """A repair. Counts are of twins, and null until it is done."""

    job: str
    state: Literal["requested", "done"] = Field(description="requested: it waits for a worker, or is under way")
    requested_at: datetime
    finished_at: datetime | None
    checked: int | None = Field(description="twins whose files were compared with their records")
    damaged: int | None = Field(description="twins with a file that was not the recorded one")
    missing: int | None = Field(description="twins with a file that was gone")
    lost_records: int | None = Field(description="chunks whose record was lost, made again whole")
    restored: int | None = Field(description="twins that have their recorded bytes again")
    replaced: int | None = Field(description="twins made again with other bytes, on another kind of machine")
    failed: int | None = Field(description="twins that could not be made again")
    failures: tuple[RepairFailureView, ...] = Field(description="the first of these, and why")


def repair_view(repair: RepairRequest | Repair) -> RepairView:
    """The repair as answered."""
    counts = ("checked", "damaged", "missing", "lost_records", "restored", "replaced", "failed")
    if isinstance(repair, RepairRequest):
        return RepairView(
            job=repair.job,
            state="requested",
            requested_at=repair.requested_at,
            finished_at=None,
            failures=(),
            **dict.fromkeys(counts),
        )
    return RepairView(
        job=repair.job,
        state="done",
        requested_at=repair.requested_at,
        finished_at=repair.finished_at,
        failures=tuple(RepairFailureView(index=each.index, reason=each.reason) for each in repair.failures),
        **{name: getattr(repair, name) for name in counts},
    )
