"""Taking a dataset in: its files fetched and unpacked, every item checked, kept in shards, counted and drawn."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from model_store.card import ClassEntry
from service.datasets.items import DatasetItem, as_rgb
from service.datasets.reading.about import about_data
from service.datasets.reading.checking import read_items
from service.datasets.reading.entry import SourceOfEntries
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings, ReadReport
from service.datasets.reading.unpacking import UnpackLimits, unpack
from service.datasets.statistics import StatisticsCollector
from service.datasets.statistics_picture import draw_statistics
from service.datasets.stored import layout
from service.datasets.stored.layout import DatasetAbout
from service.datasets.stored.scratch import scratch_folder
from service.datasets.stored.writer import DatasetKeeper
from service.errors import InvalidDataset
from service.kit.contact_sheet import SheetTwin, draw_contact_sheet
from service.kit.png import encode_mask
from service.kit.states import JobState
from service.runs.dataset_versions import DatasetWork
from service.store.keys import is_key
from workers.bulk import metrics
from workers.bulk.context import Finished, RunContext

_SHOWN = 6
_THUMB_PX = 224
_RATIO = 12
"""An archive is unpacked to no more than this many times the largest that may be sent."""


def take_in(work: RunContext) -> Finished:
    """Takes the dataset in. Raises InvalidDataset where there is none to be read."""
    asked = DatasetWork.model_validate(work.spec.work)
    with scratch_folder(work.worker.settings.data_dir) as scratch:
        folder = scratch / asked.name
        work.say(0, None, "fetching")
        files = _unpack(work, scratch, folder) if asked.prefix is None else _fetch(work, asked.prefix, folder)
        metrics.DATASET_FILES.labels("archive" if asked.prefix is None else "prefix").inc(files)
        source = open_dataset(folder, format=asked.read_as)
        return _keep(work, asked, source, scratch)


def _unpack(work: RunContext, scratch: Path, folder: Path) -> int:
    archive = scratch / "archive"
    with open(archive, "wb") as out:
        for piece in work.worker.store.stream(layout.archive(work.spec.run)):
            out.write(piece)
            work.look()
    files = unpack(archive, folder, UnpackLimits(max_bytes=_RATIO * work.worker.settings.max_dataset_bytes))
    archive.unlink()
    return files


def _fetch(work: RunContext, prefix: str, folder: Path) -> int:
    """Copies the objects under ``prefix`` into ``folder``; how many. Names become paths only as far as they are keys,
    which lead nowhere else."""
    store, most = work.worker.store, work.worker.settings.max_dataset_bytes
    size = count = 0
    folder.mkdir()
    for info in store.list(prefix):
        name = info.key[len(prefix) :]
        size += info.size
        if size > most:
            detail = f"the objects under {prefix!r} have more than {most} bytes (TWINSET_MAX_DATASET_BYTES); divide the dataset"
            raise InvalidDataset(detail)
        if not is_key(info.key) or not name or not is_key(name):
            continue
        target = folder.joinpath(*PurePosixPath(name).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as out:
            for piece in store.stream(info.key):
                out.write(piece)
        count += 1
        work.look()
    if not count:
        raise InvalidDataset(f"there are no objects under {prefix!r}; copy the dataset there first")
    return count


def _keep(work: RunContext, asked: DatasetWork, source: SourceOfEntries, scratch: Path) -> Finished:
    store, run = work.worker.store, work.spec.run
    findings, collector = Findings(), StatisticsCollector(source.classes)
    total = sum(1 for _ in source.entries(Findings()))
    shown: list[tuple[bytes, bytes]] = []
    with closing(DatasetKeeper(store, run, source.classes, scratch)) as renewer:
        for number, item in enumerate(read_items(source, findings), start=1):
            renewer.add(item)
            collector.add(item.labels)
            if _is_shown(number - 1, total):
                shown.append(_thumbs(item, source))
            work.say(number, total, "reading")
            work.look()
        renewer.finish()
        shards = tuple(renewer.shards)
    report = findings.report(source.format)
    store.put(layout.report(run), report.model_dump_json().encode())
    metrics.DATASET_ITEMS.labels("kept").inc(report.items)
    metrics.DATASET_ITEMS.labels("left_out").inc(report.left_out)
    if not report.items:
        raise InvalidDataset(
            f"no pair of an image and its mask could be read: {_faults(report)}. The report names the files"
        )
    statistics = collector.result()
    data = about_data(source.root, asked.name)
    about = DatasetAbout(
        name=asked.name,
        version=asked.version,
        read_as=source.format,
        title=data.name,
        licence=data.licence,
        classes=source.classes,
        items=report.items,
        left_out=report.left_out,
        shards=shards,
    )
    pictures = {
        layout.statistics_picture(run): _png(draw_statistics(statistics, title=asked.id)),
        layout.preview(run): _preview(asked, source, shown, scratch),
    }
    store.put(layout.statistics(run), statistics.model_dump_json().encode())
    for key, png in pictures.items():
        store.put(key, png)
    store.put(layout.about(run), about.model_dump_json().encode())
    size = about.bytes + sum(map(len, pictures.values()))
    metrics.DATASET_BYTES.inc(size)
    return Finished(
        JobState.SUCCEEDED,
        done=report.items,
        total=report.items + report.left_out,
        reason=f"{report.left_out} entries were left out: {_faults(report)}" if report.left_out else None,
        size=size,
        result=about.model_dump(mode="json", exclude={"shards"}),
    )


def _faults(report: ReadReport) -> str:
    return (
        ", ".join(f"{group.count} {group.kind.replace('_', ' ')}" for group in report.faults if group.left_out)
        or "there is none"
    )


def _is_shown(position: int, total: int) -> bool:
    """Whether an item is among those on the preview, which are spread over the whole."""
    return position % max(1, total // _SHOWN) == 0


def _thumbs(item: DatasetItem, source: SourceOfEntries) -> tuple[bytes, bytes]:
    """Image and mask as small PNGs."""
    with Image.open(io.BytesIO(item.image_bytes)) as file:
        image = as_rgb(file)
    image.thumbnail((_THUMB_PX, _THUMB_PX), Image.Resampling.LANCZOS)
    mask = Image.fromarray(item.labels).resize(image.size, Image.Resampling.NEAREST)
    return _png(image), encode_mask(np.array(mask), source.classes.colours, {})


def _preview(asked: DatasetWork, source: SourceOfEntries, shown: list[tuple[bytes, bytes]], scratch: Path) -> bytes:
    twins = []
    for number, files in enumerate(shown[:_SHOWN]):
        paths = [scratch / f"{number}-{what}.png" for what in ("image", "mask")]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        twins.append(SheetTwin(paths[0], paths[1], ""))
    classes = [ClassEntry(index=entry.index, name=entry.name, colour=entry.colour) for entry in source.classes.classes]
    return _png(draw_contact_sheet(twins, classes, title=asked.id, subtitle="as it was taken in", ignored="ignore"))


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
