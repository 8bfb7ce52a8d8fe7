"""The export pipeline: items in, the files of a format out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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
from service.datasets.writing.skipped import SkippedItems
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
    skipped: SkippedItems | None = None,
) -> Iterator[ExportFile]:
    """The files of an export, in a fixed order; each must be consumed before the next is requested.

    The format's files come first, then ``manifest.jsonl`` and ``README.md``. ``on_item`` is called after each item, for
    progress. ``scratch`` is the folder for temporary files; by default it is the system's. On the file system of a
    FolderSink's folder it saves copying; a killed export leaves ``.export-*.part`` in it. Items that cannot
    be written are skipped and go to ``skipped``. One item is in memory at a time. Raises InvalidDataset naming the
    option that cannot be met, or, without ``skipped``, an item that cannot be written (one whose mask was merged from
    masks of several splits is left out); and MissingExtra if the format needs packages that are not installed.
    """
    mapping = class_mapping(classes, options)
    writer = format_writer(mapping.classes, options, scratch)
    prepare = Preparer(mapping, options, writer.replaced, per_split=writer.per_split)
    card = _Card(mapping.classes, options, about or ExportAbout())
    return _files(items, prepare, writer, card, on_item, Spool(scratch), skipped)


@dataclass(frozen=True)
class _Card:
    """What the card says besides the tally."""

    classes: ClassList
    options: ExportOptions
    about: ExportAbout


def _files(
    items: Iterable[DatasetItem],
    prepare: Preparer,
    writer: FormatWriter,
    card: _Card,
    on_item: ItemWritten | None,
    manifest: Spool,
    skipped: SkippedItems | None,
) -> Iterator[ExportFile]:
    tally = CardTally()
    with manifest:
        try:
            for item in items:
                prepared = None
                try:
                    prepared = prepare(item)
                    yield from writer.add(prepared)
                except InvalidDataset as error:
                    between = error.extra.get("reason") == BETWEEN_SPLITS
                    if skipped is None and not between:
                        raise
                    if prepared is not None:
                        prepare.discard(prepared)
                    tally.between_splits += between
                    if skipped is not None:
                        skipped.add_fault(item, error)
                    continue
                manifest.write(manifest_line(prepared))
                tally.add(prepared)
                if on_item is not None:
                    on_item(prepared)
            yield from writer.finish()
            yield manifest.as_file(MANIFEST)
            text = dataset_card(card.about, card.classes, card.options, tally, writer.layout(), writer.front_matter())
            yield ExportFile.of("README.md", text.encode("utf-8", "backslashreplace"))
        finally:
            writer.close()
