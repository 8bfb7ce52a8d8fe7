"""A twin's files, image, mask and instance map, read from the store: only the recorded bytes are returned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from service.jobs.spec import SampleRecord
from service.store.base import ObjectStore
from service.store.checked import read_checked

Kind = Literal["image", "mask", "instances"]
FOLDERS: Mapping[Kind, str] = {"image": "images", "mask": "masks", "instances": "instances"}
"""The folder of each kind of file in archives and downloads."""
READ_TOGETHER_BYTES = 4 << 20
"""Bytes of one request that reads several files, at most; a larger file is read alone."""
Owner = TypeVar("Owner")


@dataclass(frozen=True)
class SampleFile:
    """A file of a twin as recorded: ``bytes`` bytes from ``offset`` on of an object, or with None all of it."""

    kind: Kind
    key: str
    sha256: str
    bytes: int
    offset: int | None = None

    @property
    def span(self) -> tuple[int | None, int | None]:
        """The bytes ``[start, end)`` of the object that are the file; Nones for all."""
        return (None, None) if self.offset is None else (self.offset, self.offset + self.bytes)

    @property
    def place(self) -> str:
        """The file's key and bytes, for messages."""
        start, end = self.span
        return self.key if start is None else f"{self.key} (bytes {start} to {end})"


def sample_files_of(item: SampleRecord) -> tuple[SampleFile, ...]:
    """The image, then the mask and the instance map where there are any; nothing of a failed sample."""
    recorded: tuple[tuple[Kind, str | None, str | None, int | None, int | None], ...] = (
        ("image", item.image_key, item.image_sha256, item.image_bytes, item.image_offset),
        ("mask", item.mask_key, item.mask_sha256, item.mask_bytes, item.mask_offset),
        ("instances", item.instances_key, item.instances_sha256, item.instances_bytes, item.instances_offset),
    )
    return tuple(
        SampleFile(kind, key, sha256, size, offset)
        for kind, key, sha256, size, offset in recorded
        if key is not None and sha256 is not None and size is not None
    )


def read_sample_file(store: ObjectStore, file: SampleFile) -> bytes:
    """The file's bytes; they are read again if they do not have its sha256.

    Raises :class:`ObjectDamaged` if they are wrong again, or what the store raises.
    """
    start, end = file.span
    return read_checked(store, file.key, file.sha256, start=start, end=end)


def read_as_stored(store: ObjectStore, file: SampleFile) -> bytes:
    """The bytes stored in the file's place, unchecked. Raises what the store raises."""
    start, end = file.span
    return store.get(file.key, start=start, end=end)


def group_adjacent(pairs: Iterable[tuple[Owner, SampleRecord]]) -> Iterator[list[tuple[Owner, SampleRecord]]]:
    """The pairs with made samples, in order, grouped so that one request can read a group's files.

    See :func:`read_sample_files`.
    """
    group: list[tuple[Owner, SampleRecord]] = []
    for pair in pairs:
        if pair[1].error is not None:
            continue
        if group and not _one_request([*sample_files_of(group[0][1]), *sample_files_of(pair[1])]):
            yield group
            group = []
        group.append(pair)
    if group:
        yield group


def read_sample_files(store: ObjectStore, files: Sequence[SampleFile]) -> list[bytes]:
    """The bytes of files in their order, as :func:`read_sample_file` returns them.

    Files of one shard that lie within :data:`READ_TOGETHER_BYTES`, in ascending order, are read by one request.
    """
    if len(files) < 2 or not _one_request(files):
        return [read_sample_file(store, file) for file in files]
    first, last = files[0].offset or 0, files[-1].span[1]
    run = memoryview(store.get(files[0].key, start=first, end=last))
    found = []
    for file in files:
        at = (file.offset or 0) - first
        data = bytes(run[at : at + file.bytes])
        # torn or damaged: it is read again alone, and named in the error if it is wrong again
        found.append(data if hashlib.sha256(data).hexdigest() == file.sha256 else read_sample_file(store, file))
    return found


def _one_request(files: Sequence[SampleFile]) -> bool:
    """Whether the files, first to last, are near each other in one shard."""
    if not files or any(file.offset is None or file.key != files[0].key for file in files):
        return False
    end = files[-1].span[1] or 0
    return 0 <= end - (files[0].offset or 0) <= READ_TOGETHER_BYTES
