"""The child's side of the conversation with its parent: it reports, and calls, waiting for the answer."""

from __future__ import annotations

import threading
from typing import Any, BinaryIO

from service.sandbox.frames import as_frame, read_frame


class Channel:
    """What a child's module gets: its request, and the way to its parent."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._lock = threading.Lock()
        self.request, self.request_body = read_frame(incoming)

    def report(self, name: str, **values: Any) -> None:
        """Tells the parent something that needs no answer."""
        self._send({"report": name, **values})

    def call(self, name: str, body: bytes = b"", **values: Any) -> tuple[dict[str, Any], bytes]:
        """Asks the parent to do something; its answer. Where it cannot, it ends this process."""
        with self._lock:
            self._send({"call": name, **values}, body)
            answer, found = read_frame(self._incoming)
        return answer, found

    def finish(self, result: dict[str, Any], body: bytes = b"") -> None:
        """Gives the parent the result, which ends the conversation."""
        self._send({"result": result}, body)

    def fail(self, **values: Any) -> None:
        """Gives the parent the error with which the work has ended."""
        self._send({"error": values})

    def _send(self, message: dict[str, Any], body: bytes = b"") -> None:
        self._outgoing.write(as_frame(message, body))
        self._outgoing.flush()
