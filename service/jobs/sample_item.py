"""A made twin before it is stored, and the record it gets once it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from service.jobs.spec import ItemClass, SampleRecord
from service.store import keys
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_immutable


@dataclass(frozen=True)
class FileLocation:
    """Where a file lies: an object of its own, or with ``offset`` (bytes) a part of one."""

    key: str
    offset: int | None = None


@dataclass(frozen=True)
class MadeTwin:
    """A twin's files, both PNG, with its scores; ``mask`` is None for an image alone.

    ``classes``, ``confident_share`` and ``mean_confidence`` are as in :class:`SampleRecord`.
    """

    index: int
    seed: int
    image: bytes
    mask: bytes | None = None
    classes: tuple[ItemClass, ...] = ()
    confident_share: float | None = None
    mean_confidence: float | None = None

    @cached_property
    def image_sha256(self) -> str:
        return hashlib.sha256(self.image).hexdigest()

    @cached_property
    def mask_sha256(self) -> str | None:
        return None if self.mask is None else hashlib.sha256(self.mask).hexdigest()

    def at(self, image: FileLocation, mask: FileLocation | None) -> SampleRecord:
        """The twin's record, its files at these locations; ``mask`` is ignored if the twin has no mask."""
        if self.mask is None:
            mask = None
        return SampleRecord(
            index=self.index,
            seed=self.seed,
            image_key=image.key,
            image_offset=image.offset,
            image_sha256=self.image_sha256,
            image_bytes=len(self.image),
            mask_key=None if mask is None else mask.key,
            mask_offset=None if mask is None else mask.offset,
            mask_sha256=None if mask is None else self.mask_sha256,
            mask_bytes=None if mask is None or self.mask is None else len(self.mask),
            classes=self.classes,
            confident_share=self.confident_share,
            mean_confidence=self.mean_confidence,
        )

    def store(self, store: ObjectStore, job: str) -> SampleRecord:
        """Stores the files as objects of their own, the image first, and returns the twin's record.

        They count once the chunk's record is written. Raises the store's error; the call may then be repeated.
        """
        image, mask = keys.job_image(job, self.index, self.image_sha256), None
        put_immutable(store, StoredObject(key=image, sha256=self.image_sha256, bytes=len(self.image)), self.image)
        if self.mask is not None and self.mask_sha256 is not None:
            mask = keys.job_mask(job, self.index, self.mask_sha256)
            put_immutable(store, StoredObject(key=mask, sha256=self.mask_sha256, bytes=len(self.mask)), self.mask)
        return self.at(FileLocation(image), None if mask is None else FileLocation(mask))
