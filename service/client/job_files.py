"""Download of a job's twins, in the folder layout that ``twinset generate`` writes too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from service.client.client import BaseClient
from service.client.downloading import Download, Fetcher, check_workers, fetch_pages, fetch_whole
from service.client.effects import Call, Flow, Request
from service.client.errors import ApiProblem
from service.client.folder import DownloadFolder, PartialFile, RemoteFile
from service.client.paging import Page
from service.client.retries import send
from service.client.views import JobInfo, Sample, SampleFileInfo
from service.client.wire import path


def fetch_job(
    client: BaseClient,
    info: JobInfo,
    folder: str | Path,
    samples: Callable[[str | None], Flow[Page[Sample]]],
    *,
    workers: int,
    progress: bool,
) -> Flow[Download]:
    """Fetches the twins of an ended job. The manifest is written last, so its presence marks a complete folder."""
    check_workers(workers)
    place = DownloadFolder(folder, f"job {info.id}")
    yield Call(place.open)
    download = Download(place.root)
    yield from _fetch_card(client, place, info.parameters.model)
    with client.progress_display.bar(progress, "Fetching", "files") as bar:
        bar.update(0, None)
        fetcher = Fetcher(client.config, place, bar)

        def pages(cursor: str | None) -> Flow[Page[RemoteFile]]:
            page = yield from samples(cursor)
            files = [file for sample in page.entries for file in files_of(sample)]
            if cursor is None and page.entries:
                made = [sample for sample in page.entries if sample.error is None]
                bar.update(0, info.done * len(files) / len(made) if made else None)
            return Page(files, page.next_cursor)

        yield from fetch_pages(pages, fetcher.file, download, workers=workers)
    download.check()
    yield from fetch_whole(client.config, place, Request("GET", f"{path('jobs', info.id)}/manifest"), "manifest.jsonl")
    return download


def files_of(sample: Sample) -> list[RemoteFile]:
    """The files of a twin; a failed sample has none."""
    kinds: list[tuple[str, SampleFileInfo | None]] = [
        ("images", sample.image),
        ("masks", sample.mask),
        ("instances", sample.instances),
    ]
    # file names are made from the index alone, never from text of the server
    return [
        RemoteFile(f"{folder}/{sample.index:08d}.png", file.url, file.sha256, file.bytes)
        for folder, file in kinds
        if file is not None and sample.error is None
    ]


def _fetch_card(client: BaseClient, place: DownloadFolder, model: str) -> Flow[None]:
    """Writes the model's card as ``card.json``: it names the classes that the masks' indices stand for."""
    try:
        response = yield from send(client.config, Request("GET", path("models", model)))
    except ApiProblem as problem:
        if problem.status == 404:
            return  # the model has been removed since; its twins are still there
        raise
    card = json.dumps(json.loads(response.content)["card"], indent=2, ensure_ascii=False) + "\n"

    def write() -> None:
        with PartialFile(place, "card.json") as part:
            part.write(card.encode())
            part.commit()

    yield Call(write)
