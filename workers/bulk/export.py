"""The handler of exports: writes one item after the other, from the last checkpoint on."""

from __future__ import annotations

from service.datasets.stored.scratch import scratch_folder
from service.exports.location import ExportLocation
from service.exports.resolve import ExportSpec, SourceLookup
from service.exports.run import ExportProgress, ExportStopped, run_export
from service.kit.states import JobState
from service.store.run_keys import run_prefix
from workers.bulk.context import Finished, RunContext, RunReleased
from workers.bulk.metrics import ExportMeter


def handle_export(context: RunContext) -> Finished:
    """Writes the export, or the part that is missing."""
    worker, run = context.worker, context.spec.run
    spec = ExportSpec.model_validate(context.spec.work)
    location = ExportLocation(worker.store, run_prefix(run))
    mix = SourceLookup(worker.repository, worker.runs, worker.catalogue).mix(spec)
    total = mix.count()
    meter = ExportMeter(spec.options.format)
    last_progress: ExportProgress | None = None

    def on_progress(progress: ExportProgress) -> None:
        nonlocal last_progress
        last_progress = progress
        if context.report_progress(progress.done, progress.total, "writing"):
            meter.update(progress)

    released: list[RunReleased] = []

    def should_stop() -> bool:
        try:
            context.check()
        except RunReleased as error:
            released.append(error)
        return bool(released)

    with scratch_folder(worker.settings.data_dir) as scratch:
        try:
            result = run_export(
                mix,
                spec.options,
                spec.about,
                location,
                on_progress=on_progress,
                should_stop=should_stop,
                scratch=scratch,
            )
        except ExportStopped:
            raise released[-1] if released else RunReleased(cancelled=False) from None
        finally:
            if last_progress is not None:
                meter.update(last_progress)
    skipped = sum(result.skipped.values())
    return Finished(
        JobState.SUCCEEDED,
        done=sum(result.items.values()),
        total=max(total, sum(result.items.values()) + skipped),
        reason=f"{skipped} items were left out: {_counted(result.skipped)}" if skipped else None,
        size=result.bytes,
        result=result.model_dump(mode="json"),
    )


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in reasons.items())
