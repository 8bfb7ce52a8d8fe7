"""Messages between a parent and its child: a line of JSON, and bytes if the line says so.

A line has at most :data:`MAX_LINE_BYTES` and its bytes at most :data:`MAX_BODY_BYTES`, so that neither side can make
the other hold more.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

MAX_LINE_BYTES = 1 << 20
MAX_BODY_BYTES = 256 << 20
BODY = "body_bytes"
"""The member of a message that says how many bytes follow it."""


class ProtocolBroken(Exception):
    """The other side sent what is no message, or too large a one."""


def as_frame(message: dict[str, Any], body: bytes = b"") -> bytes:
    """A message as bytes. Raises :class:`ProtocolBroken` if it is too large."""
    line = json.dumps({**message, BODY: len(body)} if body else message, ensure_ascii=True).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES or len(body) > MAX_BODY_BYTES:
        raise ProtocolBroken(f"a message of {len(line)} bytes with {len(body)} more is too large")
    return line + body


def parse_line(line: bytes) -> tuple[dict[str, Any], int]:
    """The message in a line, and the number of bytes that follow it. Raises :class:`ProtocolBroken`."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolBroken("a message is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolBroken("a message is not an object")
    size = message.pop(BODY, 0)
    if not isinstance(size, int) or not 0 <= size <= MAX_BODY_BYTES:
        raise ProtocolBroken(f"a message announces {size!r:.40} bytes")
    return message, size


def read_frame(file: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """The next message of a file that waits for it. Raises EOFError at its end, :class:`ProtocolBroken`."""
    line = file.readline(MAX_LINE_BYTES + 1)
    if not line:
        raise EOFError("the other side has ended")
    message, size = parse_line(line)
    body = file.read(size)
    if len(body) < size:
        raise EOFError("the other side has ended")
    return message, body


class FrameBuffer:
    """Puts messages together from the pieces in which they arrive, without waiting for them."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._announced: tuple[dict[str, Any], int] | None = None

    def feed(self, piece: bytes) -> None:
        """Adds what has arrived."""
        self._bytes += piece

    def take(self) -> tuple[dict[str, Any], bytes] | None:
        """The next message, if all of it has arrived. Raises :class:`ProtocolBroken`."""
        if self._announced is None:
            end = self._bytes.find(b"\n", 0, MAX_LINE_BYTES)
            if end < 0:
                if len(self._bytes) > MAX_LINE_BYTES:
                    raise ProtocolBroken("a message has no end")
                return None
            self._announced = parse_line(bytes(self._bytes[:end]))
            del self._bytes[: end + 1]
        message, size = self._announced
        if len(self._bytes) < size:
            return None
        body = bytes(self._bytes[:size])
        del self._bytes[:size]
        self._announced = None
        return message, body
