"""The import of a dataset: every item checked, written into shards, and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from service.datasets.items import DatasetItem
from service.datasets.reading.about import read_scene, read_training_data
from service.datasets.reading.checking import read_items
from service.datasets.reading.entry import DatasetSource
from service.datasets.reading.levels import Levels
from service.datasets.reading.report import Findings
from service.datasets.stored.layout import DatasetAbout, ShardAbout
from service.datasets.stored.writer import StoredDatasetWriter
from service.store.base import ObjectStore


def write_items(
    source: DatasetSource,
    findings: Findings,
    store: ObjectStore,
    run: str,
    scratch: Path,
    split_map: Mapping[str, str],
    *,
    max_pixels: int | None = None,
    levels: Levels | None = None,
    on_item: Callable[[int, DatasetItem], None],
) -> tuple[ShardAbout, ...]:
    """Writes the items of a source as those of ``run``, and returns their shards; ``findings`` is then complete.

    ``on_item`` gets the number of items so far, and the item. Raises what :func:`read_items` and the store raise.
    """
    items = read_items(source, findings, split_map, max_pixels=max_pixels, levels=levels or Levels())
    with closing(StoredDatasetWriter(store, run, source.classes, scratch)) as writer:
        for number, item in enumerate(items, start=1):
            writer.add(item)
            on_item(number, item)
        writer.finish()
        return tuple(writer.shards)


def describe(
    source: DatasetSource, findings: Findings, shards: tuple[ShardAbout, ...], *, name: str, version: int
) -> DatasetAbout:
    """The description of a dataset whose items were written, without its other objects."""
    report = findings.report(source.format)
    data, scene = read_training_data(source.root, name), read_scene(source.root)
    return DatasetAbout(
        name=name,
        version=version,
        read_as=source.format,
        title=data.name,
        licence=data.licence,
        classes=source.classes,
        items=report.items,
        skipped=report.skipped,
        shards=shards,
        has_up=scene.has_up,
        metres_per_px=scene.metres_per_px,
    )
