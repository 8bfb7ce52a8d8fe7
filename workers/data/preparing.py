"""Any dataset as a stored one on this machine, made once: what training and evaluation read.

A folder or archive is imported as a server does it, item by item with a report, into ``prepared/`` of the data folder
(``TWINSET_DATA_DIR``). The copy is named by the files' paths, sizes and times, so that the next training starts at
once, and an edited dataset is read anew. Old copies go by themselves (:mod:`workers.data.prepared_copies`).
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from service import __version__
from service.cli.sources import plain_name
from service.datasets.items import DatasetItem
from service.datasets.reading.checking import survey
from service.datasets.reading.entry import DatasetSource
from service.datasets.reading.images import FORMAT as IMAGES
from service.datasets.reading.images import ImagesSource
from service.datasets.reading.levels import Levels
from service.datasets.reading.opening import detect_format, open_dataset
from service.datasets.reading.report import Findings, ReadReport
from service.datasets.reading.tree import dataset_root
from service.datasets.reading.unpacking import unpack
from service.datasets.stored import layout
from service.datasets.stored.dataset import StoredDataset, report_key
from service.datasets.stored.importing import describe, write_items
from service.errors import TwinsetError
from service.kit.run_kinds import RunKind, new_run_id
from service.kit.tenants import DEFAULT_TENANT
from service.runs.dataset_versions import Datasets, is_dataset_name
from service.runs.repository import RunRepository
from service.settings import Settings
from service.store.folder import FolderStore
from service.store.immutable import put_once
from service.store.opening import open_store
from workers.data.listings import DatasetInvalid, split_listings
from workers.data.prepared_copies import PART, WRITTEN, delete_old, preparing, use

_FORMAT = 2
"""Of a prepared copy; another one is made anew."""


class _About(BaseModel):
    """What ``prepared.json`` holds beside the stored dataset."""

    model_config = ConfigDict(frozen=True)

    run: str
    source: str
    listings: dict[str, tuple[str, ...]]
    report: ReadReport


@dataclass(frozen=True)
class OpenDataset:
    """Opens a stored dataset, in any process: of a prepared copy in ``root``, or of the store of the settings."""

    run: str
    root: Path | None = None
    settings: Settings | None = None

    def __call__(self) -> StoredDataset:
        if self.root is not None:
            return StoredDataset.open(_folder_store(self.root), self.run)
        return StoredDataset.open(open_store(self.settings or Settings()), self.run)


@dataclass(frozen=True)
class PreparedDataset:
    """A stored dataset with its report, the lists of its splits, and a folder for what is derived from it."""

    open_dataset: OpenDataset
    report: ReadReport
    listings: dict[str, tuple[str, ...]]
    scratch: Path | None

    def notices(self, source: str) -> Iterator[str]:
        """What was found in the dataset, as ``datasets check`` says it: by kind, with the first file of each."""
        for group in self.report.faults:
            if self.report.format == IMAGES and group.kind == "missing_partner":
                continue
            first = group.first[0]
            done = "left out" if group.skipped else "read"
            yield (
                f"{source}: {group.count} {group.kind.replace('_', ' ')}, {done}: {group.meaning}. "
                f"First: {first.file}: {first.detail}"
            )


def prepare(
    source: Path | str,
    *,
    images_only: bool = False,
    window: Levels | None = None,
    settings: Settings | None = None,
    tenant: str = DEFAULT_TENANT,
) -> PreparedDataset:
    """The dataset in a folder or archive, or the stored ``name`` or ``name@version``.

    ``images_only`` reads images that have no mask too; ``window`` says which levels of more than 8 bits are black and
    white, and without it 16-bit images that would come out nearly black are refused. Raises
    :class:`DatasetInvalid` if nothing of it can be read.
    """
    settings, path = settings or Settings(), Path(source)
    levels = replace(window or Levels(), strict=True)
    with dataset_faults(str(source)):
        if not path.exists():
            if window is not None and is_dataset_name(str(source).partition("@")[0]):
                raise DatasetInvalid(
                    f"the levels of {source} became black and white when it was pushed to the store, so --window "
                    f"{window.low:g},{window.high:g} comes too late; give the folder or archive that was pushed"
                )
            return _stored(str(source), settings, tenant)
        cache = settings.data_dir / "prepared"
        copy = cache / f"{plain_name(path)[:40]}-{_fingerprint(path, images_only, levels)}"
        cache.mkdir(parents=True, exist_ok=True)
        while not use(copy):
            # the processes of a training on several GPUs start together: one prepares, the others wait for it
            with preparing(copy):
                if not (copy / WRITTEN).is_file():
                    _import(path, copy, images_only, levels)
                    _free_memory()
            if not use(copy):
                continue
            for old in delete_old(cache, settings.prepared_max_gb * 10**9):
                tqdm.write(f"deleted {old}, a copy of a dataset that was not used lately", file=sys.stderr)
        about = _About.model_validate_json((copy / WRITTEN).read_bytes())
        return PreparedDataset(OpenDataset(about.run, copy), about.report, about.listings, copy / "decoded")


@contextmanager
def dataset_faults(what: str) -> Iterator[None]:
    """Turns the errors of reading a dataset into :class:`DatasetInvalid` that names it."""
    try:
        yield
    except TwinsetError as error:
        raise DatasetInvalid(f"{what}: {error.detail}") from None


def _stored(reference: str, settings: Settings, tenant: str) -> PreparedDataset:
    name = reference.partition("@")[0]
    if not is_dataset_name(name):
        raise DatasetInvalid(
            f"{reference} does not exist; a dataset is a folder, a zip or tar of one, or NAME@VERSION of one that was "
            "pushed to the store (TWINSET_STORE_URL)"
        )
    store = open_store(settings)
    try:
        dataset = Datasets(RunRepository(store), tenant).ready(reference)
    except TwinsetError as error:
        raise DatasetInvalid(
            f"{reference} is no file or folder, and in the store {settings.store_url} the {error.detail}"
        ) from None
    report = ReadReport.model_validate_json(store.get(report_key(store, dataset.run)))
    return PreparedDataset(OpenDataset(dataset.run, settings=settings), report, {}, None)


def _import(path: Path, copy: Path, images_only: bool, levels: Levels) -> None:
    """Imports a folder or archive into ``copy``, which is there whole or not at all."""
    part = copy.with_name(copy.name + PART)
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        fresh, scratch = part / "copy", part / "scratch"
        scratch.mkdir(parents=True)
        folder = path
        if not path.is_dir():
            folder = scratch / plain_name(path)
            unpack(path, folder)
        opened = _open(folder, images_only, levels)
        listings = split_listings(dataset_root(folder)) if opened.format in ("folders", IMAGES) else {}
        run, findings = new_run_id(RunKind.DATASET), Findings()
        store = _folder_store(fresh)
        with closing(tqdm(total=survey(opened).total(), desc="preparing", unit="item", disable=None)) as bar:

            def on_item(number: int, item: DatasetItem) -> None:
                bar.update()

            shards = write_items(opened, findings, store, run, scratch, {}, levels=levels, on_item=on_item)
        report = findings.report(opened.format)
        if not report.items:
            raise DatasetInvalid(f"no item of {path} can be read: {_first_faults(report)}")
        about = describe(opened, findings, shards, name=plain_name(path), version=1)
        put_once(store, layout.about(run), about.model_dump_json().encode())
        known = _About(run=run, source=str(path.absolute()), listings=listings, report=report)
        (fresh / WRITTEN).write_text(known.model_dump_json(), encoding="utf-8")
        shutil.rmtree(copy, ignore_errors=True)
        fresh.rename(copy)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _open(folder: Path, images_only: bool, levels: Levels) -> DatasetSource:
    """The dataset in its format; of images alone, folders are read with those that have no mask."""
    if images_only and detect_format(dataset_root(folder)) in (None, "folders"):
        return ImagesSource(dataset_root(folder))
    return open_dataset(folder, levels=levels)


def _first_faults(report: ReadReport) -> str:
    first = [f"{fault.file}: {fault.detail}" for group in report.faults for fault in group.first[:1] if group.skipped]
    return "; ".join(first) or "there is no image with a mask"


def _fingerprint(path: Path, images_only: bool, levels: Levels) -> str:
    """Digits that change with any file of the dataset, by path, size and times, and with the version of the readers."""
    found = hashlib.sha256(repr((__version__, _FORMAT, images_only, levels)).encode())
    for file in [path] if path.is_file() else _files(path):
        # links in a dataset are not followed, but it may itself be one
        state = file.stat() if file == path else file.lstat()
        name = file.name if file == path else file.relative_to(path).as_posix()
        found.update(repr((name, state.st_size, state.st_mtime_ns, state.st_ctime_ns)).encode())
    return found.hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent) / name for name in sorted(names))


def _folder_store(root: Path) -> FolderStore:
    return FolderStore(root, link_secret=b"", public_url="http://localhost")


def _free_memory() -> None:
    """Returns what the import has freed to the system, where the C library is glibc: training needs the room."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
