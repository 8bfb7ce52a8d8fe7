"""A made twin before it is stored, and the record it gets once it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from service.jobs.spec import ItemClass, SampleRecord


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

    def at(self, image: FileLocation, mask: FileLocation | None) -> SampleRecord:
        """The twin's record, its files at these locations; ``mask`` is ignored if the twin has no mask."""
        if self.mask is None:
            mask = None
        return SampleRecord(
            index=self.index,
            seed=self.seed,
            image_key=image.key,
            image_offset=image.offset,
            image_sha256=hashlib.sha256(self.image).hexdigest(),
            image_bytes=len(self.image),
            mask_key=None if mask is None else mask.key,
            mask_offset=None if mask is None else mask.offset,
            mask_sha256=None if mask is None or self.mask is None else hashlib.sha256(self.mask).hexdigest(),
            mask_bytes=None if mask is None or self.mask is None else len(self.mask),
            classes=self.classes,
            confident_share=self.confident_share,
            mean_confidence=self.mean_confidence,
        )
