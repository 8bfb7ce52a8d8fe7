"""The handler of datasets: fetches the files, checks every item, and writes shards, statistics and a preview."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from model_store.card import ClassEntry
from service.datasets.items import DatasetItem, as_rgb
from service.datasets.reading.about import read_training_data
from service.datasets.reading.checking import read_items
from service.datasets.reading.entry import DatasetSource
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings, ReadReport
from service.datasets.reading.unpacking import UnpackLimits, unpack
from service.datasets.statistics import StatisticsCollector
from service.datasets.statistics_chart import draw_statistics
from service.datasets.stored import layout
from service.datasets.stored.layout import DatasetAbout
from service.datasets.stored.scratch import scratch_folder
from service.datasets.stored.writer import StoredDatasetWriter
from service.errors import InvalidDataset
from service.kit.contact_sheet import SheetTwin, draw_contact_sheet
from service.kit.png import encode_mask
from service.kit.states import JobState
from service.runs.dataset_versions import DatasetWork
from service.store.keys import is_key
from workers.bulk import metrics
from workers.bulk.context import Finished, RunContext

_PREVIEW_ITEMS = 6
_THUMB_PX = 224
_MAX_UNPACK_RATIO = 12
"""Maximum size of an unpacked archive, as a multiple of the largest archive that may be uploaded."""


def handle_dataset(context: RunContext) -> Finished:
    """Imports the dataset. Raises InvalidDataset if no item can be read."""
    work = DatasetWork.model_validate(context.spec.work)
    with scratch_folder(context.worker.settings.data_dir) as scratch:
        folder = scratch / work.name
        context.report_progress(0, None, "fetching")
        files = _unpack(context, scratch, folder) if work.prefix is None else _fetch(context, work.prefix, folder)
        metrics.DATASET_FILES.labels("archive" if work.prefix is None else "prefix").inc(files)
        source = open_dataset(folder, format=work.read_as)
        return _keep(context, work, source, scratch)


def _unpack(context: RunContext, scratch: Path, folder: Path) -> int:
    archive = scratch / "archive"
    with open(archive, "wb") as out:
        for piece in context.worker.store.stream(layout.archive(context.spec.run)):
            out.write(piece)
            context.check()
    files = unpack(
        archive, folder, UnpackLimits(max_bytes=_MAX_UNPACK_RATIO * context.worker.settings.max_dataset_bytes)
    )
    archive.unlink()
    return files


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
        if size > max_bytes:
            raise InvalidDataset(
                f"the objects under {prefix!r} have more than {max_bytes} bytes (TWINSET_MAX_DATASET_BYTES); "
                "divide the dataset"
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


def _keep(context: RunContext, work: DatasetWork, source: DatasetSource, scratch: Path) -> Finished:
    store, run = context.worker.store, context.spec.run
    findings, collector = Findings(), StatisticsCollector(source.classes)
    total = sum(1 for _ in source.entries(Findings()))
    shown: list[tuple[bytes, bytes]] = []
    with closing(StoredDatasetWriter(store, run, source.classes, scratch)) as shard_writer:
        for number, item in enumerate(read_items(source, findings), start=1):
            shard_writer.add(item)
            collector.add(item.labels)
            if _is_shown(number - 1, total):
                shown.append(_thumbs(item, source))
            context.report_progress(number, total, "reading")
            context.check()
        shard_writer.finish()
        shards = tuple(shard_writer.shards)
    report = findings.report(source.format)
    store.put(layout.report(run), report.model_dump_json().encode())
    metrics.DATASET_ITEMS.labels("kept").inc(report.items)
    metrics.DATASET_ITEMS.labels("skipped").inc(report.skipped)
    if not report.items:
        raise InvalidDataset(
            f"no pair of an image and its mask could be read: {_faults(report)}. The report names the files"
        )
    statistics = collector.result()
    data = read_training_data(source.root, work.name)
    about = DatasetAbout(
        name=work.name,
        version=work.version,
        read_as=source.format,
        title=data.name,
        licence=data.licence,
        classes=source.classes,
        items=report.items,
        skipped=report.skipped,
        shards=shards,
    )
    images = {
        layout.statistics_chart(run): _png(draw_statistics(statistics, title=work.id)),
        layout.preview(run): _preview(work, source, shown, scratch),
    }
    store.put(layout.statistics(run), statistics.model_dump_json().encode())
    for key, png in images.items():
        store.put(key, png)
    store.put(layout.about(run), about.model_dump_json().encode())
    size = about.bytes + sum(map(len, images.values()))
    metrics.DATASET_BYTES.inc(size)
    return Finished(
        JobState.SUCCEEDED,
        done=report.items,
        total=report.items + report.skipped,
        reason=f"{report.skipped} entries were left out: {_faults(report)}" if report.skipped else None,
        size=size,
        result=about.model_dump(mode="json", exclude={"shards"}),
    )


def _faults(report: ReadReport) -> str:
    return (
        ", ".join(f"{group.count} {group.kind.replace('_', ' ')}" for group in report.faults if group.skipped)
        or "there is none"
    )


def _is_shown(position: int, total: int) -> bool:
    """Whether the preview shows the item; those shown are spread evenly over the dataset."""
    return position % max(1, total // _PREVIEW_ITEMS) == 0


def _thumbs(item: DatasetItem, source: DatasetSource) -> tuple[bytes, bytes]:
    """Image and mask as small PNGs."""
    with Image.open(io.BytesIO(item.image_bytes)) as file:
        image = as_rgb(file)
    image.thumbnail((_THUMB_PX, _THUMB_PX), Image.Resampling.LANCZOS)
    mask = Image.fromarray(item.labels).resize(image.size, Image.Resampling.NEAREST)
    return _png(image), encode_mask(np.array(mask), source.classes.colours, {})


def _preview(work: DatasetWork, source: DatasetSource, shown: list[tuple[bytes, bytes]], scratch: Path) -> bytes:
    twins = []
    for number, files in enumerate(shown[:_PREVIEW_ITEMS]):
        paths = [scratch / f"{number}-{what}.png" for what in ("image", "mask")]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        twins.append(SheetTwin(paths[0], paths[1], ""))
    classes = [ClassEntry(index=entry.index, name=entry.name, colour=entry.colour) for entry in source.classes.classes]
    return _png(draw_contact_sheet(twins, classes, title=work.id, subtitle="as imported", ignored="ignore"))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
