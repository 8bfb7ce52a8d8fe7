"""The handler of datasets: fetches the files, and has a child process with limits import them.

The files are foreign. A child that one of them ends, or makes too large or too slow, takes nothing else with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from service.datasets.stored import layout
from service.datasets.stored.dataset import StoredDataset
from service.datasets.stored.layout import DatasetAbout
from service.datasets.stored.scratch import scratch_folder
from service.errors import InvalidDataset
from service.kit.states import JobState
from service.runs.dataset_versions import DatasetWork
from service.sandbox.limits import SandboxLimits
from service.sandbox.process import Sandbox, SandboxExceeded
from service.sandbox.store_gate import StoreGate
from service.settings import Settings
from service.store import ObjectStore
from service.store.immutable import put_once
from service.store.keys import ATTEMPT, is_key
from service.store.run_keys import run_prefix
from workers.bulk import metrics
from workers.bulk.context import Finished, RunContext
from workers.bulk.import_child import ImportRequest, ImportResult

_CHILD = "workers.bulk.import_child"
_MAX_FILES = 1_000_000
_IMPORTED = re.compile(
    rf"(shards/\d{{6}}|items/\d{{6}}|report|statistics|preview)\.{ATTEMPT}\.(tar|jsonl|json|png)|report\.json", re.ASCII
)
_WORKING_BYTES = 1 << 30
"""Room on the disk for the shard under way, besides the dataset's own files."""


def handle_dataset(context: RunContext) -> Finished:
    """Imports the dataset. Raises InvalidDataset if no item can be read, or if reading it costs too much."""
    work = DatasetWork.model_validate(context.spec.work)
    with scratch_folder(context.worker.settings.data_dir) as scratch:
        context.report_progress(0, None, "fetching")
        if work.prefix is None:
            files = _fetch_archive(context, scratch / "archive")
        else:
            files = _fetch(context, work.prefix, scratch / work.name)
        result = _import(context, work, scratch)
    about = _commit(context, result.about)
    metrics.DATASET_FILES.labels("archive" if work.prefix is None else "prefix").inc(files or result.files)
    metrics.DATASET_ITEMS.labels("kept").inc(about.items)
    metrics.DATASET_ITEMS.labels("skipped").inc(about.skipped)
    size = about.bytes + sum(about.objects[name].bytes for name in ("picture", "preview") if name in about.objects)
    metrics.DATASET_BYTES.inc(size)
    return Finished(
        JobState.SUCCEEDED,
        done=about.items,
        total=about.items + about.skipped,
        reason=f"{about.skipped} entries were left out: {result.faults}" if about.skipped else None,
        size=size,
        result=about.model_dump(mode="json", exclude={"shards"}),
    )


def _commit(context: RunContext, about: DatasetAbout) -> DatasetAbout:
    """Writes the description, and with it what it names; the one that counts, of another worker if that came first."""
    store, run = context.worker.store, context.spec.run
    if any(not key.startswith(run_prefix(run)) or not is_key(key) for key in about.counted_keys()):
        raise InvalidDataset("the process that reads the dataset named objects that are not the dataset's")
    context.check()
    if put_once(store, layout.about(run), about.model_dump_json().encode()):
        return about
    return StoredDataset.open(store, run).about


def _fetch_archive(context: RunContext, archive: Path) -> int:
    with open(archive, "wb") as out:
        for piece in context.worker.store.stream(layout.archive(context.spec.run)):
            out.write(piece)
            context.check()
    return 0


def _fetch(context: RunContext, prefix: str, folder: Path) -> int:
    """Copies the objects under ``prefix`` into ``folder``; returns how many.

    Only valid keys become paths, so no name can lead out of the folder.
    """
    store, max_bytes = context.worker.store, context.worker.settings.max_dataset_bytes
    size = count = 0
    folder.mkdir()
    for info in store.list(prefix):
        name = info.key[len(prefix) :]
        size += info.size
        if size > max_bytes or count >= _MAX_FILES:
            raise InvalidDataset(
                f"the objects under {prefix!r} are more than {_MAX_FILES}, or have more than {max_bytes} bytes "
                "(TWINSET_MAX_DATASET_BYTES); divide the dataset"
            )
        if not is_key(info.key) or not name or not is_key(name):
            continue
        target = folder.joinpath(*PurePosixPath(name).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as out:
            for piece in store.stream(info.key):
                out.write(piece)
        count += 1
        context.check()
    if not count:
        raise InvalidDataset(f"there are no objects under {prefix!r}; copy the dataset there first")
    return count


def _import(context: RunContext, work: DatasetWork, scratch: Path) -> ImportResult:
    settings, run = context.worker.settings, context.spec.run
    request = ImportRequest(
        run=run,
        work=work,
        folder=scratch.resolve(),
        archive=work.prefix is None,
        max_unpacked_bytes=settings.max_unpacked_bytes,
        max_pixels=settings.max_dataset_pixels,
    )

    def on_report(name: str, values: Mapping[str, Any]) -> None:
        done, total = values.get("done"), values.get("total")
        if isinstance(done, int) and isinstance(total, int):
            context.report_progress(done, max(done, total), "reading")

    gate = import_gate(context.worker.store, run, scratch)
    sandbox = Sandbox(
        _CHILD,
        request.model_dump(mode="json"),
        import_limits(settings),
        gate.answer,
        folder=scratch,
        tick=context.check,
        on_report=on_report,
    )
    try:
        result = sandbox.run()
        return ImportResult.model_validate(result.values)
    except SandboxExceeded as exceeded:
        raise InvalidDataset(_remedy(exceeded, settings)) from None
    except ValidationError:
        raise InvalidDataset("the process that reads the dataset gave back what is no description of it") from None


def import_gate(store: ObjectStore, run: str, folder: Path) -> StoreGate:
    """What a child that imports a dataset may do with the store: write the objects of its import, and no record."""
    kept = run_prefix(run)
    return StoreGate(
        store,
        may_read=lambda key: False,
        may_write=lambda key: key.startswith(kept) and _is_imported(key[len(kept) :]),
        folder=folder,
    )


def import_limits(settings: Settings) -> SandboxLimits:
    """The limits of a child that imports a dataset."""
    disk = settings.max_unpacked_bytes + settings.max_dataset_bytes + _WORKING_BYTES
    return SandboxLimits(
        memory_bytes=settings.import_memory_bytes,
        cpu_s=settings.import_timeout_s,
        timeout_s=settings.import_timeout_s,
        file_bytes=settings.max_unpacked_bytes,
        folder_bytes=disk,
        folder_files=2 * _MAX_FILES,
    )


def _is_imported(name: str) -> bool:
    """Whether an import writes the object of this name below its run's prefix."""
    return _IMPORTED.fullmatch(name) is not None


def _remedy(exceeded: SandboxExceeded, settings: Settings) -> str:
    match exceeded.bound:
        case "memory":
            return (
                f"reading the dataset takes more than {settings.import_memory_bytes} bytes of memory "
                "(TWINSET_IMPORT_MEMORY_BYTES); cut its largest images into tiles, or split its largest annotation file"
            )
        case "cpu" | "time":
            return (
                f"reading the dataset takes more than {settings.import_timeout_s} s (TWINSET_IMPORT_TIMEOUT_S); "
                "divide it"
            )
        case "disk":
            return f"the dataset needs more of the disk than it may have: {exceeded.detail}; divide it"
        case "unexpected":
            return (
                f"the dataset cannot be read ({exceeded.detail}); 'twinset datasets check' names its faulty files, "
                "which are to be repaired or left out"
            )
