"""The keys of an export's objects in the store, and the result that lists what it consists of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.datasets.writing.skipped import SkippedGroup
from service.errors import ObjectDamaged, ObjectNotFound
from service.store.base import ObjectStore
from service.store.immutable import StoredObject
from service.store.keys import with_attempt

_CHUNK_BYTES = 1 << 20


class StoredFile(BaseModel):
    """A file of the export. ``path`` is the name to give it after download."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    bytes: int = Field(ge=0)
    sha256: str
    key: str | None = Field(None, description="None in earlier exports, whose keys have no attempt")


class ExportResult(BaseModel):
    """A finished export: items written by source, items by split, items skipped by reason, and its files.

    ``bytes`` is the sum of the files' sizes.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    items: dict[str, int] = Field(description='{"real": ..., "synthetic": ...}')
    splits: dict[str, int]
    skipped: dict[str, int] = Field(description="items that are not in it, by reason")
    skipped_details: tuple[SkippedGroup, ...] = Field(
        description="each reason with its meaning and the first items skipped for it"
    )
    notes: tuple[str, ...] = Field(
        (), description="what its user should know besides: renamed items, splits that trainers miss"
    )
    files: int = Field(ge=0)
    bytes: int = Field(ge=0)
    index: StoredObject | None = Field(None, description="the list of its files; None in earlier exports")


@dataclass(frozen=True)
class ExportLocation:
    """The objects of one export, all below ``prefix``, which ends in '/':

    files/{path}, with the attempt before its suffix    its files, each whole
    checkpoints/{number:06d}.{attempt}.json             the writer's state, which names the checkpoint before it
    checkpoints/{number:06d}.{attempt}.pieces           what the spools gained since that one
    files.{attempt}.jsonl                               its files, a line each: :class:`StoredFile`
    result.json                                         written last and once: the export is whole, and names its files

    Two workers may write an export at the same time, one of them presumed dead. They share no key unless they wrote the
    same bytes (:mod:`service.store.immutable`), and the result says which files count.
    """

    store: ObjectStore
    prefix: str

    def __post_init__(self) -> None:
        if not self.prefix.endswith("/"):
            raise ValueError(f"the prefix {self.prefix!r} must end in '/'")

    def file(self, path: str, sha256: str) -> str:
        """The key of a file with this sha256."""
        return with_attempt(f"{self.prefix}files/{path}", sha256)

    def key_of(self, file: StoredFile) -> str:
        """The key of a file of a whole export."""
        return f"{self.prefix}files/{file.path}" if file.key is None else file.key

    @property
    def files_prefix(self) -> str:
        """The common prefix of all files' keys."""
        return f"{self.prefix}files/"

    @property
    def indexes_prefix(self) -> str:
        """The common prefix of the keys of all lists of files."""
        return f"{self.prefix}files."

    @property
    def checkpoints_prefix(self) -> str:
        """The common prefix of all checkpoints' keys."""
        return f"{self.prefix}checkpoints/"

    @property
    def index(self) -> str:
        """The key of the list of files, without its attempt."""
        return f"{self.prefix}files.jsonl"

    @property
    def result(self) -> str:
        """The key of the result."""
        return f"{self.prefix}result.json"

    def read_result(self) -> ExportResult | None:
        """The result, or None while the export is not whole. Raises ObjectDamaged, or what the store raises."""
        try:
            text = self.store.get(self.result)
        except ObjectNotFound:
            return None
        try:
            return ExportResult.model_validate_json(text)
        except ValidationError as error:
            fault = error.errors()[0]["msg"]
            raise ObjectDamaged(
                f"{self.result} in the object store is not a valid export result ({fault}); delete it", key=self.result
            ) from None

    def read_files(self) -> Iterator[StoredFile]:
        """The files of a whole export in the order in which they were written, one in memory at a time."""
        result = self.read_result()
        key = self.index if result is None or result.index is None else result.index.key
        for line in _lines(self.store.stream(key, chunk_bytes=_CHUNK_BYTES)):
            yield StoredFile.model_validate_json(line)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def canonical(value: object) -> bytes:
    """A value as JSON with sorted members, so that equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
