"""The failures of S3: no answer, a late one, a broken one, a refusal, and answers that get lost on the way.

A server that answers what the test tells it to shows them; no well-behaved one does.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.errors import ObjectExists, StoreUnavailable
from service.store.s3 import S3Store

NO_ANSWER = 0


@dataclass(frozen=True)
class Answer:
    """Status (NO_ANSWER hangs up), body and headers; ``cut`` hangs up after that many bytes of the body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; header names in lower case."""

    method: str
    headers: dict[str, str]
    body: bytes = b""


@contextmanager
def scripted(*answers: Answer | Callable[[list[Seen]], Answer]) -> Iterator[tuple[str, list[Seen]]]:
    """The address of a server that gives the answers in turn, the last one for ever, and the requests it saw.

    An answer may be a function of the requests seen so far.
    """
    seen: list[Seen] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            # also behind an expectation, which the base class has met: hanging up on unread bytes would take the answer
            # along
            body = self.rfile.read(int(headers.get("content-length", 0)))
            answer = answers[min(len(seen), len(answers) - 1)]
            seen.append(Seen(self.command, headers, body))
            if not isinstance(answer, Answer):
                answer = answer(seen)
            self.close_connection = True
            if answer.status == NO_ANSWER:
                return
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[: answer.cut])

        do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815 (named by http.server)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


DATE = "Tue, 01 Sep 2026 10:00:00 GMT"
BUSY = Answer(503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>")
TAKEN = Answer(
    412, b"<Error><Code>PreconditionFailed</Code><Message>At least one precondition failed</Message></Error>"
)
WRITTEN = Answer(200, b"", {"ETag": '"e1"'})


def at(endpoint: str, **options: object) -> S3Store:
    return S3Store("twins", endpoint_url=endpoint, **{"attempts": 2, "timeout_s": 5.0, **options})  # type: ignore[arg-type]


def test_a_store_that_refuses_connections_is_unavailable(aws: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StoreUnavailable, match="cannot be reached; check that it runs") as caught:
            at(endpoint).get("a/b")
    assert "'twins'" in caught.value.detail
    assert endpoint in caught.value.detail


def test_a_store_that_does_not_answer_is_unavailable_in_bounded_time(aws: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            at(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2).put("a/b", b"x")
        assert time.monotonic() - started < 5


def test_an_overloaded_store_is_asked_again_but_not_for_ever(aws: None) -> None:
    with scripted(BUSY, WRITTEN) as (endpoint, seen):
        info = at(endpoint).put("a/b", b"xyz")
        assert len(seen) == 2
        assert (info.etag, info.size) == ("e1", 3)
    with scripted(BUSY) as (endpoint, seen):
        with pytest.raises(StoreUnavailable, match=r"SlowDown \(Reduce your request rate.\); try again"):
            at(endpoint).get("a/b")
        assert len(seen) == 2


def test_missing_and_wrong_credentials_are_named(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Answer(403, b"<Error><Code>InvalidAccessKeyId</Code><Message>Unknown key.</Message></Error>")
    with scripted(refused) as (endpoint, seen):
        with pytest.raises(StoreUnavailable, match=r"InvalidAccessKeyId .* set AWS_ACCESS_KEY_ID"):
            at(endpoint).get("a/b")
        assert len(seen) == 1
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for use in (lambda: at(endpoint).get("a/b"), lambda: at(endpoint).sign("a/b", expires_s=60)):
        with pytest.raises(StoreUnavailable, match="there are none; set AWS_ACCESS_KEY_ID"):
            use()


def test_a_broken_download_goes_on_where_it_broke_and_in_the_same_version(aws: None) -> None:
    data = bytes(range(256)) * 400
    whole = Answer(200, data, {"ETag": '"v1"'}, cut=70_000)
    rest = Answer(206, data[70_000:], {"ETag": '"v1"'})
    with scripted(whole, rest) as (endpoint, seen):
        assert b"".join(at(endpoint).stream("a/b", chunk_bytes=1000)) == data
        assert [request.headers.get("range") for request in seen] == [None, "bytes=70000-"]
        assert seen[1].headers["if-match"] == '"v1"'
    with scripted(Answer(206, data[10:110], {"ETag": '"v1"'}, cut=40), Answer(206, data[50:110], {"ETag": '"v1"'})) as (
        endpoint,
        seen,
    ):
        assert at(endpoint).get("a/b", start=10, end=110) == data[10:110]
        assert [request.headers.get("range") for request in seen] == ["bytes=10-109", "bytes=50-109"]


def test_a_download_that_keeps_breaking_fails(aws: None) -> None:
    with scripted(Answer(200, b"x" * 1000, {"ETag": '"v1"'}, cut=0)) as (endpoint, seen):
        with pytest.raises(StoreUnavailable, match="'twins' at http"):
            at(endpoint).get("a/b")
        assert len(seen) == 4


def test_a_writer_whose_answer_was_lost_still_learns_that_it_won(aws: None) -> None:
    def as_written(seen: list[Seen]) -> Answer:
        return Answer(200, b"", {**known, writer: seen[0].headers[writer]})

    writer = "x-amz-meta-twinset-writer"
    known = {"ETag": '"e1"', "Last-Modified": DATE, "Content-Length": "3"}
    with scripted(Answer(NO_ANSWER), TAKEN, as_written) as (endpoint, seen):
        info = at(endpoint).put("a/summary.json", b"xyz", if_absent=True)
        assert (info.etag, info.size) == ("e1", 3)
        assert [request.method for request in seen] == ["PUT", "PUT", "HEAD"]
        assert seen[0].headers["if-none-match"] == "*"
    with (
        scripted(Answer(NO_ANSWER), TAKEN, Answer(200, b"", {**known, writer: "somebody else"})) as (
            endpoint,
            seen,
        ),
        pytest.raises(ObjectExists),
    ):
        at(endpoint).put("a/summary.json", b"xyz", if_absent=True)


def test_two_conditional_writes_at_once_are_settled_by_another_try(aws: None) -> None:
    unsettled = Answer(409, b"<Error><Code>ConditionalRequestConflict</Code><Message>Try again.</Message></Error>")
    with scripted(unsettled, WRITTEN) as (endpoint, seen):
        assert at(endpoint).put("a/b", b"x", if_absent=True).etag == "e1"
        assert len(seen) == 2
    with scripted(unsettled, TAKEN) as (endpoint, seen), pytest.raises(ObjectExists):
        at(endpoint).put("a/b", b"x", if_absent=True)
    with scripted(unsettled) as (endpoint, seen):
        with pytest.raises(StoreUnavailable, match="ConditionalRequestConflict"):
            at(endpoint).put("a/b", b"x", if_absent=True)
        assert len(seen) == 3


def test_bytes_that_the_store_did_not_get_whole_are_sent_again(aws: None) -> None:
    torn = Answer(400, b"<Error><Code>BadDigest</Code><Message>The Content-MD5 did not match.</Message></Error>")
    with scripted(torn, WRITTEN) as (endpoint, seen):
        assert at(endpoint).put("a/b", b"xyz").etag == "e1"
        assert [request.headers["content-md5"] for request in seen] == ["0W+zbwkR+HiZjBNhka9wXg=="] * 2
        assert seen[0].headers["x-amz-meta-twinset-sha256"] == hashlib.sha256(b"xyz").hexdigest()
    with scripted(torn) as (endpoint, seen):
        with pytest.raises(StoreUnavailable, match="BadDigest"):
            at(endpoint).put("a/b", b"xyz")
        assert len(seen) == 3


def test_a_file_is_sent_again_from_its_start(aws: None, tmp_path: Path) -> None:
    torn = Answer(400, b"<Error><Code>BadDigest</Code><Message>The Content-MD5 did not match.</Message></Error>")
    path = tmp_path / "file"
    path.write_bytes(b"xyz" * 1000)
    for fault in (torn, BUSY, Answer(NO_ANSWER)):
        with scripted(fault, WRITTEN) as (endpoint, seen):
            info = at(endpoint).put_file("a/b.tar", path)
            assert (info.etag, info.size) == ("e1", 3000)
            assert [request.body for request in seen] == [b"xyz" * 1000] * 2
            assert seen[1].headers["content-md5"] == base64.b64encode(hashlib.md5(b"xyz" * 1000).digest()).decode()
            assert seen[1].headers["x-amz-meta-twinset-sha256"] == hashlib.sha256(b"xyz" * 1000).hexdigest()
            assert seen[1].headers["content-type"] == "application/x-tar"
    with scripted(BUSY) as (endpoint, seen), pytest.raises(StoreUnavailable, match="SlowDown"):
        at(endpoint).put_file("a/b.tar", path)
    assert path.exists()


def test_an_object_that_was_stored_without_a_hash_is_read_as_it_is(aws: None) -> None:
    with scripted(Answer(200, b"xyz", {"ETag": '"v1"'})) as (endpoint, seen):
        assert at(endpoint).get("a/b") == b"xyz"
    hashed = {"ETag": '"v1"', "x-amz-meta-twinset-sha256": hashlib.sha256(b"abc").hexdigest()}
    with scripted(Answer(200, b"xyz", hashed), Answer(200, b"abc", hashed)) as (endpoint, seen):
        assert at(endpoint).get("a/b") == b"abc"
        assert len(seen) == 2
