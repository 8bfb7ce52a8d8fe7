"""Exports: twins and datasets as one set in the format that a training reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from service.client.client import BaseClient
from service.client.downloading import Came, Download, Fetcher, check_workers, fetch_pages
from service.client.effects import Flow, Request, Work
from service.client.folder import DownloadFolder, RemoteFile
from service.client.paging import Page
from service.client.requests import page_of, posted
from service.client.retries import parse, send
from service.client.runs import ResourceKind, Run, check_end, until_ended
from service.client.unzipping import is_unpacked, unpack_part
from service.client.views import ExportFileInfo, ExportFileInfoPage, ExportInfo, ExportInfoPage
from service.client.wire import path
from service.errors import InvalidRequest

if TYPE_CHECKING:
    from service.client.torch_dataset import Transform, TwinDataset
    from service.datasets.writing.options import Format

EXPORTS = ResourceKind("export", ExportInfo, lambda info: path("exports", info.id), "Exporting", "items")
OWN_SHARDS = frozenset({"webdataset", "huggingface"})
"""Formats whose files are shards that are read as they are; of the others, files are packed into zip parts."""
_EXPORTS_A_PAGE, _FILES_A_PAGE = 100, 500


class HasSource(Protocol):
    """A job, an augmentation or a dataset, of either client."""

    @property
    def source(self) -> dict[str, str]:
        """What an export calls it."""


class ExportRun(Run[ExportInfo]):
    """An export, of either client."""

    kind = EXPORTS


def export(
    client: BaseClient,
    /,
    *,
    sources: Sequence[HasSource | Mapping[str, str]],
    format: Format,
    idempotency_key: str | None = None,
    wait: bool = False,
    progress: bool = True,
    **options: Any,
) -> Flow[ExportInfo]:
    """Writes jobs, augmentations and datasets as one set in a format; the export, accepted.

    ``sources`` are what other calls returned, or ``{"job": id}``, ``{"augmentation": id}``, ``{"dataset":
    "name@version"}``; ``format`` is folders, coco, voc, cityscapes, yolo, huggingface or webdataset. Options go as they
    are: ``splits={"train": 0.9, "val": 0.1}``, ``seed``, ``image_format``, ``classes``, ``rename``, ``dropped``,
    ``polygons``, ``shard_items``, ``shard_bytes``, ``min_confident_share``, ``min_mean_confidence``, ``title``,
    ``name``, ``callback_url``. ``wait`` holds until it has ended. Raises ApiProblem with every fault.
    """
    given = [sources] if isinstance(sources, Mapping) or hasattr(sources, "source") else sources
    chosen = {name: value for name, value in options.items() if value is not None}
    body = {"sources": [_source(one) for one in given], "format": format, **chosen}
    info = parse(ExportInfo, (yield from send(client.config, posted("/exports", body, idempotency_key))))
    if wait:
        info = yield from until_ended(client, EXPORTS, info, progress=progress, timeout=None)
        check_end(EXPORTS, info)
    return info


def find_export(client: BaseClient, id: str) -> Flow[ExportInfo]:
    """The export of this id. Raises ApiProblem of status 404 if there is none of yours."""
    return parse(ExportInfo, (yield from send(client.config, Request("GET", path("exports", id)))))


def exports_page(client: BaseClient, cursor: str | None) -> Flow[Page[ExportInfo]]:
    """Your exports, newest first."""
    page = parse(ExportInfoPage, (yield from send(client.config, page_of("/exports", cursor, _EXPORTS_A_PAGE))))
    return Page(page.exports, page.next_cursor)


def files_page(run: ExportRun, cursor: str | None) -> Flow[Page[ExportFileInfo]]:
    """The export's files, with links that hold for a while."""
    page = parse(
        ExportFileInfoPage, (yield from send(run._client.config, page_of(f"{run.path}/files", cursor, _FILES_A_PAGE)))
    )
    return Page(page.files, page.next_cursor)


def download(run: ExportRun, folder: str | Path, *, workers: int = 8, progress: bool = True) -> Flow[Download]:
    """Waits for the export's end and fetches the set: zip parts are unpacked into the folder, tar and parquet shards
    stay as they are.

    Every file is compared with its sha256, and is there whole or not at all. Called again, also after a kill, it
    fetches what is missing or was changed. The folder must be new, or an earlier download of this export. Raises
    FolderTaken, RunFailed, DownloadRefused for an archive that holds links or leads out of the folder, and
    DownloadFailed naming files that did not come as recorded, once the others are there.
    """
    check_workers(workers)
    client = run._client
    run.info = yield from until_ended(client, EXPORTS, run.info, progress=progress, timeout=None)
    check_end(EXPORTS, run.info)
    place = DownloadFolder(folder, f"export {run.id}")
    yield Work(place.open)
    result = Download(place.root)
    with client.board.bar(progress, "Fetching", "bytes") as bar:
        bar.show(0, run.info.bytes)
        fetcher = Fetcher(client.config, place, bar, counts_bytes=True)
        unpacks = run.info.format not in OWN_SHARDS

        def pages(cursor: str | None) -> Flow[Page[RemoteFile]]:
            page = yield from files_page(run, cursor)
            return Page(
                [RemoteFile(file.path, file.url, file.sha256, file.bytes) for file in page.entries], page.next_cursor
            )

        def fetch_one(file: RemoteFile) -> Flow[Came | str]:
            return _unpacked(fetcher, file) if unpacks and file.path.endswith(".zip") else fetcher.file(file)

        yield from fetch_pages(pages, fetch_one, result, workers=workers)
    result.check()
    return result


def torch_dataset(
    run: ExportRun,
    folder: str | Path,
    *,
    split: str | None = None,
    transform: Transform | None = None,
    workers: int = 8,
    progress: bool = True,
) -> Flow[TwinDataset]:
    """Downloads the set to ``folder``, as :meth:`download` does, and opens it, or one ``split`` of it, for PyTorch.

    Raises InvalidRequest for an export to huggingface, which the package ``datasets`` reads.
    """
    if run.info.format == "huggingface":
        raise InvalidRequest(
            f"export {run.id} has the format huggingface; download it and read it with datasets.load_dataset(folder), or export to "
            "'folders' or 'webdataset'"
        )
    yield from download(run, folder, workers=workers, progress=progress)
    from service.client.torch_dataset import TwinDataset

    opened: TwinDataset = yield Work(lambda: TwinDataset(folder, split=split, transform=transform))
    return opened


def _unpacked(fetcher: Fetcher, file: RemoteFile) -> Flow[Came | str]:
    """A zip part, fetched, compared, unpacked, and removed; or left alone while all it held is there."""
    place = fetcher.folder
    place.target(file.path)
    if (yield Work(lambda: is_unpacked(place, file))):
        fetcher.tell(file.size, done=True)
        return Came.KEPT
    with fetcher.part(file) as part:
        outcome = yield from fetcher.into(part, file)
        if outcome is Came.FETCHED:
            yield Work(lambda: unpack_part(place, file, part.file))
            fetcher.tell(0, done=True)
        return outcome


def _source(one: HasSource | Mapping[str, str]) -> dict[str, str]:
    if isinstance(one, Mapping):
        return dict(one)
    source = getattr(one, "source", None)
    if not isinstance(source, dict):
        raise InvalidRequest(
            f"a source is of type {type(one).__name__}; give a job, an augmentation, a dataset, or {{'job': id}}, "
            "{'augmentation': id}, {'dataset': 'name@version'}"
        )
    return source
