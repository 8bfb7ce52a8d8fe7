"""Checkpoints of an export in the store, each with what the spools gained since the one before.

The size of a checkpoint depends on what came since the last one, not on the total: the new bytes of all spools are
concatenated in ``{number:06d}.{attempt}.pieces``, and ``{number:06d}.{attempt}.json``, written after it, lists which
spool each piece belongs to and holds everything small. It also names the checkpoint before it. Two workers, one of them
presumed dead, may write an export at the same time, in other bytes; each has a chain of its own, and no checkpoint of
one is continued by the other's. To resume, all checkpoints of the longest whole chain are read in order.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.datasets.writing.state import WriterState
from service.errors import ObjectDamaged, ObjectNotFound
from service.exports.location import ExportLocation, canonical
from service.exports.uploader import Uploader
from service.kit.output_file import ExportFile, Spool
from service.store.checked import READS
from service.store.keys import attempt

logger = logging.getLogger(__name__)
_READ_BYTES = 4 << 20


class SpoolPiece(BaseModel):
    """The bytes that a spool gained: ``bytes`` of them from its byte ``start`` on, in the order of the list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spool: str
    start: int
    bytes: int
    sha256: str


class Checkpoint(BaseModel):
    """The writer's state at one moment.

    ``values`` and the sizes of all ``spools`` are of that moment; ``pieces`` came since the checkpoint before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    number: int
    before: str | None = Field(description="the key of checkpoint number - 1; None for the first")
    gained: str | None = Field(description="the key of the concatenated pieces; None without any")
    values: dict[str, dict[str, Any]]
    spools: dict[str, int]
    pieces: tuple[SpoolPiece, ...]


class _Broken(Exception):
    """The checkpoint at ``key`` is damaged, incomplete or of another export, and so are those that continue it."""

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(detail)
        self.key = key


class Checkpoints:
    """The checkpoints of one export; those with another ``fingerprint`` are of another export and are ignored."""

    def __init__(self, location: ExportLocation, fingerprint: str, scratch: Path, uploader: Uploader) -> None:
        """``uploader`` puts them into the store, after the files that they count."""
        self._location = location
        self._uploader = uploader
        self._fingerprint = fingerprint
        self._scratch = scratch
        self._number = 0
        self._last: str | None = None
        self._saved: dict[str, int] = {}

    def save(self, states: Mapping[str, WriterState]) -> None:
        """Queues the next checkpoint with the present state. Raises what the store raised for any earlier upload."""
        number = self._number + 1
        pieces, sizes = [], {}
        stored: str | None = None
        with Spool(self._scratch) as gained:
            for name, spool in _spools(states):
                start, sizes[name] = self._saved.get(name, 0), spool.size
                if spool.size == start:
                    continue
                digest = hashlib.sha256()
                for data in spool.pieces(start):
                    digest.update(data)
                    gained.write(data)
                pieces.append(SpoolPiece(spool=name, start=start, bytes=spool.size - start, sha256=digest.hexdigest()))
            if pieces:
                key = f"{self._location.checkpoints_prefix}{number:06d}.pieces"
                stored = self._uploader.upload(key, gained.as_file("")).key
        checkpoint = Checkpoint(
            fingerprint=self._fingerprint,
            number=number,
            before=self._last,
            gained=stored,
            values={part: state.values for part, state in states.items()},
            spools=sizes,
            pieces=tuple(pieces),
        )
        key = f"{self._location.checkpoints_prefix}{number:06d}.json"
        self._last = self._uploader.upload(key, ExportFile.of("", canonical(checkpoint.model_dump(mode="json")))).key
        self._number, self._saved = number, sizes

    def load(self) -> dict[str, WriterState] | None:
        """The states of the last checkpoint of the longest whole chain, or None. Raises what the store raises.

        A checkpoint that is damaged, or lacks its pieces, is ignored with those that continue it.
        """
        known: dict[str, Checkpoint] = {}
        broken: set[str] = set()
        for key in self._newest_first():
            for reading in range(READS):
                try:
                    chain = self._chain(key, known, broken)
                    states = self._restored(chain)
                except _Broken as error:
                    if error.key in broken:
                        break
                    if reading + 1 == READS:  # fewer are most likely torn reads
                        logger.warning("%s is ignored: %s", error.key, error)
                        broken.add(error.key)
                    known.pop(error.key, None)
                    continue
                self._number, self._last, self._saved = len(chain), key, dict(chain[key].spools)
                return states
        return None

    def _newest_first(self) -> list[str]:
        """The keys of all checkpoints, those of the highest number first."""
        listed = (info.key for info in self._location.store.list(self._location.checkpoints_prefix))
        return sorted((key for key in listed if key.endswith(".json")), reverse=True)

    def _chain(self, key: str, known: dict[str, Checkpoint], broken: set[str]) -> dict[str, Checkpoint]:
        """The checkpoints up to the one at ``key`` by their keys, the first one first. Raises _Broken."""
        chain: list[tuple[str, Checkpoint]] = []
        at: str | None = key
        while at is not None:
            if at in broken:
                raise _Broken(at, "it was ignored before")
            found = known[at] = known.get(at) or self._read_checkpoint(at)
            if chain and found.number != chain[-1][1].number - 1:
                raise _Broken(chain[-1][0], f"it names {at} as the one before it")
            chain.append((at, found))
            at = found.before
        if chain[-1][1].number != 1:
            raise _Broken(chain[-1][0], "it names none before it")
        return dict(reversed(chain))

    def _read_checkpoint(self, key: str) -> Checkpoint:
        try:
            data = self._location.store.get(key)
            found = Checkpoint.model_validate_json(data)
        except (ObjectNotFound, ValidationError, ObjectDamaged) as error:
            raise _Broken(key, str(error)) from None
        if f".{attempt(hashlib.sha256(data).hexdigest())}." not in key:
            raise _Broken(key, "it is damaged")
        if found.fingerprint != self._fingerprint:
            raise _Broken(key, "it belongs to another export or version of the code")
        return found

    def _restored(self, chain: Mapping[str, Checkpoint]) -> dict[str, WriterState]:
        key, last = list(chain.items())[-1]
        spools = {name: Spool(self._scratch) for name in last.spools}
        try:
            for each, checkpoint in chain.items():
                at = 0
                for piece in checkpoint.pieces:
                    # spools that were finished since are no longer needed
                    if piece.spool in spools:
                        self._read(each, checkpoint, at, piece, spools[piece.spool])
                    at += piece.bytes
            for name, size in last.spools.items():
                if spools[name].size != size:
                    raise _Broken(key, f"{name} has {spools[name].size} of {size} bytes")
        except BaseException:
            for spool in spools.values():
                spool.close()
            raise
        return {
            part: WriterState(
                values,
                {name.removeprefix(f"{part}/"): spool for name, spool in spools.items() if name.startswith(f"{part}/")},
            )
            for part, values in last.values.items()
        }

    def _read(self, key: str, checkpoint: Checkpoint, at: int, piece: SpoolPiece, spool: Spool) -> None:
        """Appends a piece to its spool, ``_READ_BYTES`` in memory at a time."""
        if spool.size != piece.start or checkpoint.gained is None:
            raise _Broken(key, f"a piece of {piece.spool} begins at {piece.start}, not {spool.size}")
        digest = hashlib.sha256()
        end = at + piece.bytes
        try:
            for start in range(at, end, _READ_BYTES):
                data = self._location.store.get(checkpoint.gained, start=start, end=min(start + _READ_BYTES, end))
                digest.update(data)
                spool.write(data)
        except (ObjectNotFound, ObjectDamaged) as error:
            raise _Broken(key, str(error)) from None
        if digest.hexdigest() != piece.sha256:
            raise _Broken(key, f"the piece of {piece.spool} is damaged")


def _spools(states: Mapping[str, WriterState]) -> Iterator[tuple[str, Spool]]:
    for part, state in states.items():
        for name, spool in state.spools.items():
            yield f"{part}/{name}", spool
