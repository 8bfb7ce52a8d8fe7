"""A made twin before it is stored, and the record it gets once it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from service.jobs.sample_files import Kind
from service.jobs.spec import ItemClass, SampleRecord
from service.store import keys
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_immutable


@dataclass(frozen=True)
class FileLocation:
    """Where a file lies: an object of its own, or with ``offset`` (bytes) a part of one."""

    key: str
    offset: int | None = None


_KEYS: Mapping[Kind, Callable[[str, int, str], str]] = {
    "image": keys.job_image,
    "mask": keys.job_mask,
    "instances": keys.job_instances,
}


@dataclass(frozen=True)
class MadeTwin:
    """A twin's files, all PNG, with its scores; ``mask`` is None for an image alone.

    ``instances`` is None unless its mask came with them. ``classes``, ``confident_share`` and ``mean_confidence`` are
    as in :class:`SampleRecord`.
    """

    index: int
    seed: int
    image: bytes
    mask: bytes | None = None
    classes: tuple[ItemClass, ...] = ()
    confident_share: float | None = None
    mean_confidence: float | None = None
    instances: bytes | None = None

    @cached_property
    def files(self) -> Mapping[Kind, bytes]:
        """The files that there are, in the order of :func:`service.jobs.sample_files.sample_files_of`."""
        found: dict[Kind, bytes | None] = {"image": self.image, "mask": self.mask, "instances": self.instances}
        return {kind: data for kind, data in found.items() if data is not None}

    @cached_property
    def sha256(self) -> Mapping[Kind, str]:
        """The hashes of the files."""
        return {kind: hashlib.sha256(data).hexdigest() for kind, data in self.files.items()}

    def at(self, places: Mapping[Kind, FileLocation]) -> SampleRecord:
        """The twin's record, its files at these locations."""
        recorded = {
            f"{kind}_{name}": value
            for kind, data in self.files.items()
            for name, value in (
                ("key", places[kind].key),
                ("offset", places[kind].offset),
                ("sha256", self.sha256[kind]),
                ("bytes", len(data)),
            )
        }
        return SampleRecord.model_validate(
            {
                "index": self.index,
                "seed": self.seed,
                **recorded,
                "classes": self.classes,
                "confident_share": self.confident_share,
                "mean_confidence": self.mean_confidence,
            }
        )

    def store(self, store: ObjectStore, job: str) -> SampleRecord:
        """Stores the files as objects of their own, the image first, and returns the twin's record.

        They count once the chunk's record is written. Raises the store's error; the call may then be repeated.
        """
        places = {}
        for kind, data in self.files.items():
            sha256 = self.sha256[kind]
            places[kind] = FileLocation(_KEYS[kind](job, self.index, sha256))
            put_immutable(store, StoredObject(key=places[kind].key, sha256=sha256, bytes=len(data)), data)
        return self.at(places)
