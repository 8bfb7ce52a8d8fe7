"""Datasets: uploading and importing them, listing them, and reading their reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from service.client.client import BaseClient
from service.client.effects import Call, Flow, Request, Response
from service.client.packing import open_archive
from service.client.paging import Page
from service.client.requests import idempotency_header, page_request, post_request
from service.client.retries import parse, send
from service.client.runs import ResourceKind, Run, raise_if_failed, wait_until_ended
from service.client.views import DatasetInfo, DatasetInfoPage
from service.client.wire import path

if TYPE_CHECKING:
    from service.datasets.reading.report import ReadReport
    from service.datasets.statistics_values import DatasetStatistics

DATASETS = ResourceKind(
    "dataset", DatasetInfo, lambda info: path("datasets", info.name, info.version), "Checking", "items"
)
_PAGE_SIZE = 100
_UPLOAD_TIMEOUT_S = 600.0
"""The server responds once the archive is stored, which may take a while after the last byte."""


class BaseDataset(Run[DatasetInfo]):
    """Base class of :class:`DatasetRef` and :class:`AsyncDatasetRef`."""

    kind = DATASETS

    @property
    def version(self) -> int:
        """The version number: 1, 2, ..."""
        return self.info.version

    @property
    def source(self) -> dict[str, str]:
        """The dataset as a source of an export."""
        return {"dataset": self.id}


def upload_dataset(
    client: BaseClient,
    name: str,
    path: str | Path,
    *,
    format: str | None = None,
    split_map: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    wait: bool = False,
    progress: bool = True,
) -> Flow[DatasetInfo]:
    """Uploads a folder or an archive (zip, tar, tar.gz, ...) as the next version of dataset ``name``, and returns it.

    The server then checks it file by file. Example::

        tiles = client.upload_dataset("tiles", "my_tiles/", wait=True)
        print(tiles.id, tiles.info.items, "items")

    A folder is packed into a temporary tar first, without hidden files. ``format``: folders, coco, datumaro, voc,
    cityscapes, yolo, huggingface or webdataset; detected if left out. ``split_map``: new names of its splits, such as
    ``{"fold1": "train", "fold2": "val"}``; "default" stands for items without one. ``idempotency_key``: calls with the
    same key and files return the same version, so that a restarted script finds it. ``wait``: wait until it has
    been checked, with a bar if ``progress``.

    Raises InvalidRequest for a folder with links, which are not followed; RunFailed, with ``wait``, for a dataset that
    does not pass; ApiProblem.
    """
    key = idempotency_header(idempotency_key)
    # a cheap request first: gigabytes should not be sent to an unreachable server or with a wrong key
    yield from send(client.config, page_request("/datasets", None, 1))
    with (
        (yield Call(lambda: open_archive(path))) as archive,
        client.progress_display.bar(progress, "Uploading", "bytes") as bar,
    ):
        bar.update(0, archive.size)
        archive.on_progress = bar.advance
        renamed = ",".join(f"{old}={new}" for old, new in (split_map or {}).items())
        given = {"format": format, "split_map": renamed or None}
        params = {"name": name, **{key: value for key, value in given.items() if value is not None}}
        headers = {"Content-Type": archive.content_type, **key}
        response = yield from send(
            client.config,
            Request("POST", "/datasets", params, content=archive, headers=headers, timeout_s=_UPLOAD_TIMEOUT_S),
        )
    return (yield from _accepted(client, response, wait, progress))


def import_dataset(
    client: BaseClient,
    name: str,
    prefix: str,
    *,
    format: str | None = None,
    split_map: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    wait: bool = False,
    progress: bool = True,
) -> Flow[DatasetInfo]:
    """Imports files that are already in the server's store as the next version of dataset ``name``, and returns it.

    The files are those under ``imports/<tenant>/<prefix>``. A repeated ``idempotency_key`` returns the version that it
    made, whatever is there now. The other arguments are those of :meth:`upload_dataset`.
    """
    given = {"format": format, "split_map": dict(split_map) if split_map else None}
    body = {"name": name, "prefix": prefix, **{key: value for key, value in given.items() if value is not None}}
    response = yield from send(client.config, post_request("/datasets", body, idempotency_key))
    return (yield from _accepted(client, response, wait, progress))


def dataset(client: BaseClient, name: str, version: int | None = None) -> Flow[DatasetInfo]:
    """Returns a dataset by its name (the newest version), by name and version, or by name@version.

    Raises ApiProblem (404) if you have none.
    """
    plain, _, number = name.partition("@")
    parts = [plain, *([version or number] if version or number else [])]
    return parse(DatasetInfo, (yield from send(client.config, Request("GET", path("datasets", *parts)))))


def datasets_page(client: BaseClient, cursor: str | None) -> Flow[Page[DatasetInfo]]:
    """Iterates over your datasets, the newest version of each."""
    page = parse(DatasetInfoPage, (yield from send(client.config, page_request("/datasets", cursor, _PAGE_SIZE))))
    return Page(page.datasets, page.next_cursor)


def report(run: BaseDataset) -> Flow[ReadReport]:
    """Returns the report of the server's check: items read, and skipped files with the reason."""
    response = yield from send(run._client.config, Request("GET", f"{run.path}/report"))
    from service.datasets.reading.report import ReadReport

    return parse(ReadReport, response)


def statistics(run: BaseDataset) -> Flow[DatasetStatistics]:
    """Returns the statistics: pixels and images of each class, co-occurrence, object sizes and positions."""
    response = yield from send(run._client.config, Request("GET", f"{run.path}/statistics"))
    from service.datasets.statistics_values import DatasetStatistics

    return parse(DatasetStatistics, response)


def _accepted(client: BaseClient, response: Response, wait: bool, progress: bool) -> Flow[DatasetInfo]:
    info = parse(DatasetInfo, response)
    if wait:
        info = yield from wait_until_ended(client, DATASETS, info, progress=progress, timeout=None)
        raise_if_failed(DATASETS, info)
    return info
