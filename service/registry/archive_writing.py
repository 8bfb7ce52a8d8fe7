"""A model as one tar: ``card.json``, its weights, and ``SHA256SUMS``, which ``sha256sum -c`` reads.

The same model always gives the same bytes, and its length is known before the first of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model_store.card import ModelCard
from service.kit import tar

CARD = "card.json"
SUMS = "SHA256SUMS"
_PIECE_BYTES = 1 << 20
ReadFile = Callable[[str], Iterable[bytes]]
"""Gives the pieces of a file of the model, by its name in the card."""


@dataclass(frozen=True)
class ModelArchive:
    """The archive of a model. ``read`` is called once for each file, in order, while the archive is read."""

    card: ModelCard
    read: ReadFile

    @property
    def name(self) -> str:
        """What a file with the archive is called."""
        return f"{self.card.name}-{self.card.version}.tar"

    @property
    def size(self) -> int:
        """The length of the archive in bytes."""
        members = sum(tar.member_bytes(len(data)) for data in (self._card(), self._sums()))
        members += sum(tar.member_bytes(file.bytes) for file in self.card.files.values())
        return members + len(tar.end(members))

    def pieces(self) -> Iterator[bytes]:
        """The archive's bytes. Raises what reading the model's files raises; ValueError if one has another length."""
        head = tar.members((CARD, self._card()), (SUMS, self._sums()))
        written = len(head)
        yield head
        for name, file in self.card.files.items():
            yield tar.header(name, file.bytes)
            found = 0
            for piece in self.read(name):
                found += len(piece)
                yield piece
            if found != file.bytes:
                raise ValueError(f"{name} of {self.card.id} has {found} bytes, but the card says {file.bytes}")
            yield tar.padding(file.bytes)
            written += tar.member_bytes(file.bytes)
        yield tar.end(written)

    def _card(self) -> bytes:
        return (self.card.model_dump_json(indent=2) + "\n").encode()

    def _sums(self) -> bytes:
        hashes = {CARD: hashlib.sha256(self._card()).hexdigest()}
        hashes |= {name: file.sha256 for name, file in self.card.files.items()}
        return "".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items()).encode()


def folder_archive(card: ModelCard, folder: Path) -> ModelArchive:
    """The archive of a model folder."""
    return ModelArchive(card, lambda name: _pieces(folder / name))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
