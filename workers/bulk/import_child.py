"""The import of a dataset, in a child process with limits: unpacks it, checks every item, and writes what is kept.

See :mod:`service.sandbox`. The parent, :mod:`workers.bulk.import_dataset`, has fetched the files. What is written goes
through it into the store.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from model_store.card import ClassEntry
from service.datasets.items import DatasetItem, as_rgb
from service.datasets.reading.checking import survey
from service.datasets.reading.entry import DatasetSource
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings, ReadReport
from service.datasets.reading.unpacking import UnpackLimits, unpack
from service.datasets.splits import check_split_map
from service.datasets.statistics import StatisticsCollector
from service.datasets.statistics_chart import draw_statistics
from service.datasets.stored import layout
from service.datasets.stored.importing import describe, write_items
from service.datasets.stored.layout import DatasetAbout, ObjectName
from service.errors import InvalidDataset
from service.kit.contact_sheet import SheetTwin, draw_contact_sheet
from service.kit.image_files import open_image_file
from service.kit.png import encode_mask
from service.runs.dataset_versions import DatasetWork
from service.sandbox.channel import Channel
from service.sandbox.store_gate import GatedStore
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_attempt, put_once

_PREVIEW_ITEMS = 6
_THUMB_PX = 224


class ImportRequest(BaseModel):
    """What the child gets: the run, its work, its folder, whether the dataset is an archive there, and its limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    work: DatasetWork
    folder: Path
    archive: bool
    max_unpacked_bytes: int
    max_pixels: int


class ImportResult(BaseModel):
    """What the child gives back. ``files`` are those that were unpacked; ``about`` is the dataset's description.

    The parent checks the description and writes it: then the objects that it names count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int = Field(ge=0)
    faults: str = Field(max_length=2000)
    about: DatasetAbout


def main(channel: Channel) -> None:
    """Imports the dataset. Raises InvalidDataset if no item can be read."""
    request = ImportRequest.model_validate(channel.request)
    folder, files = request.folder / request.work.name, 0
    if request.archive:
        archive = request.folder / "archive"
        files = unpack(archive, folder, UnpackLimits(max_bytes=request.max_unpacked_bytes))
        archive.unlink()
    source = open_dataset(folder, format=request.work.read_as)
    result = _Import(request, source, channel).run(files)
    channel.finish(result.model_dump(mode="json"))


class _Import:
    def __init__(self, request: ImportRequest, source: DatasetSource, channel: Channel) -> None:
        self._request, self._source, self._channel = request, source, channel
        self._store = cast(ObjectStore, GatedStore(channel))

    def run(self, files: int) -> ImportResult:
        run, source, store = self._request.run, self._source, self._store
        findings, collector = Findings(), StatisticsCollector(source.classes)
        splits, split_map = survey(source), self._request.work.split_map
        check_split_map(split_map, splits)
        total = splits.total()
        shown: list[tuple[bytes, bytes]] = []

        def on_item(number: int, item: DatasetItem) -> None:
            collector.add(item.labels, item.instances)
            if _is_shown(number - 1, total):
                shown.append(_thumbs(item, source))
            self._channel.report("progress", done=number, total=total)

        shards = write_items(
            source,
            findings,
            store,
            run,
            self._request.folder,
            split_map,
            max_pixels=self._request.max_pixels,
            on_item=on_item,
        )
        report = findings.report(source.format)
        report_json = report.model_dump_json().encode()
        if not report.items:
            put_once(store, layout.report(run), report_json)
            raise InvalidDataset(
                f"no pair of an image and its mask could be read: {_faults(report)}{_first_fault(report)}. The report "
                "names the files",
                skipped=report.skipped,
            )
        statistics, work = collector.result(), self._request.work
        objects: dict[ObjectName, StoredObject] = {
            "report": put_attempt(store, layout.report(run), report_json),
            "statistics": put_attempt(store, layout.statistics(run), statistics.model_dump_json().encode()),
            "picture": put_attempt(
                store, layout.statistics_chart(run), _png(draw_statistics(statistics, title=work.id))
            ),
            "preview": put_attempt(store, layout.preview(run), self._preview(shown)),
        }
        described = describe(source, findings, shards, name=work.name, version=work.version)
        about = described.model_copy(update={"objects": objects})
        return ImportResult(files=files, faults=_faults(report), about=about)

    def _preview(self, shown: list[tuple[bytes, bytes]]) -> bytes:
        twins = []
        for number, files in enumerate(shown[:_PREVIEW_ITEMS]):
            paths = [self._request.folder / f"{number}-{what}.png" for what in ("image", "mask")]
            for path, data in zip(paths, files, strict=True):
                path.write_bytes(data)
            twins.append(SheetTwin(paths[0], paths[1], ""))
        classes = [
            ClassEntry(index=each.index, name=each.name, colour=each.colour) for each in self._source.classes.classes
        ]
        sheet = draw_contact_sheet(
            twins, classes, title=self._request.work.id, subtitle="as imported", ignored="ignore"
        )
        return _png(sheet)


def _faults(report: ReadReport) -> str:
    return (
        ", ".join(f"{group.count} {group.kind.replace('_', ' ')}" for group in report.faults if group.skipped)
        or "there is none"
    )


def _first_fault(report: ReadReport) -> str:
    """The first file that was left out, and why, in brackets."""
    first = next((group.first[0] for group in report.faults if group.skipped and group.first), None)
    return "" if first is None else f" ({first.file}: {first.detail})"


def _is_shown(position: int, total: int) -> bool:
    """Whether the preview shows the item; those shown are spread evenly over the dataset."""
    return position % max(1, total // _PREVIEW_ITEMS) == 0


def _thumbs(item: DatasetItem, source: DatasetSource) -> tuple[bytes, bytes]:
    """Image and mask as small PNGs."""
    with open_image_file(item.image_bytes) as file:
        # these are reduced as they are, for a copy of a large image takes much memory
        image = file if file.mode in ("RGB", "L") else as_rgb(file)
        image.thumbnail((_THUMB_PX, _THUMB_PX), Image.Resampling.LANCZOS)
        image = image.convert("RGB")
    mask = Image.fromarray(item.labels).resize(image.size, Image.Resampling.NEAREST)
    return _png(image), encode_mask(np.array(mask), source.classes.colours, {})


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
