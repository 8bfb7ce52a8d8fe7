"""An export into the object store that may be cut at any point and gone on with, by this process or another.

Files are put as they become whole: shards of WebDataset and Hugging Face, zip parts of every other format. Behind each
finished one a checkpoint is written; the next run starts from the last. The same sources and options give the same
bytes, however often the export was cut.
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
from service.datasets.stored.dataset import Absent
from service.datasets.writing.about import ExportAbout
from service.datasets.writing.card import CardTally, dataset_card
from service.datasets.writing.formats import format_writer
from service.datasets.writing.manifest import MANIFEST, manifest_line
from service.datasets.writing.mapping import class_mapping
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import Preparing
from service.datasets.writing.skipped import LeftOut, LeftOutGroup
from service.datasets.writing.splitting import BETWEEN_SPLITS
from service.datasets.writing.state import WriterState
from service.datasets.writing.zip_parts import ZipParts
from service.errors import InvalidDataset
from service.exports.checkpoints import Checkpoints
from service.exports.location import (
    ExportResult,
    StoredFile,
    StorePlace,
    canonical,
)
from service.exports.sources import StoredMix, StoredSource, Walk
from service.exports.uploader import Sender
from service.kit.output_file import ExportFile, Spool
from service.store.base import MAX_OBJECT_BYTES

__all__ = [
    "Absent", "ExportProgress", "ExportResult", "ExportStopped", "LeftOut", "LeftOutGroup", "StorePlace", "StoredFile", "StoredMix",
    "StoredSource", "clean", "run_export",
]  # fmt: skip
_CARD = "README.md"


class ExportStopped(Exception):
    """The export was asked to stop. What is whole stays; called again, it goes on from its last checkpoint."""


@dataclass
class ExportProgress:
    """How far an export is: the one object of a run, which goes on changing.

    ``done`` of ``total`` items have been looked at, written and left out ones alike; ``files`` of so many ``bytes`` are
    whole, and in the store or on their way there.
    """

    done: int
    total: int
    items: dict[str, int]
    left_out: dict[str, int]
    files: int
    bytes: int


def run_export(
    mix: StoredMix,
    options: ExportOptions,
    about: ExportAbout,
    place: StorePlace,
    *,
    on_progress: Callable[[ExportProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    scratch: Path,
) -> ExportResult:
    """Writes the export to its place, from the last checkpoint there on; returns at once where it is whole already.

    ``on_progress`` is called, and ``should_stop`` asked, at every item. ``scratch`` is a folder of this run alone for
    what is gathered on disk: the open shards, the manifest, and what comes at the end; on the file system of a
    FolderStore it saves copying. Items that cannot be written are left out and counted. Classes are chosen and renamed
    by the mix; where the options name them too, they must be the same.

    Raises ExportStopped, InvalidDataset where no item is left to write, MissingExtra, OSError where ``scratch`` takes
    no more, or what the store raises.
    """
    if (whole := place.read_result()) is not None:
        return whole
    with closing(_Run(mix, options, about, place, scratch)) as run:
        run.write_items(on_progress, should_stop)
        return run.finish(should_stop)


def clean(place: StorePlace) -> None:
    """Removes the checkpoints of an export that has ended, one way or another, and of a whole one the files that are
    not of its list.

    Raises what the store raises; then it may be called again.
    """
    for info in list(place.store.list(place.checkpoints_prefix)):
        place.store.delete(info.key)
    if place.read_result() is None:
        return
    listed = {place.file(file.path) for file in place.read_files()}
    for info in list(place.store.list(place.files_prefix)):
        if info.key not in listed:
            place.store.delete(info.key)


class _Run:
    """One run, from the last checkpoint on."""

    def __init__(
        self, mix: StoredMix, options: ExportOptions, about: ExportAbout, place: StorePlace, scratch: Path
    ) -> None:
        self._options = _without_classes(options, mix)
        self._about, self._place = about, place
        mapping = class_mapping(mix.classes, self._options)
        self._classes = mapping.classes
        self._writer = format_writer(self._classes, self._options, scratch)
        self._parts = None if self._writer.sharded else ZipParts(self._options, scratch)
        self._tally = CardTally()
        self._sender = Sender(place.store, scratch)
        self._checkpoints = Checkpoints(place, _fingerprint(mix, self._options), scratch, self._sender)
        taken = self._checkpoints.load()
        states = taken or {}
        stems = None if taken else Spool(scratch)
        self._prepare = Preparing(mapping, self._options, self._writer.replaced, stems)
        self._manifest = Spool(scratch) if taken is None else taken["lists"].spools["manifest"]
        self._index = Spool(scratch) if taken is None else taken["lists"].spools["files"]
        self._walk = Walk(mix, scratch, states.get("walk"))
        self.progress = ExportProgress(0, mix.count(), {"real": 0, "synthetic": 0}, {}, 0, 0)
        if taken is not None:
            self._writer.restore(taken["writer"])
            self._prepare.restore(taken["names"])
            self._tally.restore(taken["tally"])
            if self._parts is not None:
                self._parts.restore(taken["parts"])
            self.progress = ExportProgress(**{**taken["lists"].values, "total": mix.count()})

    def write_items(self, on_progress: Callable[[ExportProgress], None], should_stop: Callable[[], bool]) -> None:
        """All items that are not written yet."""
        progress = self.progress
        on_progress(progress)
        for item in self._walk:
            self._look(should_stop)
            files = progress.files
            if item is None or not self._write(item):
                progress.left_out = self._walk.left_out.counts
            progress.done += 1
            if progress.files > files:
                self._checkpoints.save(self._states())
            on_progress(progress)

    def finish(self, should_stop: Callable[[], bool]) -> ExportResult:
        """What comes at the end: the files that wait for it, the manifest, the card, the list of files."""
        progress = self.progress
        if not sum(progress.items.values()):
            counted = ", ".join(f"{count} {reason}" for reason, count in self._walk.left_out.counts.items())
            raise InvalidDataset(f"there is no pair to export{f'; left out were: {counted}' if counted else ''}")
        for file in self._last_files():
            self._look(should_stop)
            self._put(file)
        self._sender.send(self._place.index, self._index.as_file(""))
        result = ExportResult(
            items=dict(progress.items),
            splits=self._tally.splits(),
            left_out=self._walk.left_out.counts,
            left_out_first=self._walk.left_out.groups(),
            files=progress.files,
            bytes=progress.bytes,
        )
        self._sender.send(self._place.result, ExportFile.of("", canonical(result.model_dump(mode="json"))))
        self._sender.flush()
        return result

    def close(self) -> None:
        """Waits for what is on its way to the store, and frees the disk."""
        self._sender.close()
        self._writer.close()
        self._walk.close()
        self._prepare.close()
        if self._parts is not None:
            self._parts.close()
        for spool in (self._manifest, self._index):
            spool.close()

    def _write(self, item: DatasetItem) -> bool:
        """Writes an item, or leaves it out; whether it was written."""
        prepared = None
        try:
            prepared = self._prepare(item)
            for file in self._writer.add(prepared):
                self._take(file)
        except InvalidDataset as error:
            if prepared is not None:
                self._prepare.take_back(prepared)
            reason = error.extra.get("reason", "")
            self._tally.between_splits += reason == BETWEEN_SPLITS
            self._walk.left_out.add(reason, item.name, error.detail)
            return False
        for part in self._parts.item_ends() if self._parts is not None else ():
            self._put(part)
        self._manifest.write(manifest_line(prepared))
        self._tally.add(prepared)
        self.progress.items[item.source] += 1
        return True

    def _look(self, should_stop: Callable[[], bool]) -> None:
        if should_stop():
            self._sender.flush()
            raise ExportStopped

    def _take(self, file: ExportFile) -> None:
        if self._parts is None:
            self._put(file)
        else:
            self._parts.add(file)

    def _last_files(self) -> Iterator[ExportFile]:
        """The files that go to the store at the end."""
        card = dataset_card(
            self._about, self._classes, self._options, self._tally, self._writer.layout(), self._writer.front_matter()
        )
        readme = ExportFile.of(_CARD, card.encode("utf-8", "backslashreplace"))
        manifest = self._manifest.as_file(MANIFEST)
        if self._parts is None:
            yield from self._writer.finish()
        else:
            for file in chain(self._writer.finish(), (manifest, readme)):
                self._parts.add(file)
                yield from self._parts.file_ends()
            yield from self._parts.finish()
        yield manifest
        yield readme

    def _put(self, file: ExportFile) -> None:
        """Sends a whole file to the store, and notes it. Raises InvalidDataset for one that no store takes."""
        if file.size > MAX_OBJECT_BYTES:
            raise InvalidDataset(
                f"{file.path} would have {file.size} bytes, and an object has {MAX_OBJECT_BYTES} at most; export fewer items at a "
                "time, or as webdataset, whose shards have no file that grows with all of them but the manifest"
            )
        digest = file.digest()
        self._sender.send(self._place.file(file.path), file)
        noted = StoredFile(path=file.path, bytes=file.size, sha256=digest)
        self._index.write(canonical(noted.model_dump()) + b"\n")
        self.progress.files += 1
        self.progress.bytes += file.size

    def _states(self) -> dict[str, WriterState]:
        states = {
            "walk": self._walk.state(),
            "writer": self._writer.state(),
            "names": self._prepare.state(),
            "tally": self._tally.state(),
            "lists": WriterState(asdict(self.progress), {"manifest": self._manifest, "files": self._index}),
        }
        return states if self._parts is None else {**states, "parts": self._parts.state()}


def _without_classes(options: ExportOptions, mix: StoredMix) -> ExportOptions:
    """The options for items of the mix, whose classes are chosen and renamed already. Raises ValueError where they ask
    for others."""
    asked = {
        "classes": (options.classes, mix.keep),
        "rename": (options.rename, mix.rename),
        "dropped": (options.dropped, mix.dropped),
    }
    if wrong := next((name for name, (wanted, made) in asked.items() if wanted and wanted != made), None):
        raise ValueError(
            f"the options ask for {wrong} {asked[wrong][0]!r}, and the mix was made with {asked[wrong][1]!r}; make it so"
        )
    return options.model_copy(update={"classes": None, "rename": {}, "dropped": None})


def _fingerprint(mix: StoredMix, options: ExportOptions) -> str:
    """What two runs must have in common for one to go on where the other stopped; the code is part of it."""
    return hashlib.sha256(canonical([__version__, options.model_dump(mode="json"), mix.describe()])).hexdigest()
