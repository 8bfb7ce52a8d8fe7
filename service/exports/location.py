"""Where an export lies in the object store, and what it consists of once it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.datasets.writing.skipped import LeftOutGroup
from service.errors import ObjectDamaged, ObjectNotFound
from service.store.base import ObjectStore

_PIECE_BYTES = 1 << 20


class StoredFile(BaseModel):
    """A file of the export: ``path`` below its files, as it is to be called by whoever fetches it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    bytes: int = Field(ge=0)
    sha256: str


class ExportResult(BaseModel):
    """A finished export. ``items`` counts those written by source, ``splits`` by split; ``bytes`` is the sum of its
    files."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    items: dict[str, int] = Field(description='{"real": ..., "synthetic": ...}')
    splits: dict[str, int]
    left_out: dict[str, int] = Field(description="items that are not in it, by reason")
    left_out_first: tuple[LeftOutGroup, ...] = Field(
        description="each reason with what it means, and the first that it met"
    )
    files: int = Field(ge=0)
    bytes: int = Field(ge=0)


@dataclass(frozen=True)
class StorePlace:
    """Everything below ``prefix``, which ends in '/', belongs to one export:

    files/{path}                    its files, each whole
    checkpoints/{number:06d}.json   how far it is; .pieces beside it, what was gathered since the checkpoint before
    files.jsonl                     its files, a line each: path, bytes, sha256
    result.json                     the last to be written: the export is whole
    """

    store: ObjectStore
    prefix: str

    def __post_init__(self) -> None:
        if not self.prefix.endswith("/"):
            raise ValueError(f"the prefix {self.prefix!r} must end in '/'")

    def file(self, path: str) -> str:
        """The key of a file."""
        return f"{self.prefix}files/{path}"

    @property
    def files_prefix(self) -> str:
        """What the keys of all files begin with."""
        return f"{self.prefix}files/"

    @property
    def checkpoints_prefix(self) -> str:
        """What the keys of all checkpoints begin with."""
        return f"{self.prefix}checkpoints/"

    @property
    def index(self) -> str:
        """The key of the list of files."""
        return f"{self.prefix}files.jsonl"

    @property
    def result(self) -> str:
        """The key of the result."""
        return f"{self.prefix}result.json"

    def read_result(self) -> ExportResult | None:
        """The result; None while the export is not whole. Raises ObjectDamaged, or what the store raises."""
        try:
            text = self.store.get(self.result)
        except ObjectNotFound:
            return None
        try:
            return ExportResult.model_validate_json(text)
        except ValidationError as error:
            fault = error.errors()[0]["msg"]
            raise ObjectDamaged(
                f"{self.result} in the object store is no result of an export ({fault}); delete it", key=self.result
            ) from None

    def read_files(self) -> Iterator[StoredFile]:
        """The files of a whole export in the order in which they were written, one in memory at a time."""
        for line in _lines(self.store.stream(self.index, chunk_bytes=_PIECE_BYTES)):
            yield StoredFile.model_validate_json(line)


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        *whole, held = (held + piece).split(b"\n")
        yield from whole
    if held:
        yield held


def canonical(value: object) -> bytes:
    """A value as JSON: the same bytes whatever order its members came in."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
