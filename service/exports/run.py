"""A resumable export into the object store: it may be interrupted anywhere and resumed, by this process or another.

Files are uploaded as they become whole: shards of WebDataset and Hugging Face, zip parts of every other format. A
checkpoint follows each finished file, and the next run starts from the last one. The same sources and options give the
same bytes, however often the export was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from service import __version__
from service.datasets.items import DatasetItem
from service.datasets.writing.about import ExportAbout
from service.datasets.writing.card import CardTally, dataset_card
from service.datasets.writing.formats import format_writer
from service.datasets.writing.manifest import MANIFEST, manifest_line
from service.datasets.writing.mapping import class_mapping
from service.datasets.writing.notes import export_notes
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import Preparer
from service.datasets.writing.splitting import BETWEEN_SPLITS
from service.datasets.writing.state import WriterState
from service.datasets.writing.zip_parts import ZipParts
from service.errors import InvalidDataset
from service.exports.checkpoints import Checkpoints
from service.exports.location import ExportLocation, ExportResult, StoredFile, canonical
from service.exports.sources import MixIterator, StoredMix
from service.exports.uploader import Uploader
from service.kit.output_file import ExportFile, Spool
from service.store.base import MAX_OBJECT_BYTES
from service.store.immutable import put_once

_CARD = "README.md"


class ExportStopped(Exception):
    """The export was asked to stop; its uploaded files stay, and the next run resumes from the last checkpoint."""


@dataclass
class ExportProgress:
    """The progress of a run, one object that changes while it runs.

    ``done`` of ``total`` items are finished, written or skipped. ``files`` with ``bytes`` in all are whole, and in the
    store or queued for it.
    """

    done: int
    total: int
    items: dict[str, int]
    skipped: dict[str, int]
    files: int
    bytes: int


def run_export(
    mix: StoredMix,
    options: ExportOptions,
    about: ExportAbout,
    location: ExportLocation,
    *,
    on_progress: Callable[[ExportProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    scratch: Path,
) -> ExportResult:
    """Writes the export to its location, from the last checkpoint there; returns at once if it is already whole.

    ``on_progress`` and ``should_stop`` are called at every item. ``scratch`` is a folder for this run alone, for the
    open shards, the manifest and the files written last; on the file system of a FolderStore it saves copying. Items
    that cannot be written are skipped and counted. The mix selects and renames classes; options that name classes too
    must name the same.

    Raises ExportStopped, InvalidDataset if no item can be written, or none of the real ones, MissingExtra, OSError if
    ``scratch`` is full, or what the store raises.
    """
    if (whole := location.read_result()) is not None:
        return whole
    with closing(_Run(mix, options, about, location, scratch)) as run:
        run.write_items(on_progress, should_stop)
        return run.finish(should_stop)


def clean_up(location: ExportLocation) -> None:
    """Deletes the checkpoints of an export that has ended, and files of a whole one that its result does not count.

    Raises what the store raises; it may then be called again.
    """
    for info in list(location.store.list(location.checkpoints_prefix)):
        location.store.delete(info.key)
    result = location.read_result()
    if result is None:
        return
    counted = {location.key_of(file) for file in location.read_files()}
    counted.add(location.index if result.index is None else result.index.key)
    for prefix in (location.files_prefix, location.indexes_prefix):
        for info in list(location.store.list(prefix)):
            if info.key not in counted:
                location.store.delete(info.key)


class _Run:
    """One run of an export, from the last checkpoint to the result."""

    def __init__(
        self, mix: StoredMix, options: ExportOptions, about: ExportAbout, location: ExportLocation, scratch: Path
    ) -> None:
        self._options = _without_classes(options, mix)
        self._about, self._location = about, location
        mapping = class_mapping(mix.classes, self._options)
        self._classes = mapping.classes
        self._writer = format_writer(self._classes, self._options, scratch)
        self._zip_parts = None if self._writer.sharded else ZipParts(self._options, scratch)
        self._tally = CardTally()
        self._uploader = Uploader(location.store, scratch)
        self._checkpoints = Checkpoints(location, _fingerprint(mix, self._options), scratch, self._uploader)
        saved = self._checkpoints.load()
        stems = None if saved else Spool(scratch)
        self._prepare = Preparer(mapping, self._options, self._writer.replaced, stems, per_split=self._writer.per_split)
        self._manifest = Spool(scratch) if saved is None else saved["progress"].spools["manifest"]
        self._index = Spool(scratch) if saved is None else saved["progress"].spools["files"]
        self._items = MixIterator(mix, scratch, None if saved is None else saved["items"])
        self.progress = ExportProgress(0, mix.count(), {"real": 0, "synthetic": 0}, {}, 0, 0)
        if saved is not None:
            self._writer.restore(saved["writer"])
            self._prepare.restore(saved["preparer"])
            self._tally.restore(saved["tally"])
            if self._zip_parts is not None:
                self._zip_parts.restore(saved["zip_parts"])
            self.progress = ExportProgress(**{**saved["progress"].values, "total": mix.count()})

    def write_items(self, on_progress: Callable[[ExportProgress], None], should_stop: Callable[[], bool]) -> None:
        """Writes all remaining items, with a checkpoint after each finished file."""
        progress = self.progress
        on_progress(progress)
        for item in self._items:
            self._check_stop(should_stop)
            files = progress.files
            if item is None or not self._write(item):
                progress.skipped = self._items.skipped.counts
            progress.done += 1
            if progress.files > files:
                self._checkpoints.save(self._states())
            on_progress(progress)

    def finish(self, should_stop: Callable[[], bool]) -> ExportResult:
        """Writes the last files, the manifest, the card, the list of files and the result."""
        progress = self.progress
        if not sum(progress.items.values()):
            counted = ", ".join(f"{count} {reason}" for reason, count in self._items.skipped.counts.items())
            raise InvalidDataset(f"there is no pair to export{f'; skipped: {counted}' if counted else ''}")
        self._items.skipped.check_real(progress.items["real"])
        for file in self._last_files():
            self._check_stop(should_stop)
            self._put(file)
        index = self._uploader.upload(self._location.index, self._index.as_file(""))
        result = ExportResult(
            items=dict(progress.items),
            splits=self._tally.splits(),
            skipped=self._items.skipped.counts,
            skipped_details=self._items.skipped.groups(),
            notes=tuple(export_notes(self._options, self._tally.splits(), self._tally.renamed)),
            files=progress.files,
            bytes=progress.bytes,
            index=index,
        )
        self._uploader.flush()
        if put_once(self._location.store, self._location.result, canonical(result.model_dump(mode="json"))):
            return result
        # another worker, presumed dead or presuming this one dead, has finished the export: its files count
        return self._location.read_result() or result

    def close(self) -> None:
        """Waits for pending uploads, and frees the disk."""
        self._uploader.close()
        self._writer.close()
        self._items.close()
        self._prepare.close()
        if self._zip_parts is not None:
            self._zip_parts.close()
        for spool in (self._manifest, self._index):
            spool.close()

    def _write(self, item: DatasetItem) -> bool:
        """Writes or skips an item; returns whether it was written."""
        prepared = None
        try:
            prepared = self._prepare(item)
            for file in self._writer.add(prepared):
                self._pack(file)
        except InvalidDataset as error:
            if prepared is not None:
                self._prepare.discard(prepared)
            self._tally.between_splits += error.extra.get("reason") == BETWEEN_SPLITS
            self._items.skipped.add_fault(item, error)
            return False
        for part in self._zip_parts.end_item() if self._zip_parts is not None else ():
            self._put(part)
        self._manifest.write(manifest_line(prepared))
        self._tally.add(prepared)
        self.progress.items[item.source] += 1
        return True

    def _check_stop(self, should_stop: Callable[[], bool]) -> None:
        if should_stop():
            self._uploader.flush()
            raise ExportStopped

    def _pack(self, file: ExportFile) -> None:
        """Uploads a file of a sharded format; adds one of another format to the open zip part."""
        if self._zip_parts is None:
            self._put(file)
        else:
            self._zip_parts.add(file)

    def _last_files(self) -> Iterator[ExportFile]:
        """The files that are written after the last item."""
        card = dataset_card(
            self._about, self._classes, self._options, self._tally, self._writer.layout(), self._writer.front_matter()
        )
        readme = ExportFile.of(_CARD, card.encode("utf-8", "backslashreplace"))
        manifest = self._manifest.as_file(MANIFEST)
        if self._zip_parts is None:
            yield from self._writer.finish()
        else:
            for file in chain(self._writer.finish(), (manifest, readme)):
                self._zip_parts.add(file)
                yield from self._zip_parts.pop_full()
            yield from self._zip_parts.finish()
        yield manifest
        yield readme

    def _put(self, file: ExportFile) -> None:
        """Uploads a whole file and adds it to the index. Raises InvalidDataset for one too large for a store."""
        if file.size > MAX_OBJECT_BYTES:
            raise InvalidDataset(
                f"{file.path} would have {file.size} bytes; an object has at most {MAX_OBJECT_BYTES}. Export fewer "
                "items at a time, or use webdataset, where no file but the manifest grows with the number of items"
            )
        uploaded = self._uploader.upload(f"{self._location.files_prefix}{file.path}", file)
        stored = StoredFile(path=file.path, bytes=file.size, sha256=uploaded.sha256, key=uploaded.key)
        self._index.write(canonical(stored.model_dump()) + b"\n")
        self.progress.files += 1
        self.progress.bytes += file.size

    def _states(self) -> dict[str, WriterState]:
        states = {
            "items": self._items.state(),
            "writer": self._writer.state(),
            "preparer": self._prepare.state(),
            "tally": self._tally.state(),
            "progress": WriterState(asdict(self.progress), {"manifest": self._manifest, "files": self._index}),
        }
        return states if self._zip_parts is None else {**states, "zip_parts": self._zip_parts.state()}


def _without_classes(options: ExportOptions, mix: StoredMix) -> ExportOptions:
    """The options without the class mapping, which the mix has already applied.

    Raises ValueError if the options name another mapping than the mix.
    """
    mappings = {
        "classes": (options.classes, mix.keep),
        "rename": (options.rename, mix.rename),
        "dropped": (options.dropped, mix.dropped),
    }
    if wrong := next((name for name, (wanted, actual) in mappings.items() if wanted and wanted != actual), None):
        raise ValueError(
            f"the options ask for {wrong} {mappings[wrong][0]!r}, but the mix was made with {mappings[wrong][1]!r}; "
            "give both the same"
        )
    return options.model_copy(update={"classes": None, "rename": {}, "dropped": None})


def _fingerprint(mix: StoredMix, options: ExportOptions) -> str:
    """A hash of everything two runs must share for one to resume the other: code version, options and sources."""
    return hashlib.sha256(canonical([__version__, options.model_dump(mode="json"), mix.describe()])).hexdigest()
