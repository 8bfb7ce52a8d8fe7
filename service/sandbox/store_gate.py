"""The object store as a child sees it, through its parent: a few calls, on the keys that its work needs.

The child has no address and no secret of the store. What it calls is checked here, by the parent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.errors import ObjectExists, ObjectNotFound
from service.sandbox.channel import Channel
from service.sandbox.frames import MAX_BODY_BYTES, ProtocolBroken
from service.store.base import ObjectInfo, ObjectStore
from service.store.keys import is_key

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class StoreGate:
    """The parent's side. ``may_read`` and ``may_write`` say which keys; files are taken from ``folder`` alone."""

    store: ObjectStore
    may_read: Callable[[str], bool]
    may_write: Callable[[str], bool] = lambda key: False
    folder: Path | None = None

    def answer(self, name: str, values: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Does a call of the child. Raises :class:`ProtocolBroken` for one that it must not make, or the store's."""
        key = values.get("key")
        if not isinstance(key, str) or not is_key(key):
            raise ProtocolBroken(f"a call of {name[:40]!r} has no valid key")
        if name in ("get", "head") and (self.may_read(key) or self.may_write(key)):
            return self._read(name, key, values)
        if name in ("put", "put_file") and self.may_write(key):
            if_absent = values.get("if_absent") is True
            if name == "put":
                info = self.store.put(key, body, if_absent=if_absent)
            else:
                info = self.store.put_file(key, self._file(values.get("file")), if_absent=if_absent)
            return _told(info), b""
        raise ProtocolBroken(f"the call {name[:40]!r} of {key[:200]!r} is not allowed")

    def _read(self, name: str, key: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        info = self.store.head(key)
        if name == "head":
            return ({"missing": "object-not-found"} if info is None else _told(info)), b""
        start, end = values.get("start"), values.get("end")
        if not all(place is None or (type(place) is int and place >= 0) for place in (start, end)):
            raise ProtocolBroken("a range of bytes is not valid")
        first = start or 0
        last = info.size if info is not None and end is None else end
        if isinstance(last, int) and last - first > MAX_BODY_BYTES:
            raise ProtocolBroken(f"{last - first} bytes of {key[:200]!r} are too many for one call")
        return {}, self.store.get(key, start=start, end=end)

    def _file(self, name: object) -> Path:
        if self.folder is None or not isinstance(name, str):
            raise ProtocolBroken("there is no file to take")
        path = self.folder / name
        if path.is_symlink() or not path.is_file() or path.resolve().parent != self.folder.resolve():
            raise ProtocolBroken("the file is not in its folder")
        return path


class GatedStore:
    """The child's side: the part of :class:`ObjectStore` that the gate lets through."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def put(self, key: str, data: bytes, *, content_type: str | None = None, if_absent: bool = False) -> ObjectInfo:
        """Writes an object."""
        return self._written("put", key, data, if_absent=if_absent)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        consume: bool = False,
    ) -> ObjectInfo:
        """Writes an object from a file that lies in the folder given to the gate."""
        return self._written("put_file", key, file=path.name, if_absent=if_absent)

    def get(self, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
        """The object's bytes, or those of a range."""
        answer, body = self._channel.call("get", key=key, start=start, end=end)
        if "missing" in answer:
            raise ObjectNotFound(f"there is no object {key}", key=key)
        return body

    def stream(self, key: str, *, chunk_bytes: int = 1 << 16) -> Iterator[bytes]:
        """The object's bytes in pieces."""
        info = self.head(key)
        if info is None:
            raise ObjectNotFound(f"there is no object {key}", key=key)
        return (self.get(key, start=at, end=at + _PIECE_BYTES) for at in range(0, info.size, _PIECE_BYTES))

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size, etag and time; None where there is none."""
        answer, _ = self._channel.call("head", key=key)
        return None if "missing" in answer else _info(key, answer)

    def _written(self, name: str, key: str, body: bytes = b"", **values: Any) -> ObjectInfo:
        answer, _ = self._channel.call(name, body, key=key, **values)
        if "missing" in answer:
            raise ObjectExists(f"the object {key} exists already", key=key)
        return _info(key, answer)


def _told(info: ObjectInfo) -> dict[str, Any]:
    return {"size": info.size, "etag": info.etag, "modified": info.modified.timestamp()}


def _info(key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(key, answer["size"], answer["etag"], datetime.fromtimestamp(answer["modified"], UTC))
