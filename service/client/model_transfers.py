"""Transfers of models: a folder or a tar to the server, and a model's card and weights from it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from model_store.card import CardInvalid, ModelCard, load_card, write_card
from service.client.client import BaseClient
from service.client.effects import CHUNK_BYTES, Call, Flow, Request
from service.client.retries import fetch, parse, send
from service.client.views import Model
from service.client.wire import path as url_path
from service.errors import CardError, InvalidRequest
from service.registry.archive_reading import ArchiveReader
from service.registry.archive_writing import ModelArchive, folder_archive

TAR = "application/x-tar"
_UPLOAD_TIMEOUT_S = 600.0
"""The server responds once the weights are stored, which may take a while after the last byte."""
_MAX_BYTES = 1 << 40


def add_model(client: BaseClient, path: str | Path, *, candidate: bool = False, progress: bool = True) -> Flow[Model]:
    """Registers the model in a folder, or in a tar that was downloaded, and returns it. Example::

        client.add_model("runs/polyps/model")

    A folder holds a ``card.json`` and the ``*.safetensors`` that it names. A version never changes: the same model
    again changes nothing. ``candidate``: the name alone does not choose the version until it is promoted.

    Raises InvalidRequest or CardError for a path that is no model; ApiProblem (422) for one that the server refuses,
    and (409) for a version or a name that is taken.
    """
    body = yield Call(lambda: _open(Path(path).expanduser()))
    # a cheap request first: gigabytes should not be sent to an unreachable server or with a wrong key
    yield from send(client.config, Request("GET", "/models"))
    with client.progress_display.bar(progress, "Uploading", "bytes") as bar:
        bar.update(0, body.size)
        body.on_progress = bar.advance
        params = {"candidate": "true"} if candidate else {}
        request = Request(
            "POST", "/models", params, content=body, headers={"Content-Type": TAR}, timeout_s=_UPLOAD_TIMEOUT_S
        )
        return parse(Model, (yield from send(client.config, request)))


def download_model(client: BaseClient, name: str, path: str | Path, *, progress: bool = True) -> Flow[Path]:
    """Downloads a model's card and weights, and returns the path. Example::

        client.download_model("polyps@stable", "polyps.tar")

    A path that ends in ``.tar`` becomes the archive as the server sends it; any other becomes a model folder, whose
    files are checked against the card. Raises InvalidRequest for a path that exists, and ApiProblem.
    """
    target = Path(path).expanduser()
    yield Call(lambda: _check_new(target))
    with client.progress_display.bar(progress, "Fetching", "bytes") as bar, _Received(target, bar.advance) as received:
        bar.update(0, None)
        request = Request("GET", url_path("models", name, "archive"))
        yield from fetch(client.config, request, received)
        yield Call(received.commit)
    return target


def unpack_model(archive: Path, folder: Path) -> ModelCard:
    """Writes the model of an archive to ``folder``, which must not exist; its card. Raises InvalidModel."""
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name[:80]}.", suffix=".part", dir=folder.absolute().parent))
    reader = ArchiveReader(part, max_bytes=_MAX_BYTES)
    try:
        with archive.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                reader.feed(piece)
        card = reader.finish().card
        write_card(part, card)
        part.chmod(0o777 & ~_umask())
        _check_new(folder)
        part.rename(folder)
    finally:
        reader.close()
        shutil.rmtree(part, ignore_errors=True)
    return card


@dataclass
class _Body:
    """A model that is read while it is sent."""

    size: int
    pieces: Callable[[], Iterator[bytes]]
    on_progress: Callable[[int], None] = field(default=lambda more: None)

    def chunks(self) -> Iterator[bytes]:
        """The whole archive, from the beginning."""
        sent = 0
        try:
            for piece in self.pieces():
                yield piece
                sent += len(piece)
                self.on_progress(len(piece))
        finally:
            if sent < self.size:
                self.on_progress(-sent)


def _open(path: Path) -> _Body:
    try:
        if path.is_dir():
            archive = model_folder_archive(path)
            return _Body(archive.size, archive.pieces)
        size = path.stat().st_size
    except OSError as error:
        raise InvalidRequest(f"the model {path} cannot be read: {error.strerror or error}") from None

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece

    return _Body(size, pieces)


def model_folder_archive(folder: Path) -> ModelArchive:
    """The archive of a model folder. Raises CardError, or InvalidRequest for a file of another length."""
    try:
        card = load_card(folder)
    except CardInvalid as error:
        raise CardError(str(error)) from None
    for name, file in card.files.items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != file.bytes:
            found = "does not exist" if size is None else f"has {size} bytes, but the card says {file.bytes}"
            raise InvalidRequest(f"{folder / name} {found}; export the model again")
    return folder_archive(card, folder)


def _check_new(target: Path) -> None:
    if os.path.lexists(target):
        raise InvalidRequest(f"{target} exists already; name a new file that ends in .tar, or a new folder")
    if not target.absolute().parent.is_dir():
        raise InvalidRequest(f"the folder {target.absolute().parent} does not exist; create it first")


class _Received:
    """A model's archive as it arrives: a sink whose bytes become the target only with :meth:`commit`."""

    def __init__(self, target: Path, on_progress: Callable[[int], None]) -> None:
        self._target = target
        self._on_progress = on_progress
        self._out: BinaryIO | None = None
        self.size = 0

    def __enter__(self) -> _Received:
        place = self._target.absolute()
        number, name = tempfile.mkstemp(prefix=f".{place.name[:80]}.", suffix=".part", dir=place.parent)
        self._part, self._out = Path(name), os.fdopen(number, "wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._out is not None
        self._out.close()
        self._part.unlink(missing_ok=True)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Starts over; the server sends archives whole."""
        assert self._out is not None
        self._out.seek(0)
        self._out.truncate()
        self._on_progress(-self.size)
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        assert self._out is not None
        self._out.write(chunk)
        self.size += len(chunk)
        self._on_progress(len(chunk))

    def commit(self) -> None:
        """Makes what has arrived the target: as it is, or unpacked."""
        assert self._out is not None
        self._out.close()
        if self._target.suffix == ".tar":
            _check_new(self._target)
            self._part.chmod(0o666 & ~_umask())
            self._part.rename(self._target)
        else:
            unpack_model(self._part, self._target)


def _umask() -> int:
    found = os.umask(0o022)
    os.umask(found)
    return found
