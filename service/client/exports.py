"""Exports: writing twins and datasets as one set in a training format, and downloading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from service.client.client import BaseClient
from service.client.downloading import Download, Fetcher, FetchOutcome, check_workers, fetch_pages
from service.client.effects import Call, Flow, Request
from service.client.folder import DownloadFolder, RemoteFile
from service.client.paging import Page
from service.client.requests import page_request, post_request
from service.client.retries import parse, send
from service.client.runs import ResourceKind, Run, raise_if_failed, wait_until_ended
from service.client.unzipping import is_unpacked, unpack_part
from service.client.views import ExportFileInfo, ExportFileInfoPage, ExportInfo, ExportInfoPage
from service.client.wire import path
from service.errors import InvalidRequest

if TYPE_CHECKING:
    from service.client.torch_dataset import Transform, TwinDataset
    from service.datasets.writing.options import Format

EXPORTS = ResourceKind("export", ExportInfo, lambda info: path("exports", info.id), "Exporting", "items")
SHARD_FORMATS = frozenset({"webdataset", "huggingface"})
"""Formats whose shards are downloaded as they are; sets in other formats are packed into zip parts."""
_EXPORTS_PER_PAGE, _FILES_PER_PAGE = 100, 500


class HasSource(Protocol):
    """A source of an export: a job, an augmentation or a dataset of either client."""

    @property
    def source(self) -> dict[str, str]:
        """The source as the API names it, such as ``{"job": id}``."""


class BaseExport(Run[ExportInfo]):
    """Base class of :class:`Export` and :class:`AsyncExport`."""

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
    """Starts an export that writes jobs, augmentations and datasets as one set in a format, and returns it. Example::

        export = client.export(sources=[tiles, job], format="coco", splits={"train": 0.9, "val": 0.1}, wait=True)
        export.download("mixed")

    ``sources``: jobs, augmentations and datasets of this client, or ``{"job": id}``, ``{"augmentation": id}``,
    ``{"dataset": "name@version"}``. ``format``: folders, coco, voc, cityscapes, yolo, huggingface or webdataset.
    ``idempotency_key``: calls with the same key return the same export. ``wait``: wait until it has ended, with a bar
    if ``progress``. ``options`` are further members of ``POST /exports``: ``splits``, ``seed``, ``split_map``,
    ``image_format``, ``classes``, ``rename``, ``dropped``, ``polygons``, ``shard_items``, ``shard_bytes``,
    ``min_confident_share``, ``min_mean_confidence``, ``title``, ``name``, ``callback_url``.

    Raises ApiProblem with every fault of the request.
    """
    given = [sources] if isinstance(sources, Mapping) or hasattr(sources, "source") else sources
    chosen = {name: value for name, value in options.items() if value is not None}
    body = {"sources": [_source(one) for one in given], "format": format, **chosen}
    info = parse(ExportInfo, (yield from send(client.config, post_request("/exports", body, idempotency_key))))
    if wait:
        info = yield from wait_until_ended(client, EXPORTS, info, progress=progress, timeout=None)
        raise_if_failed(EXPORTS, info)
    return info


def get_export(client: BaseClient, id: str) -> Flow[ExportInfo]:
    """Returns the export with this id. Raises ApiProblem (404) if you have none."""
    return parse(ExportInfo, (yield from send(client.config, Request("GET", path("exports", id)))))


def exports_page(client: BaseClient, cursor: str | None) -> Flow[Page[ExportInfo]]:
    """Iterates over your exports, newest first."""
    page = parse(ExportInfoPage, (yield from send(client.config, page_request("/exports", cursor, _EXPORTS_PER_PAGE))))
    return Page(page.exports, page.next_cursor)


def files_page(run: BaseExport, cursor: str | None) -> Flow[Page[ExportFileInfo]]:
    """Iterates over the export's files, with signed links."""
    page = parse(
        ExportFileInfoPage,
        (yield from send(run._client.config, page_request(f"{run.path}/files", cursor, _FILES_PER_PAGE))),
    )
    return Page(page.files, page.next_cursor)


def download(run: BaseExport, folder: str | Path, *, workers: int = 8, progress: bool = True) -> Flow[Download]:
    """Waits until the export has ended and downloads the set to ``folder``.

    Zip parts are unpacked; tar and parquet shards stay as they are. Every file is compared with its sha256 and written
    whole or not at all; ``workers`` (1 to 64) files are fetched concurrently. A second call, also after a kill, fetches
    only what is missing or was changed. The folder must be new, or an earlier download of this export.

    Raises FolderTaken; RunFailed; DownloadRefused for an archive with links or paths that lead out of the folder;
    DownloadFailed with the files that could not be fetched, once all others are there.
    """
    check_workers(workers)
    client = run._client
    run.info = yield from wait_until_ended(client, EXPORTS, run.info, progress=progress, timeout=None)
    raise_if_failed(EXPORTS, run.info)
    place = DownloadFolder(folder, f"export {run.id}")
    yield Call(place.open)
    result = Download(place.root)
    with client.progress_display.bar(progress, "Fetching", "bytes") as bar:
        bar.update(0, run.info.bytes)
        fetcher = Fetcher(client.config, place, bar, counts_bytes=True)
        unpacks = run.info.format not in SHARD_FORMATS

        def pages(cursor: str | None) -> Flow[Page[RemoteFile]]:
            page = yield from files_page(run, cursor)
            return Page(
                [RemoteFile(file.path, file.url, file.sha256, file.bytes) for file in page.entries], page.next_cursor
            )

        def fetch_one(file: RemoteFile) -> Flow[FetchOutcome | str]:
            return _unpacked(fetcher, file) if unpacks and file.path.endswith(".zip") else fetcher.file(file)

        yield from fetch_pages(pages, fetch_one, result, workers=workers)
    result.check()
    return result


def torch_dataset(
    run: BaseExport,
    folder: str | Path,
    *,
    split: str | None = None,
    transform: Transform | None = None,
    workers: int = 8,
    progress: bool = True,
) -> Flow[TwinDataset]:
    """Downloads the set to ``folder``, as :meth:`download` does, and opens it as a PyTorch dataset.

    ``split``: only the items of this split. ``transform``: see :meth:`Job.torch_dataset`. Example::

        train = export.torch_dataset("set", split="train")

    Raises InvalidRequest for the format huggingface (use the package ``datasets``) and for an unknown split; what
    :meth:`download` raises; TorchMissing without PyTorch.
    """
    if run.info.format == "huggingface":
        raise InvalidRequest(
            f"export {run.id} has the format huggingface; download it and read it with datasets.load_dataset(folder), "
            "or export to 'folders' or 'webdataset'"
        )
    yield from download(run, folder, workers=workers, progress=progress)
    from service.client.torch_dataset import TwinDataset

    opened: TwinDataset = yield Call(lambda: TwinDataset(folder, split=split, transform=transform))
    return opened


def _unpacked(fetcher: Fetcher, file: RemoteFile) -> Flow[FetchOutcome | str]:
    """Fetches a zip part, unpacks it and removes it; does nothing while all its files are there."""
    place = fetcher.folder
    place.target(file.path)
    if (yield Call(lambda: is_unpacked(place, file))):
        fetcher.report(file.size, done=True)
        return FetchOutcome.UNCHANGED
    with fetcher.part(file) as part:
        outcome = yield from fetcher.into(part, file)
        if outcome is FetchOutcome.FETCHED:
            yield Call(lambda: unpack_part(place, file, part.file))
            fetcher.report(0, done=True)
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
