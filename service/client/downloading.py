"""Fetching many files: side by side, each compared with its sha256, with fresh links where they have expired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from service.client.config import MAX_WORKERS, Config
from service.client.effects import Flow, Request, Together, Work
from service.client.errors import ApiProblem, DownloadFailed, DownloadRefused, UnexpectedAnswer
from service.client.folder import DownloadFolder, PartialFile, RemoteFile
from service.client.paging import Page
from service.client.progress_bars import Bar
from service.client.retries import fetch, link
from service.errors import SettingsError

PageOfFiles = Callable[[str | None], Flow[Page[RemoteFile]]]
_ATTEMPTS = 3
_FRUITLESS_ROUNDS = 3
_SHOWN_FILES = 3


class Came(Enum):
    """How a file came."""

    FETCHED = "fetched"
    KEPT = "it was there"
    EXPIRED = "its link had expired"


@dataclass
class Download:
    """What a download did: the folder, and how many files were fetched, or were there from an earlier one."""

    folder: Path
    fetched: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list, repr=False)

    @property
    def files(self) -> int:
        """Files that are there now."""
        return self.fetched + self.kept

    def check(self) -> None:
        """Raises DownloadFailed if any file did not come."""
        if self.failed:
            shown = "; ".join(f"{path}: {reason}" for path, reason in self.failed[:_SHOWN_FILES])
            more = f"; and {len(self.failed) - _SHOWN_FILES} more" if len(self.failed) > _SHOWN_FILES else ""
            raise DownloadFailed(
                f"{len(self.failed)} of {len(self.failed) + self.files} files could not be fetched ({shown}{more}). The others are in "
                f"{self.folder}; to try these again, download once more",
                files=self.failed,
            )


@dataclass(frozen=True)
class Fetcher:
    """Fetches files into a folder, and tells ``bar``: of files, or of their bytes if ``counts_bytes``."""

    config: Config
    folder: DownloadFolder
    bar: Bar
    counts_bytes: bool = False

    def file(self, file: RemoteFile) -> Flow[Came | str]:
        """One file into its place; how it came, or why it did not. Raises what is no fault of this file alone."""
        if (yield Work(lambda: self.folder.holds(file.path, file.sha256, file.size))):
            self.tell(file.size, done=True)
            return Came.KEPT
        with self.part(file) as part:
            outcome = yield from self.into(part, file)
            if outcome is Came.FETCHED:
                yield Work(part.keep)
                self.tell(0, done=True)
            return outcome

    def part(self, file: RemoteFile) -> PartialFile:
        """Where a file arrives."""
        return PartialFile(self.folder, file.path, max_bytes=file.size, moved=lambda more: self.tell(more, done=False))

    def into(self, part: PartialFile, file: RemoteFile) -> Flow[Came | str]:
        """The bytes of a file, compared with its sha256, and fetched again if they differ."""
        found = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                yield Work(part.restart)
            try:
                yield from fetch(self.config, link(self.config, file.url), part)
            except ApiProblem as problem:
                if problem.status == 403:
                    return Came.EXPIRED
                if problem.status in (404, 410) or problem.is_kind("object-damaged"):
                    return problem.detail
                raise
            except DownloadRefused as refused:
                return refused.detail
            found = yield Work(part.digest)
            if found == file.sha256:
                return Came.FETCHED
        return f"it came {_ATTEMPTS} times with other bytes (sha256 {found[:12]}...) than were recorded ({file.sha256[:12]}...)"

    def tell(self, size: int, *, done: bool) -> None:
        """So many bytes have come; ``done`` if with them a file."""
        self.bar.advance(size if self.counts_bytes else int(done))


def fetch_pages(
    pages: PageOfFiles, fetch_one: Callable[[RemoteFile], Flow[Came | str]], download: Download, *, workers: int
) -> Flow[None]:
    """Fetches all files of all pages, ``workers`` at a time. A page's links are used at once, and asked for again once
    they expire.

    Files that do not come are noted in ``download.failed``, and the others fetched all the same.
    """
    cursor: str | None = None
    while True:
        page = yield from pages(cursor)
        missing: Sequence[RemoteFile] = page.entries
        fruitless = 0
        while missing:
            outcomes: list[Came | str] = yield Together([fetch_one(file) for file in missing], workers)
            expired = [file.path for file, outcome in zip(missing, outcomes) if outcome is Came.EXPIRED]
            download.fetched += outcomes.count(Came.FETCHED)
            download.kept += outcomes.count(Came.KEPT)
            download.failed += [
                (file.path, outcome) for file, outcome in zip(missing, outcomes) if isinstance(outcome, str)
            ]
            fruitless = fruitless + 1 if len(expired) == len(missing) else 0
            if fruitless == _FRUITLESS_ROUNDS:
                refused = [(path, "its link is refused as soon as it is made") for path in expired]
                if len(refused) == len(page.entries):
                    raise DownloadFailed(
                        f"the links to {len(refused)} files, {expired[0]} first, are refused as soon as they are made. Do the clocks of "
                        "the server and of its store agree, and is its TWINSET_LINK_EXPIRES_S long enough?",
                        files=refused,
                    )
                download.failed += refused
                break
            if not expired:
                break
            fresh = {file.path: file for file in (yield from pages(cursor)).entries}
            missing = [fresh[path] for path in expired if path in fresh]
            download.failed += [(path, "it is no longer listed") for path in expired if path not in fresh]
        if page.next_cursor is None:
            return
        if page.next_cursor == cursor:
            raise UnexpectedAnswer(
                f"the server gives the cursor {cursor!r} as the one behind itself; it is to be asked for no more"
            )
        cursor = page.next_cursor


def fetch_whole(config: Config, folder: DownloadFolder, request: Request, path: str) -> Flow[None]:
    """Fetches a file of which no sha256 is known, whole or not at all."""
    with PartialFile(folder, path) as part:
        yield from fetch(config, request, part)
        yield Work(part.keep)


def check_workers(workers: int) -> None:
    """Raises SettingsError for a number of workers that is none."""
    if not 1 <= workers <= MAX_WORKERS:
        raise SettingsError(f"workers is {workers}; give 1 to {MAX_WORKERS}")
