"""Tar shards in a dataset: what lies where in them, without unpacking, and nothing but plain files."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from service.datasets.reading.report import EntryFault
from service.datasets.reading.unpacking import UnpackLimits, plain_members, safe_parts
from service.errors import ArchiveRefused

MAX_MEMBER_BYTES = 1 << 28
"""256 MB: far above any image, and little enough to be in memory."""
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class ShardMember:
    """``size`` bytes at ``offset`` of the file ``shard``, which are the file ``name`` in it."""

    shard: Path
    name: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """All of it. Raises EntryFault where the shard ends before, or OSError."""
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise EntryFault(
                "damaged", f"{self.shard.name} ends in the middle of it: it was cut off on its way; fetch it anew"
            )
        return data


def shard_members(shard: Path, limits: UnpackLimits = UnpackLimits()) -> Iterator[ShardMember]:
    """The files in a tar that is not packed, in their order.

    Raises ArchiveRefused for links, devices, names that lead elsewhere, members above :data:`MAX_MEMBER_BYTES` and more
    of them than the limits allow; and EntryFault at the place where the tar is damaged.
    """
    count = 0
    try:
        with open(shard, "rb") as file, tarfile.open(fileobj=_Bounded(file), mode="r:") as tar:  # type: ignore[call-overload]
            for info in plain_members(tar):
                count += 1
                if count > limits.max_entries:
                    raise ArchiveRefused(f"{shard.name} has more than {limits.max_entries} entries; divide it")
                name = "/".join(safe_parts(info.name))
                if info.size > MAX_MEMBER_BYTES:
                    raise ArchiveRefused(
                        f"{shard.name} holds {name[:100]!r} with {info.size} bytes; at most {MAX_MEMBER_BYTES} are read"
                    )
                if info.isreg():
                    yield ShardMember(shard, name, info.offset_data, info.size)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EntryFault("damaged", "it ends before its end mark: it was cut off on its way; fetch it anew")
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise EntryFault("unreadable", f"it is no tar, or damaged ({error}); fetch it anew") from None


class _Bounded:
    """A file for tarfile, which otherwise reads a header as long as it says it is, whatever memory that takes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise ArchiveRefused(
                f"a shard holds a header of {size} bytes; at most {_MAX_HEADER_BYTES} are read. Pack it anew"
            )
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
