"""Safe unpacking of archives: nothing outside the folder, no links, and limits on size and number.

Sizes are counted while unpacking, not taken from the archive. A member's name is used as a path only after each of its
parts has been checked.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from service.datasets.reading.archive_bounds import BoundedTar, check_zip_directory, open_tar
from service.errors import ArchiveRefused
from service.kit.validation import escape_control

_CHUNK_BYTES = 1 << 18
_RATIO_FREE_BYTES = 1 << 20
"""Below this size the ratio is not checked: small texts compress well."""
_FREE_ENTRIES, _ENTRY_BYTES = 10_000, 40
"""Each file costs an inode, whatever its size, so an archive of many has as many bytes for each of them."""
_MAX_NAME_BYTES = 255
_MAX_PARTS = 32
_MAX_PADDING = 16 << 20
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
_FIELD = struct.Struct("<HH")
_PATH_HEAD = struct.Struct("<BL")


@dataclass(frozen=True)
class UnpackLimits:
    """Limits on an archive's contents; ``max_ratio`` is the unpacked bytes per byte of the archive.

    Besides, an archive holds no more entries than its size explains: each has a name, and images and labels in it.
    """

    max_bytes: int = 50 << 30
    max_entries: int = 1_000_000
    max_ratio: float = 200.0

    def entries_in(self, packed_bytes: int) -> int:
        """The largest number of entries of an archive with as many bytes."""
        return min(self.max_entries, _FREE_ENTRIES + packed_bytes // _ENTRY_BYTES)


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    contents: IO[bytes] | None


DEFAULT_LIMITS = UnpackLimits()


def unpack(archive: Path, folder: Path, limits: UnpackLimits = DEFAULT_LIMITS) -> int:
    """Unpacks a zip or a tar into ``folder``, which must be empty or not exist; returns the number of files.

    Raises ArchiveRefused for another kind of file or a damaged one, for members that are links or devices, or whose
    names are absolute, lead upwards or come twice, and beyond the limits. Files unpacked until then stay in ``folder``
    for the caller to delete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ArchiveRefused(f"{folder.name} is not empty; an archive is unpacked into an empty folder")
    packed_bytes = max(1, archive.stat().st_size)
    written, files, count, max_entries = 0, 0, 0, limits.entries_in(packed_bytes)
    try:
        with closing(_members(archive, max_entries)) as members:
            for member in members:
                count += 1
                if count > max_entries:
                    raise ArchiveRefused(
                        f"the archive of {packed_bytes} bytes has more than {max_entries} entries; divide it, and "
                        "leave out empty files"
                    )
                target = folder.joinpath(*safe_parts(member.name))
                if member.is_folder or member.contents is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.contents as contents, open(target, "xb") as out:
                    while chunk := contents.read(_CHUNK_BYTES):
                        written += len(chunk)
                        _check_size(written, packed_bytes, limits)
                        out.write(chunk)
                files += 1
    except FileExistsError as error:
        name = Path(error.filename or "").name
        raise ArchiveRefused(f"the archive has {name!r} twice, or as a file and as a folder; pack it anew") from None
    except (NotADirectoryError, IsADirectoryError):
        raise ArchiveRefused("the archive has a name as a file and as a folder; pack it anew") from None
    except (ArchiveRefused, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:
            raise _damaged(error) from None
        raise ArchiveRefused(f"the archive cannot be unpacked ({error.strerror or error}); is the disk full?") from None
    except Exception as error:
        # the libraries raise whatever a damaged archive makes them stumble over: IndexError, LZMAError, struct.error
        raise _damaged(error) from None
    return files


def _damaged(error: Exception) -> ArchiveRefused:
    reason = escape_control(str(error)[:200]) or type(error).__name__
    return ArchiveRefused(f"the archive is damaged, encrypted or packed in an unsupported way ({reason}); pack it anew")


def _members(archive: Path, max_entries: int) -> Generator[_Member, None, None]:
    with open(archive, "rb") as file:
        head = file.read(4)
    if head[:2] == b"PK" and zipfile.is_zipfile(archive):
        check_zip_directory(archive, max_entries)
        return _zip_members(archive)
    return _tar_members(archive)


def _zip_members(archive: Path) -> Generator[_Member, None, None]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveRefused(
                    f"the archive holds {info.filename[:100]!r}, a link or device; pack only files and folders"
                )
            # Windows' own tools have written folders as x\\
            is_folder = info.is_dir() or (info.filename.endswith("\\") and not info.file_size)
            yield _Member(_zip_name(info), is_folder, None if is_folder else file.open(info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name; many tools write UTF-8 without the flag that says so, and zipfile then reads code page 437.

    Text of another encoding is hardly ever valid UTF-8.
    """
    if info.flag_bits & _UTF8_FLAG or info.filename.isascii():
        return info.filename
    try:
        # zipfile has already replaced the separator of other systems
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return _unicode_extra(info) or info.filename


def _unicode_extra(info: zipfile.ZipInfo) -> str | None:
    """The name in a member's Unicode Path field (APPNOTE.TXT 4.6.9), if it belongs to the member's name."""
    extra = info.extra
    while len(extra) >= _FIELD.size:
        kind, size = _FIELD.unpack_from(extra)
        body, extra = extra[_FIELD.size : _FIELD.size + size], extra[_FIELD.size + size :]
        if kind == _UNICODE_PATH and len(body) > _PATH_HEAD.size:
            version, crc = _PATH_HEAD.unpack_from(body)
            if version == 1 and crc == zlib.crc32(info.orig_filename.encode("cp437", "replace")):
                return body[_PATH_HEAD.size :].decode("utf-8", "replace")
    return None


def _tar_members(archive: Path) -> Generator[_Member, None, None]:
    with ExitStack() as opened:
        try:
            bytes_ = opened.enter_context(_uncompressed(archive))
            file = opened.enter_context(open_tar(bytes_))
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError):
            raise ArchiveRefused(
                "the file is not a readable zip, tar, tar.gz, tar.bz2 or tar.xz; pack the dataset as one of these"
            ) from None
        for info in plain_members(file):
            yield _Member(info.name, info.isdir(), None if info.isdir() else file.extractfile(info))
        _check_end(file)


def _uncompressed(archive: Path) -> IO[bytes]:
    """The bytes of the tar that a file is, or that is packed in it."""
    with open(archive, "rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(archive))
    if head.startswith(b"BZh"):
        return bz2.open(archive)
    if head.startswith((b"\xfd7zXZ", b"\x5d\0\0")):
        return lzma.open(archive)
    return open(archive, "rb")


def plain_members(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files and folders of a tar that was opened on a :class:`BoundedTar`, one in memory at a time.

    Raises ArchiveRefused for anything else in it, or what tarfile raises.
    """
    while (info := _next(file)) is not None:
        # tarfile keeps every header it has seen
        file.members = []  # type: ignore[attr-defined]
        if not (info.isreg() or info.isdir()) or info.issparse():
            raise ArchiveRefused(
                f"the archive holds {info.name[:100]!r}, a link, a device or a sparse file; pack only files and folders"
            )
        yield info


def _next(file: tarfile.TarFile) -> tarfile.TarInfo | None:
    bound = cast(BoundedTar, file.fileobj)
    bound.before_header()
    info = file.next()
    bound.after_header()
    return info


def _check_end(file: tarfile.TarFile) -> None:
    """Raises ArchiveRefused for a tar that is cut off, which tarfile does not notice, nor a wrong gzip checksum."""
    rest = file.fileobj
    assert rest is not None
    rest.seek(file.offset)
    if rest.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ArchiveRefused("the archive ends before its end mark: it is cut off. Send it again")
    for _ in range(_MAX_PADDING // _CHUNK_BYTES):
        if not rest.read(_CHUNK_BYTES):
            return
    raise ArchiveRefused(f"the archive has more than {_MAX_PADDING} bytes after its end mark; pack it anew")


def safe_parts(name: str) -> list[str]:
    """The parts of a member's name, each a plain file name. Raises ArchiveRefused."""
    short = name[:100]
    if "\0" in name or name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":"):
        raise ArchiveRefused(f"the archive holds {short!r}, an absolute path; pack it from inside its folder")
    parts = [part for part in unicodedata.normalize("NFC", name).replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveRefused(f"the archive holds {short!r}, which leads out of it; pack it from inside its folder")
    if len(parts) > _MAX_PARTS or any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts):
        raise ArchiveRefused(
            f"the archive holds {short!r}, which is deeper than {_MAX_PARTS} folders or has a name longer than "
            f"{_MAX_NAME_BYTES} bytes"
        )
    return parts


def _check_size(written: int, packed_bytes: int, limits: UnpackLimits) -> None:
    if written > limits.max_bytes:
        raise ArchiveRefused(f"the archive unpacks to more than {limits.max_bytes} bytes; divide it")
    if written > _RATIO_FREE_BYTES and written / packed_bytes > limits.max_ratio:
        raise ArchiveRefused(
            f"the archive unpacks to more than {limits.max_ratio:g} times its {packed_bytes} bytes, unlike images; "
            "pack it anew"
        )
