"""The child's side of the conversation with its parent: it reports, and calls, waiting for the answer."""

from __future__ import annotations

from typing import Any, BinaryIO

from service.sandbox.frames import as_frame, read_frame


class CallFailed(Exception):
    """The parent could not do what it was asked for. It knows why, and ends this process."""


class Channel:
    """What a child's module gets: its ``request``, and the way to its parent."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self.request, _ = read_frame(incoming)

    def report(self, name: str, **values: Any) -> None:
        """Tells the parent something that needs no answer."""
        self._send({"report": name, **values})

    def call(self, name: str, body: bytes = b"", **values: Any) -> tuple[dict[str, Any], bytes]:
        """Asks the parent to do something; its answer. Raises :class:`CallFailed`."""
        self._send({"call": name, **values}, body)
        answer, found = read_frame(self._incoming)
        if "failed" in answer:
            raise CallFailed(str(answer["failed"]))
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
