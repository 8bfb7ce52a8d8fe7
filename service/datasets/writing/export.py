"""The export pipeline: items in, the files of a format out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.writing.about import ExportAbout
from service.datasets.writing.base import FormatWriter
from service.datasets.writing.card import CardTally, dataset_card
from service.datasets.writing.formats import format_writer
from service.datasets.writing.manifest import MANIFEST, manifest_line
from service.datasets.writing.mapping import class_mapping
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import PreparedItem, Preparer
from service.datasets.writing.splitting import BETWEEN_SPLITS
from service.errors import InvalidDataset
from service.kit.output_file import ExportFile, Spool

ItemWritten = Callable[[PreparedItem], None]


def export_files(
    items: Iterable[DatasetItem],
    classes: ClassList,
    options: ExportOptions,
    about: ExportAbout | None = None,
    *,
    on_item: ItemWritten | None = None,
    scratch: Path | None = None,
) -> Iterator[ExportFile]:
    """The files of an export, in a fixed order; each must be consumed before the next is requested.

    The format's files come first, then ``manifest.jsonl`` and ``README.md``. ``on_item`` is called after each item, for
    progress. ``scratch`` is the folder for temporary files; by default it is the system's. On the file system of a
    FolderSink's folder it saves copying; a killed export leaves ``.export-*.part`` in it. An item whose mask was merged
    from masks of several splits is skipped, and counted on the card. One item is in memory at a time. Raises
    InvalidDataset naming the item that cannot be written, or the option that cannot be met, and MissingExtra if the
    format needs packages that are not installed.
    """
    mapping = class_mapping(classes, options)
    writer = format_writer(mapping.classes, options, scratch)
    prepare = Preparer(mapping, options, writer.replaced)
    return _files(items, prepare, writer, mapping.classes, options, about or ExportAbout(), on_item, Spool(scratch))


def _files(
    items: Iterable[DatasetItem],
    prepare: Preparer,
    writer: FormatWriter,
    classes: ClassList,
    options: ExportOptions,
    about: ExportAbout,
    on_item: ItemWritten | None,
    manifest: Spool,
) -> Iterator[ExportFile]:
    tally = CardTally()
    with manifest:
        try:
            for item in items:
                try:
                    prepared = prepare(item)
                except InvalidDataset as error:
                    if error.extra.get("reason") != BETWEEN_SPLITS:
                        raise
                    tally.between_splits += 1
                    continue
                yield from writer.add(prepared)
                manifest.write(manifest_line(prepared))
                tally.add(prepared)
                if on_item is not None:
                    on_item(prepared)
            yield from writer.finish()
            yield manifest.as_file(MANIFEST)
            card = dataset_card(about, classes, options, tally, writer.layout(), writer.front_matter())
            yield ExportFile.of("README.md", card.encode("utf-8", "backslashreplace"))
        finally:
            writer.close()
