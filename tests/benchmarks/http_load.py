"""A cheap HTTP client: a fixed number of keep-alive connections, each sending its next request after each answer.

    python tests/benchmarks/http_load.py     a JSON line on its standard input each, {"host", "port", "method", "paths",
                                             "body", "connections", "seconds"}; a JSON line on its standard output for
                                             it

Each connection keeps to one of the paths. A process of its own, so that measuring takes nothing from the process that
is measured but its core. Answers are read only as far as their status and length; an answer that is not 2xx, or a
connection that the server closes, ends it.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Load:
    """Figures of a run: answers a second, and each answer's seconds from the first byte sent to the last received."""

    per_s: float
    seconds: list[float]

    def percentile_ms(self, percent: float) -> float:
        """The nearest-rank percentile, in milliseconds."""
        ranked = sorted(self.seconds)
        return 1000 * ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]


class LoadClient:
    """The client process, as seen from the process that started it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self, port: int, method: str, paths: Sequence[str], *, body: Any = None, connections: int, seconds: float
    ) -> Load:
        """Sends the request repeatedly to 127.0.0.1. Raises RuntimeError if the server answers anything but 2xx."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"host": "127.0.0.1", "port": port, "method": method, "paths": list(paths), "body": body}
        self._process.stdin.write(json.dumps({**asked, "connections": connections, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{method} {paths[0]} failed; what the client met is above")
        return Load(**json.loads(answer))


@contextmanager
def load_client() -> Iterator[LoadClient]:
    """A client process for the duration of the block."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield LoadClient(process)
        assert process.stdin is not None
        process.stdin.close()


class _Connection:
    """One connection, with one request in flight at a time."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._received = b""
        self.sent_at = 0.0

    def send(self) -> None:
        self._received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(self._request)

    def answered(self) -> bool:
        """Reads the bytes received; True once the answer is complete."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise RuntimeError("the server closed a connection")
        self._received += piece
        head, whole, body = self._received.partition(b"\r\n\r\n")
        if not whole:
            return False
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"), 0)
        if len(body) < length:
            return False
        if head[9:10] != b"2":
            raise RuntimeError(f"the server answered {head.splitlines()[0]!r}: {body[:500]!r}")
        return True


def measure(address: tuple[str, int], requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Keeps ``connections`` busy for ``seconds``, and then waits for the answers in flight."""
    seconds_taken: list[float] = []
    with selectors.DefaultSelector() as waiting:
        for number in range(connections):
            connection = _Connection(address, requests[number % len(requests)])
            waiting.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
        began = time.perf_counter()
        busy, counted = connections, 0
        while busy:
            for key, _ in waiting.select():
                connection = key.data
                if not connection.answered():
                    continue
                now = time.perf_counter()
                seconds_taken.append(now - connection.sent_at)
                if now - began < seconds:
                    counted += 1
                    connection.send()
                else:
                    busy -= 1
                    waiting.unregister(connection.socket)
                    connection.socket.close()
    return Load(counted / seconds, seconds_taken)


def _request(host: str, method: str, path: str, body: Any) -> bytes:
    text = b"" if body is None else json.dumps(body).encode()
    kind = f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n" if text else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n{kind}\r\n".encode() + text


def main() -> None:
    """Runs the measurement of each line of standard input."""
    for line in sys.stdin:
        asked = json.loads(line)
        requests = [_request(asked["host"], asked["method"], path, asked["body"]) for path in asked["paths"]]
        found = measure((asked["host"], asked["port"]), requests, asked["connections"], asked["seconds"])
        print(json.dumps(vars(found)), flush=True)


if __name__ == "__main__":
    main()
