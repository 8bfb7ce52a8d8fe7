"""A folder that files are fetched into: each whole or not at all, and none outside of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from service.client.errors import DownloadFailed, DownloadRefused, FolderTaken

KEPT = ".twinset"
"""Where a download keeps what it needs itself: whose files these are, and what is on its way."""
_OWNER = "download.json"
_STALE_S = 3600.0
_MAX_NAME_BYTES = 255
_MAX_PARTS = 32


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: its ``path`` in the folder, a link, and the ``sha256`` and ``size`` that its bytes must have."""

    path: str
    url: str
    sha256: str
    size: int


class DownloadFolder:
    """The folder ``root`` for the download of ``owner``, "job j7ybr17pesw6kn47yb0" say. May be used from many
    threads."""

    def __init__(self, root: str | Path, owner: str) -> None:
        self.root = Path(root).expanduser().absolute()
        self.owner = owner

    def open(self) -> None:
        """Makes the folder, or takes up an earlier download. Raises FolderTaken for a folder that holds anything else.

        What killed downloads left half-way is removed, once nobody can be at it any more.
        """
        mark = self.root / KEPT / _OWNER
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # In this order: of another process that fetches the same, files are seen only once its mark is there.
            has_files = any(entry.name != KEPT for entry in self.root.iterdir())
            if not mark.exists():
                if has_files:
                    raise FolderTaken(
                        f"{self.root} is not empty, and nothing was downloaded to it; name a new folder for {self.owner}"
                    )
                self.write_json(mark, {"format": 1, "owner": self.owner})
            owner = json.loads(mark.read_text(encoding="utf-8")).get("owner")
        except (OSError, ValueError, AttributeError) as error:
            raise FolderTaken(
                f"{self.root} cannot be used as a folder for a download ({error}); name another"
            ) from None
        if owner != self.owner:
            raise FolderTaken(f"{self.root} holds {owner}, not {self.owner}; name another folder")
        self._clear()

    def target(self, path: str) -> Path:
        """Where the file ``path`` belongs. Raises DownloadRefused for a path that leads elsewhere."""
        parts = path.split("/")
        strange = any(part in ("", ".", "..") or len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts)
        if (
            strange
            or any(character in path for character in "\0\\:")
            or len(parts) > _MAX_PARTS
            or parts[0].casefold() == KEPT
        ):
            raise DownloadRefused(
                f"the server names a file {path[:200]!r}, which has no place in a folder; it was not written"
            )
        return self.root.joinpath(*parts)

    def holds(self, path: str, sha256: str, size: int) -> bool:
        """Whether the file is there with just these bytes."""
        target = self.target(path)
        try:
            return target.stat().st_size == size and file_sha256(target) == sha256
        except OSError:
            return False

    def scratch(self, suffix: str) -> Path:
        """A path that nobody else has, in the same file system."""
        return self.root / KEPT / f"{uuid.uuid4().hex}{suffix}"

    def place(self, fetched: Path, path: str) -> None:
        """Puts a whole file where it belongs, over what was there. Raises DownloadRefused where that cannot be."""
        target = self.target(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(fetched, target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise DownloadRefused(
                f"{path!r} cannot be written to {self.root}: a folder has its name, or a file its folder's"
            ) from None
        except OSError as error:
            raise _unwritable(path, error) from None

    def write_json(self, target: Path, value: Any) -> None:
        """Writes a file of our own, whole or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = self.scratch(".part")
        draft.write_text(json.dumps(value, indent=1), encoding="utf-8")
        os.replace(draft, target)

    def read_json(self, target: Path) -> Any:
        """What :meth:`write_json` wrote; None where that is not there, or was cut."""
        try:
            return json.loads(target.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _clear(self) -> None:
        for left in (self.root / KEPT).glob("*.part"):
            try:
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            except OSError:
                continue


class PartialFile:
    """A file on its way: a sink whose bytes become the file ``path`` only by :meth:`keep`. As a context it leaves
    nothing behind."""

    def __init__(
        self,
        folder: DownloadFolder,
        path: str,
        *,
        max_bytes: int | None = None,
        moved: Callable[[int], None] = lambda more: None,
    ) -> None:
        """``max_bytes`` refuses what is longer; ``moved`` hears of every byte that came, and as a negative number of
        those given up."""
        folder.target(path)
        self._folder = folder
        self._path = path
        self._most = max_bytes
        self._moved = moved
        self.file = folder.scratch(".part")
        self._out: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> PartialFile:
        self._out = open(self.file, "xb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self.file.unlink(missing_ok=True)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """What comes next is all of the file, or goes on where it broke off. Raises DownloadRefused for a part from
        elsewhere."""
        if status == 206:
            if not headers.get("content-range", "").startswith(f"bytes {self.size}-"):
                told = headers.get("content-range", "")[:60]
                raise DownloadRefused(
                    f"{self._path} was asked for from byte {self.size} on, and came as {told!r}; fetch it again"
                )
            return
        self.restart()

    def restart(self) -> None:
        """Gives up what has come."""
        assert self._out is not None
        self._out.seek(0)
        self._out.truncate()
        self._hash = hashlib.sha256()
        self._moved(-self.size)
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Takes what comes next. Raises DownloadRefused past ``max_bytes``."""
        assert self._out is not None
        try:
            self._out.write(piece)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self._hash.update(piece)
        self.size += len(piece)
        self._moved(len(piece))
        if self._most is not None and self.size > self._most:
            raise DownloadRefused(f"{self._path} was announced with {self._most} bytes, and more came; it was given up")

    def digest(self) -> str:
        """The sha256 of what has come; it is all on disk then."""
        assert self._out is not None
        try:
            self._out.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from None
        return self._hash.hexdigest()

    def keep(self) -> None:
        """The file is whole: puts it in its place."""
        self._close()
        self._folder.place(self.file, self._path)

    def _close(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None


def _unwritable(path: str, error: OSError) -> DownloadFailed:
    reason = error.strerror or str(error)
    what = f"{path} cannot be written ({reason}); make room, or name another folder, and download again"
    return DownloadFailed(what, files=[(path, reason)])


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
