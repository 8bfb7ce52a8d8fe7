"""Small HTTP client of Twinset's API, with the parts that the command line needs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from service.errors import NotReady, ObjectDamaged, TwinsetError

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_RETRY_STATUSES = {502, 503, 504}


class ProblemAnswer(TwinsetError):
    """An error answer of the server; :meth:`problem` is the server's own document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or "the server gave no reason"))
        self.document = dict(document)

    def problem(self) -> dict[str, Any]:
        return self.document


class NoServerAnswers(NotReady):
    """The server does not answer."""

    slug = "server-unreachable"
    title = "No server answers"


class ApiClient:
    """Client of one server. It retries requests for ``wait_timeout_s`` seconds while the server does not answer.

    ``api_key`` is sent only to the server. Absolute links, which may lead to another host, are signed and need no key.
    """

    def __init__(self, url: str, *, api_key: str | None = None, wait_timeout_s: float = 20.0) -> None:
        self.url = url.rstrip("/")
        self.wait_timeout_s = wait_timeout_s
        self._key_header = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # requests to this machine must not go through a proxy from the environment
        local = urlsplit(self.url).hostname in _LOOPBACK
        self._http = httpx.Client(base_url=self.url, timeout=httpx.Timeout(30.0, connect=5.0), trust_env=not local)

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """``POST /generate``; returns the job. Retries are safe, since each call has its own idempotency key."""
        return self._json("POST", "/generate", json=dict(request), headers={"Idempotency-Key": str(uuid.uuid4())})

    def upload(self, data: bytes) -> str:
        """``POST /uploads``; returns the id of the mask file. Repeating it changes nothing."""
        return str(self._json("POST", "/uploads", content=data, headers={"Content-Type": "image/png"})["upload"])

    def job(self, job: str) -> dict[str, Any]:
        """``GET /jobs/{id}``."""
        return self._json("GET", f"/jobs/{job}")

    def cancel(self, job: str) -> dict[str, Any]:
        """``POST /jobs/{id}/cancel``; returns the job. Not DELETE, which would delete a job that has just ended."""
        return self._json("POST", f"/jobs/{job}/cancel")

    def model(self, name: str) -> dict[str, Any]:
        """``GET /models/{name}``; returns the card. Not retried, so that a missing server is reported at once."""
        return self._json("GET", f"/models/{name}", wait_timeout_s=0.0)

    def samples(self, job: str) -> Iterator[dict[str, Any]]:
        """``GET /jobs/{id}/samples``, all pages."""
        cursor: str | None = None
        while True:
            page = self._json("GET", f"/jobs/{job}/samples", params={"cursor": cursor} if cursor else {})
            yield from page["samples"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def save_manifest(self, job: str, path: Path) -> None:
        """Writes the answer of ``GET /jobs/{id}/manifest`` to ``path``."""
        path.write_bytes(self._send("GET", f"/jobs/{job}/manifest").content)

    def fetch(self, url: str) -> bytes:
        """The bytes behind a link, relative to the server or absolute."""
        return self._send("GET", url).content

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        document: dict[str, Any] = self._send(method, path, **options).json()
        return document

    def _send(self, method: str, path: str, *, wait_timeout_s: float | None = None, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + (self.wait_timeout_s if wait_timeout_s is None else wait_timeout_s)
        pause_s = 0.1
        if not urlsplit(path).netloc:
            options["headers"] = {**self._key_header, **options.get("headers", {})}
        while True:
            try:
                response = self._http.request(method, path, **options)
                failure: TwinsetError | None = None if response.is_success else _problem_of(response)
                is_retryable = response.status_code in _RETRY_STATUSES and not _is_damaged(failure)
                if response.status_code == 429:
                    is_retryable, pause_s = True, _retry_after_s(response)
            except httpx.TransportError as error:
                failure, is_retryable = self._unreachable(error, path), True
            if failure is None:
                return response
            if not is_retryable or time.monotonic() + pause_s > deadline:
                raise failure
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)

    def _unreachable(self, error: httpx.TransportError, path: str) -> NoServerAnswers:
        reason = str(error) or type(error).__name__
        link = urlsplit(path)
        if link.netloc and f"{link.scheme}://{link.netloc}" != self.url:
            return NoServerAnswers(
                f"the server at {self.url} gave a link to {link.scheme}://{link.netloc}, which does not answer "
                f"({reason}). Its TWINSET_PUBLIC_URL, or for links into a bucket its "
                "TWINSET_S3_PUBLIC_ENDPOINT_URL, must be an address that clients can reach."
            )
        return NoServerAnswers(
            f"{self.url} does not answer ({reason}). Start a server with 'twinset up' (everything on this machine) "
            "or 'twinset serve', or name another with --url or TWINSET_PUBLIC_URL."
        )


def _retry_after_s(response: httpx.Response) -> float:
    """The answer's Retry-After in seconds; 1 if it has none."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else 1.0


def _is_damaged(failure: TwinsetError | None) -> bool:
    """Whether the server found an object damaged; it has retried already, so the client need not."""
    return isinstance(failure, ProblemAnswer) and str(failure.document.get("type")).endswith(f"/{ObjectDamaged.slug}")


def _problem_of(response: httpx.Response) -> ProblemAnswer:
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        return ProblemAnswer(response.json())
    return ProblemAnswer(
        {
            "title": f"The server answered {response.status_code} {response.reason_phrase}",
            "status": response.status_code,
            "detail": response.text[:500],
        }
    )
