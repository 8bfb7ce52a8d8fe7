"""Connections with limits: how many there may be, and how long a client may leave the server waiting.

uvicorn limits only the time between two requests. A connection that never finishes its header, or that does not read
its answer, would stay for as long as its client likes, and take a file descriptor meanwhile. So
:func:`limited_protocol` extends uvicorn's protocol, whichever HTTP parser it uses (h11 or httptools):

- a header must be complete within ``header_timeout_s`` of the connection, or of its own first byte; else the
  connection is closed, without an answer, since there is no request;
- an answer must be read, if slowly, or the connection is aborted after ``write_timeout_s``;
- at the limit of connections, the one that has waited longest for a header is closed for the new one, or else one
  whose client does not read. Only if all are busy with requests, the new one is refused (503). So half-open
  connections, however many, cannot keep others out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from service.api.errors import PROBLEM_TYPE, HeaderTooLarge, TooBusy
from service.errors import TwinsetError
from service.settings import Settings

BACKLOG = 128
"""Connections that the system accepts for us before we do, at most; so many may be new at once."""
MAX_HEADER_BYTES = 64 << 10
"""Bytes of a request's first line and header that are read before they must be complete."""
_RESERVED_FILES = 3 * BACKLOG + 128
"""File descriptors that are not for connections: files of the store, Redis, and connections being accepted."""
_log = logging.getLogger("twinset.api")


@dataclass(eq=False)
class _Connection:
    """One open connection: who is at its other end, and what the server waits for."""

    protocol: Any
    address: str | None
    header_by: float | None = None
    """When the header must be complete; None while no byte of it has come on a connection that served others."""
    received: int = 0
    """Bytes since the last request."""


@dataclass
class Connections:
    """The open connections of one server."""

    max_open: int
    max_per_address: int
    header_timeout_s: float
    write_timeout_s: float
    max_dropped_bytes: int
    """Bytes of a body that are still read after its request was refused, so that the client comes to see the answer."""
    clock: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)
    _open: dict[Any, _Connection] = field(default_factory=dict)
    _per_address: Counter[str] = field(default_factory=Counter)
    _waiting: dict[_Connection, None] = field(default_factory=dict)
    """Those without a request in progress, the longest waiting first."""
    _unread: dict[_Connection, float] = field(default_factory=dict)
    """Those whose client does not read, and when they are aborted."""
    _sweeping: bool = False

    def opened(self, protocol: Any) -> None:
        """Counts a new connection, and closes another for it, or it itself, if there are too many."""
        new = _Connection(protocol, _address(protocol.client), header_by=self.clock() + self.header_timeout_s)
        self._open[protocol] = new
        if new.address is not None:
            self._per_address[new.address] += 1
        crowded = new.address is not None and self._per_address[new.address] > self.max_per_address
        if crowded or len(self._open) > self.max_open:
            given_up = self._longest_waiting(new.address if crowded else None)
            if given_up is None:
                self._close(new, _TOO_BUSY)
                return
            self._close(given_up)
        self._wait_for(new)

    def received(self, protocol: Any, size: int) -> None:
        """Notes that data came, after the protocol has read them."""
        found = self._open.get(protocol)
        if found is None:
            return
        if _is_busy(protocol):
            self._waiting.pop(found, None)
            found.header_by, found.received = None, 0
            return
        found.received += size
        dropping = protocol.cycle is not None and protocol.cycle.more_body
        if found.received > (self.max_dropped_bytes if dropping else MAX_HEADER_BYTES):
            self._close(found, b"" if dropping else _TOO_LARGE)
        elif found.header_by is None:
            found.header_by = self.clock() + self.header_timeout_s
            self._wait_for(found)

    def responded(self, protocol: Any) -> None:
        """Notes that an answer is complete: the connection waits for its next request, unless that is there."""
        found = self._open.get(protocol)
        if found is not None and not _is_busy(protocol):
            found.header_by, found.received = None, 0
            self._wait_for(found)

    def unread(self, protocol: Any) -> None:
        """Notes that the client has stopped reading."""
        found = self._open.get(protocol)
        if found is not None:
            self._unread[found] = self.clock() + self.write_timeout_s
            self._sweep_later()

    def read(self, protocol: Any) -> None:
        """Notes that the client reads again."""
        found = self._open.get(protocol)
        if found is not None:
            self._unread.pop(found, None)

    def lost(self, protocol: Any) -> None:
        """Forgets a connection."""
        found = self._open.pop(protocol, None)
        if found is None:
            return
        self._waiting.pop(found, None)
        self._unread.pop(found, None)
        if found.address is not None:
            self._per_address[found.address] -= 1
            if not self._per_address[found.address]:
                del self._per_address[found.address]

    def _longest_waiting(self, address: str | None) -> _Connection | None:
        """The connection to close for a new one, of ``address`` if given: without a request, else with an answer that
        its client does not read."""
        for candidates in (self._waiting, self._unread):
            for each in candidates:
                if address in (None, each.address):
                    return each
        return None

    def _wait_for(self, connection: _Connection) -> None:
        self._waiting.pop(connection, None)
        self._waiting[connection] = None
        self._sweep_later()

    def _close(self, connection: _Connection, answer: bytes = b"") -> None:
        unread = connection in self._unread
        self.lost(connection.protocol)
        transport = connection.protocol.transport
        if unread:
            transport.abort()  # what it has not read would keep it open
        elif not transport.is_closing():
            if answer:
                transport.write(answer)
            transport.close()

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            interval_s = min(1.0, self.header_timeout_s / 4, self.write_timeout_s / 4)
            asyncio.get_running_loop().call_later(interval_s, self._sweep)

    def _sweep(self) -> None:
        """Closes what is overdue; runs again while there is anything to wait for."""
        now = self.clock()
        for late in [each for each in self._waiting if each.header_by is not None and each.header_by <= now]:
            self._close(late)
        for late in [each for each, until in self._unread.items() if until <= now]:
            self.lost(late.protocol)
            late.protocol.transport.abort()
        self._sweeping = False
        if self._waiting or self._unread:
            self._sweep_later()


def limited_protocol(settings: Settings, base: type[asyncio.Protocol] = AutoHTTPProtocol) -> type[asyncio.Protocol]:
    """uvicorn's protocol ``base`` with the limits of ``settings``; for one server, whose connections it counts."""
    connections: list[Connections] = []

    def of_server() -> Connections:
        # made at the first connection, inside the server's event loop
        if not connections:
            connections.append(_connections(settings))
        return connections[0]

    class LimitedProtocol(base):  # type: ignore[misc, valid-type]
        """A connection that reports what happens to it."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            of_server().opened(self)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return  # it was refused
            super().data_received(data)
            of_server().received(self, len(data))

        def on_response_complete(self) -> None:
            super().on_response_complete()
            of_server().responded(self)

        def pause_writing(self) -> None:
            super().pause_writing()
            of_server().unread(self)

        def resume_writing(self) -> None:
            super().resume_writing()
            of_server().read(self)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            of_server().lost(self)

    return LimitedProtocol


def _connections(settings: Settings) -> Connections:
    files = _allow_files(settings.max_connections + _RESERVED_FILES)
    possible = max(16, files - _RESERVED_FILES)
    if possible < settings.max_connections:
        _log.warning(
            "TWINSET_MAX_CONNECTIONS=%d, but this process may open %d files: %d connections are accepted; "
            "raise the limit with 'ulimit -n'",
            settings.max_connections,
            files,
            possible,
        )
    most = min(settings.max_connections, possible)
    return Connections(
        max_open=most,
        max_per_address=min(most, settings.max_connections_per_address or most),
        header_timeout_s=settings.header_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        max_dropped_bytes=settings.max_body_bytes,
    )


def _allow_files(wanted: int) -> int:
    """Raises the limit of open files of this process to ``wanted`` if that is allowed; the limit now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 20
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if possible > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        except (ValueError, OSError):
            return soft
        return possible
    return soft


def _is_busy(protocol: Any) -> bool:
    """Whether a request is in progress."""
    return protocol.cycle is not None and not protocol.cycle.response_complete


def _address(client: tuple[str, int] | None) -> str | None:
    """Whom a connection is counted for: an IPv4 address, or the network of 2^64 addresses that an IPv6 client has."""
    if client is None:
        return None  # a Unix socket
    try:
        ip = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return client[0]
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))


def _raw_answer(error: TwinsetError, status_line: str) -> bytes:
    """A whole answer as it is sent, for a connection without a request to answer."""
    body = json.dumps(error.problem())
    headers = {**error.headers, "Content-Type": PROBLEM_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {status_line}", *(f"{name}: {value}" for name, value in headers.items()), "", body]
    return "\r\n".join(lines).encode()


_TOO_LARGE = _raw_answer(
    HeaderTooLarge(f"the request's header has more than {MAX_HEADER_BYTES} bytes; send less"),
    "431 Request Header Fields Too Large",
)
_TOO_BUSY = _raw_answer(
    TooBusy("the service has as many connections as it accepts, all of them busy; try again in a second"),
    "503 Service Unavailable",
)
