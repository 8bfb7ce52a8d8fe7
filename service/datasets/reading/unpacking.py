"""Archives unpacked without harm: nothing outside of the folder, no links, no more than is allowed.

Sizes are counted as bytes come out, not as the archive states them. What an archive calls a member is never a path
until each of its parts has been looked at.
"""

from __future__ import annotations

import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.errors import ArchiveRefused

_PIECE_BYTES = 1 << 18
_FLAT_BYTES = 1 << 20
"""Below this, no ratio is too high: small text packs well."""
_MAX_NAME_BYTES = 255
_MAX_PARTS = 32
_MAX_PADDING = 16 << 20


@dataclass(frozen=True)
class UnpackLimits:
    """``max_ratio`` is bytes unpacked for each byte of the archive."""

    max_bytes: int = 50 << 30
    max_entries: int = 2_000_000
    max_ratio: float = 200.0


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    contents: IO[bytes] | None


def unpack(archive: Path, folder: Path, limits: UnpackLimits = UnpackLimits()) -> int:
    """Unpacks a zip, tar or tar.gz into ``folder``, which is made and must be empty; the number of files.

    Raises ArchiveRefused for an archive that is none of these or damaged, for members that are links or devices, whose
    names are absolute, lead upwards or come twice, and beyond the limits. What was unpacked until then stays in
    ``folder``, for the caller to remove.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ArchiveRefused(f"{folder.name} is not empty; an archive is unpacked into an empty folder")
    packed_bytes = max(1, archive.stat().st_size)
    written, files, count = 0, 0, 0
    try:
        with closing(_members(archive, limits)) as members:
            for member in members:
                count += 1
                if count > limits.max_entries:
                    raise ArchiveRefused(f"the archive has more than {limits.max_entries} entries; divide it")
                target = folder.joinpath(*safe_parts(member.name))
                if member.is_folder or member.contents is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.contents as contents, open(target, "xb") as out:
                    while piece := contents.read(_PIECE_BYTES):
                        written += len(piece)
                        _check_size(written, packed_bytes, limits)
                        out.write(piece)
                files += 1
    except FileExistsError as error:
        name = Path(error.filename or "").name
        raise ArchiveRefused(f"the archive has {name!r} twice, or as a file and as a folder; pack it anew") from None
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ArchiveRefused(
            f"the archive is damaged, encrypted or packed in a way that is not read ({error}); pack it anew"
        ) from None
    except NotADirectoryError:
        raise ArchiveRefused("the archive has a name as a file and as a folder; pack it anew") from None
    except OSError as error:
        raise ArchiveRefused(
            f"the archive cannot be unpacked ({error.strerror or error}); is there room on the disk?"
        ) from None
    return files


def _members(archive: Path, limits: UnpackLimits) -> Iterator[_Member]:
    with open(archive, "rb") as file:
        head = file.read(4)
    if head[:2] == b"PK" and zipfile.is_zipfile(archive):
        return _zip_members(archive, limits)
    return _tar_members(archive)


def _zip_members(archive: Path, limits: UnpackLimits) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        if len(file.infolist()) > limits.max_entries:
            raise ArchiveRefused(
                f"the archive has {len(file.infolist())} entries; at most {limits.max_entries} are unpacked. Divide it"
            )
        for info in file.infolist():
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveRefused(
                    f"the archive holds {info.filename[:100]!r}, a link or device; pack files and folders alone"
                )
            yield _Member(info.filename, info.is_dir(), None if info.is_dir() else file.open(info))


def _tar_members(archive: Path) -> Iterator[_Member]:
    try:
        file = tarfile.open(archive, "r:*")  # noqa: SIM115
    except tarfile.ReadError:
        raise ArchiveRefused(
            "the file is no zip, tar or tar.gz that can be read; pack the dataset as one of these"
        ) from None
    with file:
        for info in plain_members(file):
            yield _Member(info.name, info.isdir(), None if info.isdir() else file.extractfile(info))
        _check_end(file)


def plain_members(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files and folders in a tar, one in memory at a time. Raises ArchiveRefused for anything else in it, or what
    tarfile raises."""
    while (info := file.next()) is not None:
        # tarfile keeps every header it has seen
        file.members = []  # type: ignore[attr-defined]
        if not (info.isreg() or info.isdir()) or info.issparse():
            raise ArchiveRefused(
                f"the archive holds {info.name[:100]!r}, a link, a device or a sparse file; pack files and folders alone"
            )
        yield info


def _check_end(file: tarfile.TarFile) -> None:
    """Refuses a tar that was cut off: tarfile takes the end of the file for the end of the archive, and does not look
    at gzip's sum."""
    rest = file.fileobj
    assert rest is not None
    rest.seek(file.offset)
    if rest.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ArchiveRefused("the archive ends before its end mark: it was cut off on its way. Send it again")
    for _ in range(_MAX_PADDING // _PIECE_BYTES):
        if not rest.read(_PIECE_BYTES):
            return
    raise ArchiveRefused(f"the archive goes on for more than {_MAX_PADDING} bytes behind its end mark; pack it anew")


def safe_parts(name: str) -> list[str]:
    """The parts of a member's name, each of them a plain name. Raises ArchiveRefused."""
    shown = name[:100]
    if "\0" in name or name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":"):
        raise ArchiveRefused(f"the archive holds {shown!r}, an absolute path; pack it from inside of its folder")
    parts = [part for part in unicodedata.normalize("NFC", name).replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveRefused(f"the archive holds {shown!r}, which leads out of it; pack it from inside of its folder")
    if len(parts) > _MAX_PARTS or any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts):
        raise ArchiveRefused(
            f"the archive holds {shown!r}, deeper than {_MAX_PARTS} folders or longer than {_MAX_NAME_BYTES} bytes a name"
        )
    return parts


def _check_size(written: int, packed_bytes: int, limits: UnpackLimits) -> None:
    if written > limits.max_bytes:
        raise ArchiveRefused(f"the archive unpacks to more than {limits.max_bytes} bytes; divide it")
    if written > _FLAT_BYTES and written / packed_bytes > limits.max_ratio:
        raise ArchiveRefused(
            f"the archive unpacks to more than {limits.max_ratio:g} times its {packed_bytes} bytes, which images do not; pack it anew"
        )
