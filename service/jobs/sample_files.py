"""Reading what a twin's item says of its image and mask, wherever they lie: nobody gets other bytes than the recorded
ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from service.jobs.spec import SampleRecord
from service.store.base import ObjectStore
from service.store.checked import read_checked

Kind = Literal["image", "mask"]
READ_TOGETHER_BYTES = 4 << 20
"""The most that one request asks for where it reads several pictures; a larger picture is read alone."""
Owner = TypeVar("Owner")


@dataclass(frozen=True)
class SampleFile:
    """An image or a mask as recorded: ``bytes`` bytes from ``offset`` on of an object, or with None all of it."""

    kind: Kind
    key: str
    sha256: str
    bytes: int
    offset: int | None = None

    @property
    def span(self) -> tuple[int | None, int | None]:
        """The bytes ``[start, end)`` of the object that are the picture; Nones for all."""
        return (None, None) if self.offset is None else (self.offset, self.offset + self.bytes)

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        start, end = self.span
        return self.key if start is None else f"{self.key} (bytes {start} to {end})"


def sample_files_of(item: SampleRecord) -> tuple[SampleFile, ...]:
    """The image, then the mask if there is one; nothing of a sample that was given up."""
    found: list[SampleFile] = []
    if item.image_key is not None and item.image_sha256 is not None and item.image_bytes is not None:
        found.append(SampleFile("image", item.image_key, item.image_sha256, item.image_bytes, item.image_offset))
    if item.mask_key is not None and item.mask_sha256 is not None and item.mask_bytes is not None:
        found.append(SampleFile("mask", item.mask_key, item.mask_sha256, item.mask_bytes, item.mask_offset))
    return tuple(found)


def read_sample_file(store: ObjectStore, picture: SampleFile) -> bytes:
    """The picture's bytes; read again where they are not those of its sha256.

    Raises :class:`ObjectDamaged` if they stay others, or what the store raises.
    """
    start, end = picture.span
    return read_checked(store, picture.key, picture.sha256, start=start, end=end)


def read_as_stored(store: ObjectStore, picture: SampleFile) -> bytes:
    """What lies where the picture should, right or wrong. Raises what the store raises."""
    start, end = picture.span
    return store.get(picture.key, start=start, end=end)


def group_adjacent(pairs: Iterable[tuple[Owner, SampleRecord]]) -> Iterator[list[tuple[Owner, SampleRecord]]]:
    """The made ones of the pairs, in order, those together whose pictures one request can read: see
    :func:`read_sample_files`."""
    held: list[tuple[Owner, SampleRecord]] = []
    for pair in pairs:
        if pair[1].error is not None:
            continue
        if held and not _one_request([*sample_files_of(held[0][1]), *sample_files_of(pair[1])]):
            yield held
            held = []
        held.append(pair)
    if held:
        yield held


def read_sample_files(store: ObjectStore, pictures: Sequence[SampleFile]) -> list[bytes]:
    """The bytes of pictures in their order, as :func:`read_sample_file` gives them.

    Of several in one shard that lie within :data:`READ_TOGETHER_BYTES`, in ascending order, all come by one request.
    """
    if len(pictures) < 2 or not _one_request(pictures):
        return [read_sample_file(store, picture) for picture in pictures]
    first, last = pictures[0].offset or 0, pictures[-1].span[1]
    run = memoryview(store.get(pictures[0].key, start=first, end=last))
    found = []
    for picture in pictures:
        at = (picture.offset or 0) - first
        data = bytes(run[at : at + picture.bytes])
        # torn or damaged: by itself it is read again, and told by name if it stays so
        found.append(data if hashlib.sha256(data).hexdigest() == picture.sha256 else read_sample_file(store, picture))
    return found


def _one_request(pictures: Sequence[SampleFile]) -> bool:
    """Whether the pictures, first to last, are near each other in one shard."""
    if not pictures or any(picture.offset is None or picture.key != pictures[0].key for picture in pictures):
        return False
    end = pictures[-1].span[1] or 0
    return 0 <= end - (pictures[0].offset or 0) <= READ_TOGETHER_BYTES
