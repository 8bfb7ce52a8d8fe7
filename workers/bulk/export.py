"""Writing an export: from the last checkpoint on, an item at a time."""

from __future__ import annotations

from service.datasets.stored.scratch import scratch_folder
from service.exports.resolve import ExportWork, Shelves
from service.exports.run import (
    ExportProgress,
    ExportStopped,
    StorePlace,
    run_export,
)
from service.kit.states import JobState
from service.store.run_keys import run_prefix
from workers.bulk.context import Finished, Released, RunContext
from workers.bulk.metrics import ExportMeter


def export(work: RunContext) -> Finished:
    """Writes the export, or what is missing of it."""
    worker, run = work.worker, work.spec.run
    asked = ExportWork.model_validate(work.spec.work)
    place = StorePlace(worker.store, run_prefix(run))
    mix = Shelves(worker.repository, worker.runs, worker.catalogue).mix(asked)
    total = mix.count()
    meter = ExportMeter(asked.options.format)
    going: ExportProgress | None = None

    def say(progress: ExportProgress) -> None:
        nonlocal going
        going = progress
        if work.say(progress.done, progress.total, "writing"):
            meter.see(progress)

    stopped: list[Released] = []

    def should_stop() -> bool:
        try:
            work.look()
        except Released as released:
            stopped.append(released)
        return bool(stopped)

    with scratch_folder(worker.settings.data_dir) as scratch:
        try:
            result = run_export(
                mix, asked.options, asked.about, place, on_progress=say, should_stop=should_stop, scratch=scratch
            )
        except ExportStopped:
            raise stopped[-1] if stopped else Released(cancelled=False) from None
        finally:
            if going is not None:
                meter.see(going)
    left_out = sum(result.left_out.values())
    return Finished(
        JobState.SUCCEEDED,
        done=sum(result.items.values()),
        total=max(total, sum(result.items.values()) + left_out),
        reason=f"{left_out} items were left out: {_counted(result.left_out)}" if left_out else None,
        size=result.bytes,
        result=result.model_dump(mode="json"),
    )


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in reasons.items())
