"""Connections of clients without a key, to a real server: what they may hold, for how long, and that others are
served."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.api.app import create_app
from service.api.connections import Connections, limited_protocol
from service.api.server import server_config
from service.settings import Settings
from tests.service.api.support import DictLiveState, NotingQueue, settings_for

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:  # httptools is not among our packages; where it is installed, uvicorn takes it
    PROTOCOLS: list[type[asyncio.Protocol]] = [H11Protocol]
else:
    PROTOCOLS = [H11Protocol, HttpToolsProtocol]

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
HALF = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "
LIMITS: dict[str, Any] = {"header_timeout_s": 0.5, "idle_timeout_s": 1, "body_timeout_s": 0.5, "write_timeout_s": 0.5}


@pytest.fixture(params=PROTOCOLS, ids=lambda base: base.__name__)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with Server(settings_for(tmp_path, max_connections=20, **LIMITS), request.param) as server:
        yield server


class Server:
    """An API as ``twinset serve`` runs it, while the ``with`` block lasts."""

    def __init__(self, settings: Settings, base: type[asyncio.Protocol]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        app = create_app(settings, queue=NotingQueue(), live_state=DictLiveState())
        config = server_config(app, settings)
        config.http = limited_protocol(settings, base)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})

    def __enter__(self) -> Server:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def connect(self, sent: bytes = b"") -> socket.socket:
        line = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        line.sendall(sent)
        return line

    def ask(self, sent: bytes = GET) -> bytes:
        """The whole answer, on a connection of its own."""
        with self.connect(sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)) as line:
            return everything(line)


def everything(line: socket.socket) -> bytes:
    """All that comes until the server closes the connection; fails if it does not."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := line.recv(65536):
            said += piece
    return said


def answered(line: socket.socket) -> bytes:
    """The answer to :data:`GET`."""
    said = b""
    while not said.endswith(b"}"):
        said += line.recv(65536)
    return said


def sends_until_reset(line: socket.socket, data: bytes, *, times: int) -> bool:
    """Whether the server has closed the connection before all was sent."""
    try:
        for _ in range(times):
            line.sendall(data)
            time.sleep(0.02)
    except ConnectionError:
        return True
    return False


def until_closed_s(line: socket.socket) -> float:
    began = time.monotonic()
    everything(line)
    return time.monotonic() - began


def test_a_connection_whose_header_does_not_end_is_closed(server: Server) -> None:
    with server.connect(HALF) as line:
        assert everything(line) == b""


def test_a_header_that_drips_has_no_longer(server: Server) -> None:
    began = time.monotonic()
    with server.connect(HALF) as line, contextlib.suppress(ConnectionError):
        while time.monotonic() - began < 5:
            line.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() - began < 3


def test_a_connection_that_says_nothing_is_closed(server: Server) -> None:
    with server.connect() as line:
        assert everything(line) == b""


def test_after_an_answer_half_a_header_is_not_waited_for_either(server: Server) -> None:
    with server.connect(GET) as line:
        assert answered(line).startswith(b"HTTP/1.1 200")
        line.sendall(HALF)
        assert until_closed_s(line) < 3


def test_an_idle_connection_lives_until_its_timeout(server: Server) -> None:
    with server.connect(GET) as line:
        assert answered(line).startswith(b"HTTP/1.1 200")
        time.sleep(0.7)  # longer than a header may take
        line.sendall(GET)
        assert answered(line).startswith(b"HTTP/1.1 200")
        assert 0.5 < until_closed_s(line) < 3


def test_half_open_connections_however_many_keep_nobody_out(server: Server) -> None:
    held = [server.connect(HALF) for _ in range(60)]
    try:
        for _ in range(5):
            assert server.ask().startswith(b"HTTP/1.1 200")
        assert everything(held[0]) == b"", "the longest waiting made room"
    finally:
        for line in held:
            line.close()


def test_a_header_without_end_is_too_large(server: Server) -> None:
    with server.connect(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n") as line:
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                line.sendall(b"X: " + b"a" * 1000 + b"\r\n")
                time.sleep(0.0005)
        said = everything(line)
    assert not said or said.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"
    assert server.ask(whole).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ", b""))


def test_a_body_that_stops_short_is_answered_408(server: Server) -> None:
    with server.connect(POST % (b"localhost", 100) + b"{") as line:
        said = everything(line)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/body-timeout" in said


def test_a_body_that_drips_is_answered_408(server: Server) -> None:
    with server.connect(POST % (b"localhost", 1000) + b"{") as line:
        began = time.monotonic()
        while not select.select([line], [], [], 0.1)[0]:
            assert time.monotonic() < began + 3
            line.sendall(b" ")
        assert line.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_a_body_of_two_lengths_is_refused_and_the_connection_closed(server: Server) -> None:
    head = POST % (b"localhost", 2)
    with server.connect(head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET) as line:
        said = everything(line)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1


def test_a_refused_body_is_dropped_so_that_its_sender_sees_the_answer(server: Server) -> None:
    with server.connect(POST % (b"evil.example", 8_000_000)) as line:
        line.sendall(bytes(8_000_000))
        assert line.recv(65536).startswith(b"HTTP/1.1 421 ")
    with server.connect(POST % (b"evil.example", 800_000_000_000)) as line:
        assert sends_until_reset(line, bytes(1_000_000), times=100)


def test_who_does_not_read_is_hung_up_on(server: Server) -> None:
    with server.connect() as line:
        for _ in range(10):  # ten times a megabyte and a half, more than the system keeps for a connection
            line.sendall(b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(2)
        assert sends_until_reset(line, GET, times=3)


@dataclass(eq=False)
class FakeLine:
    """A protocol and its transport, as far as :class:`Connections` looks at them."""

    client: tuple[str, int] | None
    cycle: Any = None
    said: bytes = b""
    closed: bool = False
    transport: Any = field(init=False)

    def __post_init__(self) -> None:
        self.transport = self

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        self.said += data

    def close(self) -> None:
        self.closed = True

    abort = close


@dataclass
class Cycle:
    response_complete: bool = False
    more_body: bool = False


def limited(**limits: Any) -> Connections:
    values = {"max_open": 4, "max_per_address": 4, "header_timeout_s": 10, "write_timeout_s": 10, **limits}
    values["max_dropped_bytes"] = 100
    return Connections(clock=lambda: 0.0, **values)


def opened(connections: Connections, address: str, *, busy: bool = False) -> FakeLine:
    line = FakeLine((address, 1))
    connections.opened(line)
    if busy:
        line.cycle = Cycle()
        connections.received(line, 10)
    return line


def test_the_longest_waiting_is_closed_for_a_new_one_and_a_busy_one_never() -> None:
    async def run() -> None:
        connections = limited()
        busy = opened(connections, "192.0.2.1", busy=True)
        lines = [opened(connections, "192.0.2.2") for _ in range(4)]
        assert [line.closed for line in (busy, *lines)] == [False, True, False, False, False]
        for line in lines[1:]:
            line.cycle = Cycle()
            connections.received(line, 10)
        refused = opened(connections, "192.0.2.3")
        assert refused.closed
        assert refused.said.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in refused.said

    asyncio.run(run())


def test_an_address_has_its_share_and_others_keep_theirs() -> None:
    async def run() -> None:
        connections = limited(max_open=10, max_per_address=2)
        other = opened(connections, "192.0.2.1")
        lines = [opened(connections, "192.0.2.2") for _ in range(3)]
        assert [line.closed for line in (other, *lines)] == [False, True, False, False]
        # an IPv6 client has a whole network of addresses
        v6 = [opened(connections, f"2001:db8::{number}") for number in range(1, 4)]
        assert [line.closed for line in v6] == [True, False, False]
        busy = [opened(connections, "::ffff:192.0.2.7", busy=True) for _ in range(2)]
        assert opened(connections, "192.0.2.7").said.startswith(b"HTTP/1.1 503 ")
        assert not any(line.closed for line in busy)

    asyncio.run(run())
