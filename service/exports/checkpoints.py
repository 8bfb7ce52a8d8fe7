"""How far an export is, in the store: small JSON, and what was gathered since the checkpoint before.

A checkpoint costs what came since the last one, however much there is in all: the bytes that the spools gained lie one
behind the other in ``{number:06d}.pieces``, and ``{number:06d}.json``, written after them, says whose they are and
holds everything small. Taken up again, all checkpoints are read in order. Their bytes hang on the items alone, so two
that write the same one, because one of them was taken for dead, write the same.
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
from service.exports.location import StorePlace, canonical
from service.exports.uploader import Sender
from service.kit.output_file import ExportFile, Spool
from service.store.checked import READS

logger = logging.getLogger(__name__)
_WINDOW_BYTES = 4 << 20


class SpoolPiece(BaseModel):
    """What a spool gained: ``bytes`` bytes from its byte ``start`` on. Pieces lie in the order in which they are
    listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spool: str
    start: int
    bytes: int
    sha256: str


class Checkpoint(BaseModel):
    """``values`` and the sizes of all ``spools`` are of that moment, ``pieces`` are what came since the checkpoint
    before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    number: int
    values: dict[str, dict[str, Any]]
    spools: dict[str, int]
    pieces: tuple[SpoolPiece, ...]


class _Broken(Exception):
    """Checkpoint ``number`` cannot be used."""

    def __init__(self, number: int, detail: str) -> None:
        super().__init__(detail)
        self.number = number


class Checkpoints:
    """Those of one export. Checkpoints with another ``fingerprint`` are of something else, and are written over."""

    def __init__(self, place: StorePlace, fingerprint: str, scratch: Path, sender: Sender) -> None:
        """``sender`` puts them into the store, behind the files that they count."""
        self._place = place
        self._sender = sender
        self._fingerprint = fingerprint
        self._scratch = scratch
        self._number = 0
        self._saved: dict[str, int] = {}

    def save(self, states: Mapping[str, WriterState]) -> None:
        """Sends the next checkpoint on its way, with everything as it is now. Raises what the store raised of anything
        sent."""
        number = self._number + 1
        pieces, sizes = [], {}
        with Spool(self._scratch) as gathered:
            for name, spool in _spools(states):
                start, sizes[name] = self._saved.get(name, 0), spool.size
                if spool.size == start:
                    continue
                digest = hashlib.sha256()
                for data in spool.pieces(start):
                    digest.update(data)
                    gathered.write(data)
                pieces.append(SpoolPiece(spool=name, start=start, bytes=spool.size - start, sha256=digest.hexdigest()))
            if pieces:
                self._sender.send(self._pieces_key(number), gathered.as_file(""))
        checkpoint = Checkpoint(
            fingerprint=self._fingerprint,
            number=number,
            values={part: state.values for part, state in states.items()},
            spools=sizes,
            pieces=tuple(pieces),
        )
        self._sender.send(self._json_key(number), ExportFile.of("", canonical(checkpoint.model_dump(mode="json"))))
        self._number, self._saved = number, sizes

    def load(self) -> dict[str, WriterState] | None:
        """What the last checkpoint that is whole had; None where there is none. Raises what the store raises.

        One that is damaged, or lacks its pieces, is passed over for the one before.
        """
        chain, tries = self._chain(), 0
        while chain:
            tries += 1
            try:
                states = self._restored(chain)
            except _Broken as broken:
                if tries < READS:
                    continue  # read torn, most likely
                logger.warning("checkpoint %d in %s is not used: %s", broken.number, self._place.prefix, broken)
                chain, tries = chain[: broken.number - 1], 0
                continue
            self._number, self._saved = len(chain), dict(chain[-1].spools)
            return states
        return None

    def _chain(self) -> list[Checkpoint]:
        """Checkpoints 1, 2, ... as far as they go."""
        chain: list[Checkpoint] = []
        while True:
            number = len(chain) + 1
            try:
                found = Checkpoint.model_validate_json(self._place.store.get(self._json_key(number)))
            except ObjectNotFound:
                return chain
            except (ValidationError, ObjectDamaged) as error:
                logger.warning("checkpoint %d in %s is not used: %s", number, self._place.prefix, error)
                return chain
            if found.fingerprint != self._fingerprint or found.number != number:
                logger.warning(
                    "checkpoint %d in %s is of another export or version, and not used", number, self._place.prefix
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
                    # spools that were finished since are not needed any more
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
        """Adds a piece to its spool, a window in memory at a time."""
        if spool.size != piece.start:
            raise _Broken(number, f"a piece of {piece.spool} begins at {piece.start}, not {spool.size}")
        digest = hashlib.sha256()
        end = at + piece.bytes
        try:
            for start in range(at, end, _WINDOW_BYTES):
                data = self._place.store.get(self._pieces_key(number), start=start, end=min(start + _WINDOW_BYTES, end))
                digest.update(data)
                spool.write(data)
        except (ObjectNotFound, ObjectDamaged) as error:
            raise _Broken(number, str(error)) from None
        if digest.hexdigest() != piece.sha256:
            raise _Broken(number, f"the piece of {piece.spool} is damaged")

    def _json_key(self, number: int) -> str:
        return f"{self._place.checkpoints_prefix}{number:06d}.json"

    def _pieces_key(self, number: int) -> str:
        return f"{self._place.checkpoints_prefix}{number:06d}.pieces"


def _spools(states: Mapping[str, WriterState]) -> Iterator[tuple[str, Spool]]:
    for part, state in states.items():
        for name, spool in state.spools.items():
            yield f"{part}/{name}", spool
