"""A download folder: each file is written whole or not at all, and none outside of it."""

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

STATE_DIR = ".twinset"
"""Folder for the download's own state: which run the files belong to, receipts, and partial files."""
_OWNER = "download.json"
_STALE_S = 3600.0
_MAX_NAME_BYTES = 255
_MAX_PARTS = 32


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: ``path`` in the folder, link, and the expected ``sha256`` and ``size`` in bytes."""

    path: str
    url: str
    sha256: str
    size: int


class DownloadFolder:
    """The folder ``root`` for the download of ``owner``, such as "job j7ybr17pesw6kn47yb0". Thread-safe."""

    def __init__(self, root: str | Path, owner: str) -> None:
        self.root = Path(root).expanduser().absolute()
        self.owner = owner

    def open(self) -> None:
        """Creates the folder, or continues an earlier download. Raises FolderTaken if it holds anything else.

        Partial files that killed downloads left behind are removed once they are an hour old.
        """
        mark = self.root / STATE_DIR / _OWNER
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # in this order: another process that fetches the same writes its mark before any file
            has_files = any(entry.name != STATE_DIR for entry in self.root.iterdir())
            if not mark.exists():
                if has_files:
                    raise FolderTaken(
                        f"{self.root} is not empty, and holds no earlier download; name a new folder for {self.owner}"
                    )
                self.write_json(mark, {"format": 1, "owner": self.owner})
            owner = json.loads(mark.read_text(encoding="utf-8")).get("owner")
        except (OSError, ValueError, AttributeError) as error:
            raise FolderTaken(f"{self.root} cannot be used as a download folder ({error}); name another") from None
        if owner != self.owner:
            raise FolderTaken(f"{self.root} holds {owner}, not {self.owner}; name another folder")
        self._clear()

    def target(self, path: str) -> Path:
        """The place of the file ``path``. Raises DownloadRefused for a path that leads out of the folder."""
        parts = path.split("/")
        invalid = any(part in ("", ".", "..") or len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts)
        if (
            invalid
            or any(character in path for character in "\0\\:")
            or len(parts) > _MAX_PARTS
            or parts[0].casefold() == STATE_DIR
        ):
            raise DownloadRefused(
                f"the server names a file {path[:200]!r}, which is not a path inside the folder; it was not written"
            )
        return self.root.joinpath(*parts)

    def holds(self, path: str, sha256: str, size: int) -> bool:
        """Whether the file is there with exactly these bytes."""
        target = self.target(path)
        try:
            return target.stat().st_size == size and file_sha256(target) == sha256
        except OSError:
            return False

    def scratch(self, suffix: str) -> Path:
        """A new unique path in the same file system."""
        return self.root / STATE_DIR / f"{uuid.uuid4().hex}{suffix}"

    def place(self, fetched: Path, path: str) -> None:
        """Moves a complete file to its place, over an older one. Raises DownloadRefused if a folder is in the way."""
        target = self.target(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(fetched, target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise DownloadRefused(
                f"{path!r} cannot be written to {self.root}: a folder has its name, or a file has its folder's"
            ) from None
        except OSError as error:
            raise _unwritable(path, error) from None

    def write_json(self, target: Path, value: Any) -> None:
        """Writes a state file, whole or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = self.scratch(".part")
        draft.write_text(json.dumps(value, indent=1), encoding="utf-8")
        os.replace(draft, target)

    def read_json(self, target: Path) -> Any:
        """The value that :meth:`write_json` wrote; None if the file is missing or truncated."""
        try:
            return json.loads(target.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _clear(self) -> None:
        for left in (self.root / STATE_DIR).glob("*.part"):
            try:
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            except OSError:
                continue


class PartialFile:
    """A file being received: a sink whose bytes become the file ``path`` only with :meth:`commit`.

    Leaving the context without a commit leaves nothing behind.
    """

    def __init__(
        self,
        folder: DownloadFolder,
        path: str,
        *,
        max_bytes: int | None = None,
        on_progress: Callable[[int], None] = lambda more: None,
    ) -> None:
        """Prepares to receive the file ``path``.

        ``max_bytes``: a longer file is refused. ``on_progress`` is called with the number of bytes received, and with a
        negative number for bytes that are discarded.
        """
        folder.target(path)
        self._folder = folder
        self._path = path
        self._max_bytes = max_bytes
        self._moved = on_progress
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
        """Called before the body: starts over, or with status 206 continues at ``size``.

        Raises DownloadRefused for a range that begins elsewhere.
        """
        if status == 206:
            if not headers.get("content-range", "").startswith(f"bytes {self.size}-"):
                received = headers.get("content-range", "")[:60]
                raise DownloadRefused(
                    f"{self._path} was requested from byte {self.size} on, and arrived as {received!r}; download again"
                )
            return
        self.restart()

    def restart(self) -> None:
        """Discards the bytes received so far."""
        assert self._out is not None
        self._out.seek(0)
        self._out.truncate()
        self._hash = hashlib.sha256()
        self._moved(-self.size)
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes. Raises DownloadRefused past ``max_bytes``."""
        assert self._out is not None
        try:
            self._out.write(chunk)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self._hash.update(chunk)
        self.size += len(chunk)
        self._moved(len(chunk))
        if self._max_bytes is not None and self.size > self._max_bytes:
            raise DownloadRefused(
                f"{self._path} was announced with {self._max_bytes} bytes, and more arrived; it was discarded"
            )

    def digest(self) -> str:
        """The sha256 of the bytes received so far, which are flushed to disk first."""
        assert self._out is not None
        try:
            self._out.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from None
        return self._hash.hexdigest()

    def commit(self) -> None:
        """Moves the complete file to its place."""
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
