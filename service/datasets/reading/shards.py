"""Tar shards of a dataset: the offsets of their files, found without unpacking; only plain files are allowed."""

from __future__ import annotations

import gzip
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from service.datasets.reading.archive_bounds import open_tar
from service.datasets.reading.report import EntryFault
from service.datasets.reading.unpacking import DEFAULT_LIMITS, UnpackLimits, plain_members, safe_parts
from service.errors import ArchiveRefused

MAX_MEMBER_BYTES = 1 << 28
"""256 MB: far above any image, and small enough for memory."""
_CHUNK_BYTES = 1 << 20
_RATIO_FREE_BYTES = 1 << 20


@dataclass(frozen=True)
class ShardMember:
    """The file ``name`` in the tar ``shard``: ``size`` bytes from ``offset`` on, unpacked if the tar is packed."""

    shard: Path
    name: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """The file's bytes. Raises OSError, or EntryFault if the shard is cut off."""
        with _open_tar(self.shard) as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise EntryFault(
                "damaged", f"{self.shard.name} ends in the middle of it: the shard is cut off; fetch it anew"
            )
        return data


def shard_members(shard: Path, limits: UnpackLimits = DEFAULT_LIMITS) -> Iterator[ShardMember]:
    """The files of a tar, or of one packed by gzip, in their order.

    Raises ArchiveRefused for links, devices, names that lead out of the folder, members above
    :data:`MAX_MEMBER_BYTES` and more members than the limits allow; and EntryFault where the tar is damaged.
    """
    count = 0
    try:
        with _open_tar(shard) as file, open_tar(file) as tar:
            for info in plain_members(tar):
                count += 1
                if count > limits.max_entries:
                    raise ArchiveRefused(f"{shard.name} has more than {limits.max_entries} entries; divide it")
                name = "/".join(safe_parts(info.name))
                if info.size > MAX_MEMBER_BYTES:
                    raise ArchiveRefused(
                        f"{shard.name} holds {name[:100]!r} with {info.size} bytes; the limit is {MAX_MEMBER_BYTES}"
                    )
                if info.isreg():
                    yield ShardMember(shard, name, info.offset_data, info.size)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EntryFault("damaged", "it ends before its end mark: it is cut off; fetch it anew")
    except (EntryFault, ArchiveRefused, MemoryError):
        raise
    except Exception as error:
        # tarfile raises whatever a damaged header makes it stumble over
        raise EntryFault("unreadable", f"it is not a tar file, or damaged ({error}); fetch it anew") from None


def _open_tar(shard: Path) -> IO[bytes]:
    """The tar's bytes; one packed by gzip is unpacked into a temporary file, and read there at any place."""
    if not shard.name.endswith("gz"):
        return open(shard, "rb")
    return os.fdopen(os.open(_unpacked(shard, shard.stat().st_mtime_ns).name, os.O_RDONLY), "rb")


@lru_cache(maxsize=1)
def _unpacked(shard: Path, changed_ns: int, limits: UnpackLimits = DEFAULT_LIMITS) -> IO[bytes]:
    """A temporary file with what a gzip file holds, deleted when the next one is unpacked. Raises ArchiveRefused."""
    out = tempfile.NamedTemporaryFile(prefix="twinset-")  # noqa: SIM115
    max_bytes = min(limits.max_bytes, int(limits.max_ratio * shard.stat().st_size) + _RATIO_FREE_BYTES)
    with gzip.open(shard) as packed:
        while chunk := packed.read(_CHUNK_BYTES):
            if out.tell() + len(chunk) > max_bytes:
                raise ArchiveRefused(
                    f"{shard.name} unpacks to more than {max_bytes} bytes, unlike images; pack it anew"
                )
            out.write(chunk)
    out.flush()
    return out
