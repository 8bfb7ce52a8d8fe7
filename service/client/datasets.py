"""Datasets: uploaded, checked, and kept by version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from service.client.client import BaseClient
from service.client.effects import Answer, Flow, Request, Work
from service.client.packing import open_archive
from service.client.paging import Page
from service.client.requests import key_header, page_of, posted
from service.client.retries import parse, send
from service.client.runs import ResourceKind, Run, check_end, until_ended
from service.client.views import DatasetInfo, DatasetInfoPage
from service.client.wire import path

if TYPE_CHECKING:
    from service.datasets.reading.report import ReadReport
    from service.datasets.statistics import DatasetStatistics

DATASETS = ResourceKind(
    "dataset", DatasetInfo, lambda info: path("datasets", info.name, info.version), "Checking", "items"
)
_A_PAGE = 100
_UPLOAD_TIMEOUT_S = 600.0
"""The answer comes once the archive is stored, which may take a while after the last byte."""


class DatasetRun(Run[DatasetInfo]):
    """A dataset's version, of either client."""

    kind = DATASETS

    @property
    def version(self) -> int:
        """1, 2, ..."""
        return self.info.version

    @property
    def source(self) -> dict[str, str]:
        """What an export calls it."""
        return {"dataset": self.id}


def upload_dataset(
    client: BaseClient,
    name: str,
    path: str | Path,
    *,
    format: str | None = None,
    idempotency_key: str | None = None,
    wait: bool = False,
    progress: bool = True,
) -> Flow[DatasetInfo]:
    """Sends a dataset, a folder or an archive (zip, tar, tar.gz), as the next version of ``name``; the version, yet to
    be checked.

    A folder is packed into a temporary tar first; hidden files are left out. ``format`` is folders, coco, voc,
    cityscapes, yolo and so on; found out, if not given. An ``idempotency_key`` of your own makes a script that is
    started again find the version that it has sent: the same files are the same archive. ``wait`` holds until it has
    been checked. Raises InvalidRequest for a folder that holds links, for they are not followed, and ApiProblem.
    """
    key = key_header(idempotency_key)
    # before gigabytes are on their way: is anybody there, and does the key hold?
    yield from send(client.config, page_of("/datasets", None, 1))
    with (yield Work(lambda: open_archive(path))) as archive, client.board.bar(progress, "Sending", "bytes") as bar:
        bar.show(0, archive.size)
        archive.moved = bar.advance
        params = {"name": name, **({} if format is None else {"format": format})}
        headers = {"Content-Type": archive.content_type, **key}
        answer = yield from send(
            client.config,
            Request("POST", "/datasets", params, content=archive, headers=headers, timeout_s=_UPLOAD_TIMEOUT_S),
        )
    return (yield from _accepted(client, answer, wait, progress))


def import_dataset(
    client: BaseClient,
    name: str,
    prefix: str,
    *,
    format: str | None = None,
    idempotency_key: str | None = None,
    wait: bool = False,
    progress: bool = True,
) -> Flow[DatasetInfo]:
    """Takes objects that lie in the server's store already, under ``imports/<tenant>/<prefix>``, as the next version of
    ``name``.

    Under an ``idempotency_key`` that came before it is the version that was made then, whatever lies there by now.
    """
    body = {"name": name, "prefix": prefix, **({} if format is None else {"format": format})}
    answer = yield from send(client.config, posted("/datasets", body, idempotency_key))
    return (yield from _accepted(client, answer, wait, progress))


def dataset(client: BaseClient, name: str, version: int | None = None) -> Flow[DatasetInfo]:
    """A dataset by its name, for the newest version, or by name and version, or name@version.

    Raises ApiProblem of status 404 if there is none of yours.
    """
    plain, _, number = name.partition("@")
    parts = [plain, *([version or number] if version or number else [])]
    return parse(DatasetInfo, (yield from send(client.config, Request("GET", path("datasets", *parts)))))


def datasets_page(client: BaseClient, cursor: str | None) -> Flow[Page[DatasetInfo]]:
    """Your datasets."""
    page = parse(DatasetInfoPage, (yield from send(client.config, page_of("/datasets", cursor, _A_PAGE))))
    return Page(page.datasets, page.next_cursor)


def report(run: DatasetRun) -> Flow[ReadReport]:
    """What checking found: items read, and what was left out and why, file by file."""
    answer = yield from send(run._client.config, Request("GET", f"{run.path}/report"))
    from service.datasets.reading.report import ReadReport

    return parse(ReadReport, answer)


def statistics(run: DatasetRun) -> Flow[DatasetStatistics]:
    """What it holds: pixels and images of each class, which ones together, how large, and where."""
    answer = yield from send(run._client.config, Request("GET", f"{run.path}/statistics"))
    from service.datasets.statistics_values import DatasetStatistics

    return parse(DatasetStatistics, answer)


def _accepted(client: BaseClient, answer: Answer, wait: bool, progress: bool) -> Flow[DatasetInfo]:
    info = parse(DatasetInfo, answer)
    if wait:
        info = yield from until_ended(client, DATASETS, info, progress=progress, timeout=None)
        check_end(DATASETS, info)
    return info
