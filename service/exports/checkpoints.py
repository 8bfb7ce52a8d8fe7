"""Checkpoints of an export in the store, each with what the spools gained since the one before.

The size of a checkpoint depends on what came since the last one, not on the total: the new bytes of all spools are
concatenated in ``{number:06d}.pieces``, and ``{number:06d}.json``, written after it, lists which spool each piece
belongs to and holds everything small. To resume, all checkpoints are read in order. Their bytes depend on the items
alone, so two workers that write the same checkpoint (the first was presumed dead) write the same bytes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from service.datasets.writing.state import WriterState
from service.errors import ObjectDamaged, ObjectNotFound
from service.exports.location import ExportLocation, canonical
from service.exports.uploader import Uploader
from service.kit.output_file import ExportFile, Spool
from service.store.checked import READS

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
    values: dict[str, dict[str, Any]]
    spools: dict[str, int]
    pieces: tuple[SpoolPiece, ...]


class _Broken(Exception):
    """Checkpoint ``number`` is damaged or incomplete."""

    def __init__(self, number: int, detail: str) -> None:
        super().__init__(detail)
        self.number = number


class Checkpoints:
    """The checkpoints of one export; those with another ``fingerprint`` are of another export and are overwritten."""

    def __init__(self, location: ExportLocation, fingerprint: str, scratch: Path, uploader: Uploader) -> None:
        """``uploader`` puts them into the store, after the files that they count."""
        self._location = location
        self._uploader = uploader
        self._fingerprint = fingerprint
        self._scratch = scratch
        self._number = 0
        self._saved: dict[str, int] = {}

    def save(self, states: Mapping[str, WriterState]) -> None:
        """Queues the next checkpoint with the present state. Raises what the store raised for any earlier upload."""
        number = self._number + 1
        pieces, sizes = [], {}
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
                self._uploader.upload(self._pieces_key(number), gained.as_file(""))
        checkpoint = Checkpoint(
            fingerprint=self._fingerprint,
            number=number,
            values={part: state.values for part, state in states.items()},
            spools=sizes,
            pieces=tuple(pieces),
        )
        self._uploader.upload(self._json_key(number), ExportFile.of("", canonical(checkpoint.model_dump(mode="json"))))
        self._number, self._saved = number, sizes

    def load(self) -> dict[str, WriterState] | None:
        """The states of the last whole checkpoint, or None if there is none. Raises what the store raises.

        A checkpoint that is damaged, or lacks its pieces, is ignored in favour of the one before it.
        """
        chain, tries = self._chain(), 0
        while chain:
            tries += 1
            try:
                states = self._restored(chain)
            except _Broken as broken:
                if tries < READS:
                    continue  # most likely a torn read
                logger.warning("checkpoint %d in %s is ignored: %s", broken.number, self._location.prefix, broken)
                chain, tries = chain[: broken.number - 1], 0
                continue
            self._number, self._saved = len(chain), dict(chain[-1].spools)
            return states
        return None

    def _chain(self) -> list[Checkpoint]:
        """Checkpoints 1, 2, ... up to the first that is missing, damaged or of another export."""
        chain: list[Checkpoint] = []
        while True:
            number = len(chain) + 1
            try:
                found = Checkpoint.model_validate_json(self._location.store.get(self._json_key(number)))
            except ObjectNotFound:
                return chain
            except (ValidationError, ObjectDamaged) as error:
                logger.warning("checkpoint %d in %s is ignored: %s", number, self._location.prefix, error)
                return chain
            if found.fingerprint != self._fingerprint or found.number != number:
                logger.warning(
                    "checkpoint %d in %s is ignored: it belongs to another export or version of the code",
                    number,
                    self._location.prefix,
                )
                return chain
            chain.append(found)

    def _restored(self, chain: list[Checkpoint]) -> dict[str, WriterState]:
        last = chain[-1]
        spools = {name: Spool(self._scratch) for name in last.spools}
        try:
            for checkpoint in chain:
                at = 0
                for piece in checkpoint.pieces:
                    # spools that were finished since are no longer needed
                    if piece.spool in spools:
                        self._read(checkpoint.number, at, piece, spools[piece.spool])
                    at += piece.bytes
            for name, size in last.spools.items():
                if spools[name].size != size:
                    raise _Broken(last.number, f"{name} has {spools[name].size} of {size} bytes")
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

    def _read(self, number: int, at: int, piece: SpoolPiece, spool: Spool) -> None:
        """Appends a piece to its spool, ``_READ_BYTES`` in memory at a time."""
        if spool.size != piece.start:
            raise _Broken(number, f"a piece of {piece.spool} begins at {piece.start}, not {spool.size}")
        digest = hashlib.sha256()
        end = at + piece.bytes
        try:
            for start in range(at, end, _READ_BYTES):
                data = self._location.store.get(
                    self._pieces_key(number), start=start, end=min(start + _READ_BYTES, end)
                )
                digest.update(data)
                spool.write(data)
        except (ObjectNotFound, ObjectDamaged) as error:
            raise _Broken(number, str(error)) from None
        if digest.hexdigest() != piece.sha256:
            raise _Broken(number, f"the piece of {piece.spool} is damaged")

    def _json_key(self, number: int) -> str:
        return f"{self._location.checkpoints_prefix}{number:06d}.json"

    def _pieces_key(self, number: int) -> str:
        return f"{self._location.checkpoints_prefix}{number:06d}.pieces"


def _spools(states: Mapping[str, WriterState]) -> Iterator[tuple[str, Spool]]:
    for part, state in states.items():
        for name, spool in state.spools.items():
            yield f"{part}/{name}", spool
