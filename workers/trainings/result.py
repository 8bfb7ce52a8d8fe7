"""The result of a stage: a part, kept with the training, or a model, registered for its tenant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_store.card import ModelCard, load_card
from service.errors import TrainingFailed, UnknownRun
from service.kit.run_kinds import RunKind
from service.registry.register import register
from service.registry.registration import read_registration
from service.registry.versions import reserve_version
from service.runs.repository import RunRepository
from service.store import training_keys
from service.store.immutable import put_immutable
from service.trainings.records import StageRecord, TrainingRecords
from service.trainings.work import PARTS, TrainingWork
from workers.bulk.worker import BulkWorker
from workers.trainings.stage import StageRun, stored_file

_OWN_STAGE = re.compile(r"stage:(\d{1,2})")
_OF_TRAINING = re.compile(r"training/([^/@]+)")


def store_part(run: StageRun) -> StageRecord:
    """Stores the files of a part, then the record of its stage."""
    store, files = run.context.worker.store, {}
    for name in run.result.files:
        path = run.out / name
        stored = stored_file(training_keys.training_part(run.spec.run, run.number, name), path)
        put_immutable(store, stored, path)
        files[name] = stored
    return run.records.write_stage(_record(run, files=files))


def register_model(run: StageRun, work: TrainingWork) -> StageRecord:
    """Registers the model as the next version of its name, then writes the record of the stage.

    A version that this training registered before, and died before it wrote the record, is taken.
    """
    store, tenant, folder = run.context.worker.store, run.spec.tenant, run.out / "model"
    made = load_card(folder)
    version = reserve_version(store, made.name, tenant=tenant, run=run.spec.run)
    registered = read_registration(store, tenant, made.name, version)
    figures = run.result.figures
    missed = tuple(_missed(figures, work.promote_if))
    if registered is None:
        card = _with_history(made.model_copy(update={"version": version}), run, work)
        files = {name: folder / name for name in card.files}
        registered, _ = register(store, card, files, tenant=tenant, candidate=bool(missed), by=run.spec.run)
    return run.records.write_stage(
        _record(run, model=registered.model, candidate=registered.candidate, figures=figures, missed=missed)
    )


def _missed(figures: dict[str, Any], least: dict[str, float]) -> Iterator[str]:
    """The figures below their least values, in words."""
    for name, value in least.items():
        found = figure(figures, name)
        if found is None:
            yield f"{name} was not measured, and is to be {value:g} at least"
        elif found < value:
            yield f"{name} is {found:g}, and is to be {value:g} at least"


def fetch_part(worker: BulkWorker, spec_run: str, tenant: str, ref: str, folder: Path) -> Path:
    """Fetches a part into ``folder``: ``stage:{number}`` of the training itself, or ``training/{id}``.

    Raises :class:`TrainingFailed` for a part that is not there.
    """
    run, number = spec_run, None
    if own := _OWN_STAGE.fullmatch(ref):
        number = int(own[1])
    elif of := _OF_TRAINING.fullmatch(ref):
        run, number = of[1], part_stage(worker.runs, of[1], tenant)
    record = None if number is None else TrainingRecords(worker.store, run).stage(number)
    if record is None or not record.files:
        raise TrainingFailed(f"{ref} has no part that can be used; name a training of a part that has succeeded")
    folder.mkdir(parents=True)
    for name, stored in record.files.items():
        with (folder / name).open("wb") as file:
            for piece in worker.store.stream(stored.key, chunk_bytes=1 << 20):
                file.write(piece)
    return folder


def part_stage(runs: RunRepository, run: str, tenant: str) -> int | None:
    """The last stage of the tenant's training; None if there is no such training."""
    try:
        spec = runs.read_spec(run, tenant=tenant, kind=RunKind.TRAINING)
    except UnknownRun:
        return None
    work = TrainingWork.model_validate(spec.work)
    last = len(work.stages) - 1
    return last if work.last.system in PARTS else last - 1


def figure(figures: dict[str, Any], name: str) -> float | None:
    """The figure at a dotted path, such as ``by.classes.ppv``; None if it was not measured."""
    found: Any = figures
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return float(found) if isinstance(found, (int, float)) else None


def _with_history(card: ModelCard, run: StageRun, work: TrainingWork) -> ModelCard:
    """The card with what happened: the training, its data by version and hash, its stages and the time it took."""
    spent = run.spent
    history = {
        "run": run.spec.run,
        "stages": [stage.model_dump(mode="json") for stage in work.stages],
        "datasets": {ref: dataset_sha256(run.context.worker, run.spec.tenant, ref) for ref in _data(work)},
        "iterations_of_all_stages": spent.iterations,
        "seconds": round(spent.seconds, 1),
        "device_seconds": round(spent.device_seconds, 1),
        "device": run.begun.device if run.begun else None,
    }
    return card.model_copy(update={"training": {**card.training, "service": history}})


def _data(work: TrainingWork) -> list[str]:
    return list(dict.fromkeys(ref for stage in work.stages for ref in stage.data))


def dataset_sha256(worker: BulkWorker, tenant: str, ref: str) -> str | None:
    """The hash of a dataset's description, which has the hashes of all its shards; None if it is gone."""
    import hashlib

    from service.errors import TwinsetError
    from service.runs.dataset_versions import Datasets

    try:
        about = Datasets(worker.runs, tenant).ready(ref).about
    except TwinsetError:
        return None
    return hashlib.sha256(about.model_dump_json().encode()).hexdigest()


def _record(run: StageRun, **made: Any) -> StageRecord:
    return StageRecord(
        run=run.spec.run,
        stage=run.number,
        iterations=run.result.iterations,
        seconds=round(run.spent.seconds, 3),
        device_seconds=round(run.spent.device_seconds, 3),
        series=run.series,
        at=datetime.now(UTC),
        **made,
    )
