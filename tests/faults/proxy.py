"""HTTP proxy in front of an object store that injects faults by rules, with seeded probabilities.

With a fault before forwarding the store gets no request. With one after, it has executed it, but its answer is lost.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class StoreFault(StrEnum):
    """The kind of fault that a request meets."""

    INTERNAL_ERROR = "500 InternalError"
    SLOW_DOWN = "503 SlowDown"
    ERROR_AFTER = "500 after it was executed"
    RESET_BEFORE = "reset before forwarding"
    RESET_AFTER = "reset after forwarding"
    DELAY = "forwarded late"
    TIMEOUT_AFTER = "forwarded, answered too late"
    CUT = "the answer's body ends early"
    TORN = "other bytes of the right number"


@dataclass
class Rule:
    """Injects ``fault`` with probability ``chance``, at most ``times`` times, into matching requests.

    A request matches if it has the ``method`` (any, if empty) and its path contains ``part``.
    """

    fault: StoreFault
    method: str = ""
    part: str = ""
    chance: float = 1.0
    times: int | None = None
    seconds: float = 0.5

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("", method) and self.part in path and self.times != 0


_ERRORS = {
    StoreFault.INTERNAL_ERROR: (500, "InternalError"),
    StoreFault.ERROR_AFTER: (500, "InternalError"),
    StoreFault.SLOW_DOWN: (503, "SlowDown"),
}


class Proxy:
    """A proxy in front of ``upstream``, while the ``with`` block lasts. ``rules`` may be changed at any time."""

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        self.rules: list[Rule] = []
        self.injected: dict[StoreFault, int] = dict.fromkeys(StoreFault, 0)
        self._upstream = urlsplit(upstream)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def draw(self, method: str, path: str) -> Rule | None:
        """The rule whose fault is injected into this request, or None."""
        with self._lock:
            for rule in self.rules:
                if rule.matches(method, path) and self._random.random() < rule.chance:
                    if rule.times is not None:
                        rule.times -= 1
                    self.injected[rule.fault] += 1
                    return rule
        return None

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Forwards a request; returns the status, headers and body of the store's answer."""
        connection = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                rule = proxy.draw(self.command, self.path)
                fault = rule.fault if rule else None
                if fault is StoreFault.RESET_BEFORE:
                    self._reset()
                    return
                if fault in (StoreFault.INTERNAL_ERROR, StoreFault.SLOW_DOWN):
                    self._fail(fault)
                    return
                if rule and fault is StoreFault.DELAY:
                    time.sleep(rule.seconds)
                skipped = ("connection", "expect", "transfer-encoding", "content-length")
                headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
                status, answered, found = proxy.forward(self.command, self.path, headers, body)
                if fault is StoreFault.RESET_AFTER:
                    self._reset()
                    return
                if fault is StoreFault.ERROR_AFTER:
                    self._fail(fault)
                    return
                if rule and fault is StoreFault.TIMEOUT_AFTER:
                    time.sleep(rule.seconds)
                    self._reset()
                    return
                if fault is StoreFault.TORN and status < 300:
                    found = bytes(byte ^ 0x55 for byte in found)
                self.send_response(status)
                for name, value in answered:
                    if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = {name.lower(): value for name, value in answered}.get("content-length")
                self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(found)))
                self.end_headers()
                if fault is StoreFault.CUT:
                    self.wfile.write(found[: len(found) // 2])
                    self._reset(linger=True)
                    return
                if self.command != "HEAD":
                    self.wfile.write(found)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815 - names of the base class

            def _fail(self, fault: StoreFault) -> None:
                status, code = _ERRORS[fault]
                body = f"<Error><Code>{code}</Code><Message>The test says so.</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def _reset(self, *, linger: bool = False) -> None:
                """Closes the connection with an RST, or after flushing what was written."""
                self.close_connection = True
                if linger:
                    self.wfile.flush()
                else:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

            def finish(self) -> None:
                with contextlib.suppress(OSError):
                    super().finish()

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
