"""A training from its first stage to its last, by whichever workers take it up."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from service.kit.states import JobState
from service.store import training_keys
from service.store.immutable import put_attempt
from service.trainings import control
from service.trainings.records import StageRecord, TrainingRecords
from service.trainings.work import PARTS, TrainingStage, TrainingWork
from workers.bulk.context import Finished, RetryLater, RunContext, RunHandler
from workers.trainings.folder import StageOrder, stage_folder
from workers.trainings.result import fetch_part, register_model, store_part
from workers.trainings.stage import Spent, StageEnd, StageRun, stored_bytes

logger = logging.getLogger(__name__)
_PAUSED_FOR_S = 1.0
"""The sweeper leaves a paused training alone; a resumed one is to go on at once."""


def training_handler(processes: int = 1) -> RunHandler:
    """The handler of trainings, on so many devices."""
    return RunHandler(lambda context: handle_training(context, processes), on_cancel=cancel_training, isolated=True)


def handle_training(context: RunContext, processes: int = 1) -> Finished | RetryLater:
    """Trains the stages that are not done. Raises what :meth:`StageRun.run` does."""
    work = TrainingWork.model_validate(context.spec.work)
    records = TrainingRecords(context.worker.store, context.spec.run)
    spent, done = Spent(), None
    for number, stage in enumerate(work.stages):
        done = records.stage(number) or _part_of_former(context, work, number)
        if done is None:
            if (limit := spent.over(work.budget)) is not None:
                return _without_model(context, limit, f"before stage {number} ({stage.system})", spent)
            if control.is_paused(context.worker.store, context.spec.run):
                return RetryLater(_PAUSED_FOR_S)
            ended = _train(context, work, number, stage, spent, processes)
            if isinstance(ended, (Finished, RetryLater)):
                return ended
            done = ended
        spent = Spent(spent.iterations + done.iterations, done.seconds, done.device_seconds)
    assert done is not None
    return _finished(context, work, done, spent)


def _part_of_former(context: RunContext, work: TrainingWork, number: int) -> StageRecord | None:
    """The record of a part that the training which this one continues has made; it is written as this one's."""
    if work.continues is None or work.stages[number].system not in PARTS:
        return None
    store = context.worker.store
    former = TrainingRecords(store, work.continues).stage(number)
    if former is None:
        return None
    files = {}
    for name, stored in former.files.items():
        path = training_keys.training_part(context.spec.run, number, name)
        files[name] = put_attempt(store, path, store.get(stored.key))
    record = former.model_copy(update={"run": context.spec.run, "files": files})
    return TrainingRecords(store, context.spec.run).write_stage(record)


def cancel_training(context: RunContext) -> Finished:
    """The end of a cancelled training, which keeps its checkpoints."""
    last = TrainingRecords(context.worker.store, context.spec.run).last()
    where = "" if last is None else f"; its last checkpoint is of iteration {last.iteration} of stage {last.stage}"
    return Finished(
        JobState.CANCELLED,
        done=0 if last is None else last.iteration,
        reason=f"cancelled{where}",
        size=stored_bytes(context.worker.store, context.spec.run),
    )


def _train(
    context: RunContext, work: TrainingWork, number: int, stage: TrainingStage, before: Spent, processes: int
) -> StageRecord | Finished | RetryLater:
    """Trains one stage; its record, or how the training ends or waits."""
    worker, spec = context.worker, context.spec
    with ExitStack() as stack:
        folder = stack.enter_context(stage_folder(worker.settings.data_dir / "trainings"))
        parts = {
            role: fetch_part(worker, spec.run, spec.tenant, ref, folder / "parts" / role)
            for role, ref in stage.uses.items()
        }
        run = StageRun(
            context,
            number,
            stage,
            work.budget,
            before,
            work.keep_every,
            folder,
            processes=processes,
            continues=work.continues,
        )
        run.prepare(
            StageOrder(
                run=spec.run,
                system=stage.system,
                data=stage.data,
                options=stage.options,
                parts={str(role): path for role, path in parts.items()},
                tenant=spec.tenant,
                name=work.model,
                evaluate=work.evaluate and stage is work.last and stage.system not in PARTS,
                device=worker.settings.device,
                share=worker.settings.training_share,
            )
        )
        end = run.run()
        if end is StageEnd.PAUSED:
            return RetryLater(_PAUSED_FOR_S)
        if end is StageEnd.SPENT:
            last = run.records.last(number)
            if stage is not work.last or last is None:
                limit = str(run.spent.over(work.budget))
                return _without_model(context, limit, f"in stage {number} ({stage.system})", run.spent)
            end = _finish_from(run, last.iteration)
        context.check()
        record = store_part(run) if stage.system in PARTS else register_model(run, work)
        logger.info("run=%s stage %d (%s) is done", spec.run, number, stage.system)
        return record


def _without_model(context: RunContext, limit: str, where: str, spent: Spent) -> Finished:
    """The end of a training whose budget was spent before its last stage had a checkpoint."""
    return Finished(
        JobState.FAILED,
        done=spent.iterations,
        reason=f"the budget of {limit} was spent {where}, so there is no model; its checkpoints are kept. Start a "
        "training with a larger budget",
        size=stored_bytes(context.worker.store, context.spec.run),
    )


def _finish_from(run: StageRun, iteration: int) -> StageEnd:
    """Makes the result of a stage whose budget is spent from its last checkpoint."""
    run.finish_at(iteration)
    return run.run()


def _finished(context: RunContext, work: TrainingWork, last: StageRecord, spent: Spent) -> Finished:
    records = TrainingRecords(context.worker.store, context.spec.run)
    planned = [records.last(number) for number in range(len(work.stages))]
    total = sum(record.iterations for record in planned if record is not None)
    reason = None
    if (limit := spent.over(work.budget)) is not None and spent.iterations < total:
        reason = f"the budget of {limit} was spent after {spent.iterations} of {total} iterations"
    if last.candidate:
        kept = "it stays a candidate: " + "; ".join(last.missed)
        reason = kept if reason is None else f"{reason}; {kept}"
    return Finished(
        JobState.SUCCEEDED,
        done=spent.iterations,
        total=spent.iterations,
        reason=reason,
        size=stored_bytes(context.worker.store, context.spec.run),
        result={
            "model": last.model,
            "candidate": last.candidate,
            "iterations": spent.iterations,
            "seconds": last.seconds,
            "device_seconds": last.device_seconds,
        },
    )
