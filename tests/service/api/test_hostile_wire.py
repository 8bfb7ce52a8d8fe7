"""What no client sends, over a real connection to a real server: it is refused or hung up on, and the next is
served."""

from __future__ import annotations

import random
import socket
from urllib.parse import urlsplit

import httpx

from tests.service.cli.conftest import LiveApi, live_api  # noqa: F401

HEAD = b"Host: localhost\r\nConnection: close\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"


def get(target: bytes, headers: bytes = HEAD) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + headers + b"\r\n"


RAW = {
    "a NUL in the path": get(b"/jobs/\0"),
    "bytes of no ASCII in the path": get(b"/jobs/\xc3\xa9"),
    "bytes of no ASCII in the query": get(b"/jobs?cursor=\xff"),
    "a half escape": get(b"/jobs/%"),
    "an escape of no UTF-8": get(b"/jobs/%ff%fe"),
    "a surrogate in UTF-8": get(b"/jobs/%ed%a0%80"),
    "dots": get(b"/jobs/../../../../etc/passwd"),
    "escaped dots": get(b"/static-offline-docs/%2e%2e/%2e%2e/core.py"),
    "dots with backslashes": get(b"/static-offline-docs/..\\..\\core.py"),
    "no slash": get(b"jobs"),
    "another host's address": get(b"http://other.example/jobs"),
    "a path like a host": get(b"//other.example/jobs"),
    "a fragment": get(b"/jobs#x"),
    "an asterisk": b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n",
    "CONNECT": b"CONNECT other.example:443 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a method of its own": b"BREW /jobs HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a method with a line end": b"GET\r\n /jobs HTTP/1.1\r\n\r\n",
    "a very long path": get(b"/jobs/" + b"a" * 200_000),
    "a very long header": get(b"/jobs", HEAD + b"X: " + b"a" * 200_000 + b"\r\n"),
    "very many headers": get(b"/jobs", HEAD + b"X: a\r\n" * 30_000),
    "a header without a colon": get(b"/jobs", HEAD + b"nothing\r\n"),
    "a header with a NUL": get(b"/jobs", HEAD + b"X: a\0b\r\n"),
    "a folded header": get(b"/jobs", HEAD + b"X: a\r\n b\r\n"),
    "a header of bytes": get(b"/jobs", HEAD + b"Authorization: Bearer \xff\xfe\r\n"),
    "no host": get(b"/jobs", b"Connection: close\r\n"),
    "two hosts": get(b"/jobs", HEAD + b"Host: b\r\n"),
    "a host without meaning": get(b"/nowhere", b"Connection: close\r\nHost: [::1\r\n"),
    "HTTP/1.0": b"GET /jobs HTTP/1.0\r\n\r\n",
    "HTTP/0.9": b"GET /jobs\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": b"GET /jobs HTTP/9.9\r\n" + HEAD + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "noise": random.Random(1).randbytes(2000),
    "only line ends": b"\r\n" * 1000,
    "a length below zero": POST + b"Content-Length: -1\r\n\r\n{}",
    "a length that is no number": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "a length of 5000 digits": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "a length of 20 digits": POST + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n{}",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "less than the length": POST + b"Content-Length: 200\r\n\r\n{}",
    "more than the length": POST + b"Content-Length: 2\r\n\r\n{}GET /jobs HTTP/1.1\r\n\r\n",
    "chunks that are none": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk without an end": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n{}",
    "an unknown encoding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an upgrade": get(
        b"/jobs", b"Host: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AA==\r\n"
    ),
}


UNENDED = {"HTTP/0.9", "noise", "less than the length", "a chunk without an end"}
"""Those that a server has to wait for more of; they are followed by the end of the connection."""


def talk(url: str, raw: bytes, *, hang_up: bool) -> bytes:
    """All that the server says to ``raw`` until it hangs up, or, if we do so, until it has noticed."""
    parts = urlsplit(url)
    said = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as line:
        try:
            line.sendall(raw)
            if hang_up:
                line.shutdown(socket.SHUT_WR)
            while piece := line.recv(65536):
                said += piece
        except ConnectionError:
            pass  # it may well not want to hear all of it
    return said


def test_whatever_comes_over_the_wire_the_next_is_served(live_api: LiveApi) -> None:  # noqa: F811
    for name, raw in RAW.items():
        said = talk(live_api.url, raw, hang_up=name in UNENDED)
        assert said or name in UNENDED, f"{name} was not answered"
        assert not said or (said.startswith(b"HTTP/1.1 ") and 200 <= int(said[9:12]) < 500), (name, said[:300])
        assert b"Traceback" not in said, name
        assert b"root:" not in said, name
    assert httpx.get(f"{live_api.url}/healthz", trust_env=False).status_code == 200
