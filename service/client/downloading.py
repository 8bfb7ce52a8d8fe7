"""Concurrent download of many files, each compared with its sha256, with new links where they have expired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from service.client.config import MAX_WORKERS, Config
from service.client.effects import Call, Flow, Gather, Request
from service.client.errors import ApiProblem, DownloadFailed, DownloadRefused, UnexpectedAnswer
from service.client.folder import DownloadFolder, PartialFile, RemoteFile
from service.client.paging import Page
from service.client.progress_bars import Bar
from service.client.retries import fetch, link_request
from service.errors import SettingsError

PageOfFiles = Callable[[str | None], Flow[Page[RemoteFile]]]
_ATTEMPTS = 3
_MAX_EXPIRED_ROUNDS = 3
_SHOWN_FILES = 3


class FetchOutcome(Enum):
    """Outcome of fetching one file."""

    FETCHED = "fetched"
    UNCHANGED = "already there"
    EXPIRED = "its link had expired"


@dataclass
class Download:
    """Result of a download.

    ``fetched`` counts the files transferred now, ``unchanged`` those that an earlier download had left in ``folder``.
    """

    folder: Path
    fetched: int = 0
    unchanged: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list, repr=False)

    @property
    def files(self) -> int:
        """Number of files that are in the folder now."""
        return self.fetched + self.unchanged

    def check(self) -> None:
        """Raises DownloadFailed if any file could not be fetched."""
        if self.failed:
            shown = "; ".join(f"{path}: {reason}" for path, reason in self.failed[:_SHOWN_FILES])
            more = f"; and {len(self.failed) - _SHOWN_FILES} more" if len(self.failed) > _SHOWN_FILES else ""
            raise DownloadFailed(
                f"{len(self.failed)} of {len(self.failed) + self.files} files could not be fetched ({shown}{more}). "
                f"The others are in {self.folder}; call download again to retry these",
                files=self.failed,
            )


@dataclass(frozen=True)
class Fetcher:
    """Fetches files into a folder and advances ``bar`` by files, or by bytes if ``counts_bytes``."""

    config: Config
    folder: DownloadFolder
    bar: Bar
    counts_bytes: bool = False

    def file(self, file: RemoteFile) -> Flow[FetchOutcome | str]:
        """Fetches one file; the outcome, or the reason why this file alone failed. Raises any other error."""
        if (yield Call(lambda: self.folder.holds(file.path, file.sha256, file.size))):
            self.report(file.size, done=True)
            return FetchOutcome.UNCHANGED
        with self.part(file) as part:
            outcome = yield from self.into(part, file)
            if outcome is FetchOutcome.FETCHED:
                yield Call(part.commit)
                self.report(0, done=True)
            return outcome

    def part(self, file: RemoteFile) -> PartialFile:
        """The partial file that receives ``file``."""
        return PartialFile(
            self.folder, file.path, max_bytes=file.size, on_progress=lambda more: self.report(more, done=False)
        )

    def into(self, part: PartialFile, file: RemoteFile) -> Flow[FetchOutcome | str]:
        """Fetches the bytes of a file into ``part``, and again if their sha256 differs."""
        found = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                yield Call(part.restart)
            try:
                yield from fetch(self.config, link_request(self.config, file.url), part)
            except ApiProblem as problem:
                if problem.status == 403:
                    return FetchOutcome.EXPIRED
                if problem.status in (404, 410) or problem.is_kind("object-damaged"):
                    return problem.detail
                raise
            except DownloadRefused as refused:
                return refused.detail
            found = yield Call(part.digest)
            if found == file.sha256:
                return FetchOutcome.FETCHED
        return f"it arrived {_ATTEMPTS} times with sha256 {found[:12]}..., not the recorded {file.sha256[:12]}..."

    def report(self, size: int, *, done: bool) -> None:
        """Advances the bar by bytes received; ``done`` if they complete a file."""
        self.bar.advance(size if self.counts_bytes else int(done))


def fetch_pages(
    pages: PageOfFiles, fetch_one: Callable[[RemoteFile], Flow[FetchOutcome | str]], download: Download, *, workers: int
) -> Flow[None]:
    """Fetches all files of all pages, ``workers`` at a time; requests a page again once its links have expired.

    Files that cannot be fetched are listed in ``download.failed``; the others are fetched all the same.
    """
    cursor: str | None = None
    while True:
        page = yield from pages(cursor)
        missing: Sequence[RemoteFile] = page.entries
        expired_rounds = 0
        while missing:
            outcomes: list[FetchOutcome | str] = yield Gather([fetch_one(file) for file in missing], workers)
            expired = [
                file.path for file, outcome in zip(missing, outcomes, strict=True) if outcome is FetchOutcome.EXPIRED
            ]
            download.fetched += outcomes.count(FetchOutcome.FETCHED)
            download.unchanged += outcomes.count(FetchOutcome.UNCHANGED)
            download.failed += [
                (file.path, outcome)
                for file, outcome in zip(missing, outcomes, strict=True)
                if isinstance(outcome, str)
            ]
            expired_rounds = expired_rounds + 1 if len(expired) == len(missing) else 0
            if expired_rounds == _MAX_EXPIRED_ROUNDS:
                refused = [(path, "its link is refused even when new") for path in expired]
                if len(refused) == len(page.entries):
                    raise DownloadFailed(
                        f"new links to {len(refused)} files, {expired[0]} first, are refused at once. Do the clocks of "
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
                f"the server gives the cursor {cursor!r} as its own successor; report this as a bug of the server"
            )
        cursor = page.next_cursor


def fetch_whole(config: Config, folder: DownloadFolder, request: Request, path: str) -> Flow[None]:
    """Fetches a file whose sha256 is not known, whole or not at all."""
    with PartialFile(folder, path) as part:
        yield from fetch(config, request, part)
        yield Call(part.commit)


def check_workers(workers: int) -> None:
    """Raises SettingsError unless ``workers`` is 1 to 64."""
    if not 1 <= workers <= MAX_WORKERS:
        raise SettingsError(f"workers is {workers}; give 1 to {MAX_WORKERS}")
