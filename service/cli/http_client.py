"""A small HTTP client of Twinset's API, as much of it as the command line needs."""

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
    """An error that the server answered with; :meth:`problem` is the server's own document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or "the server gave no reason"))
        self.document = dict(document)

    def problem(self) -> dict[str, Any]:
        return self.document


class NoServer(NotReady):
    """Nobody answers at the server's address."""

    slug = "server-unreachable"
    title = "No server answers"


class ApiClient:
    """Talks to one server. Requests that can be repeated are, for ``patience_s`` seconds, while it does not answer.

    ``api_key`` goes with requests to the server, and with none to a link, which opens by its signature: the link may be
    to another host, and the key is none of its business.
    """

    def __init__(self, url: str, *, api_key: str | None = None, patience_s: float = 20.0) -> None:
        self.url = url.rstrip("/")
        self.patience_s = patience_s
        self._key_header = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # A proxy of the environment must not come between us and our own machine.
        local = urlsplit(self.url).hostname in _LOOPBACK
        self._http = httpx.Client(base_url=self.url, timeout=httpx.Timeout(30.0, connect=5.0), trust_env=not local)

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """``POST /generate``; the job. Repeating it is safe, by an idempotency key that only this call uses."""
        return self._json("POST", "/generate", json=dict(request), headers={"Idempotency-Key": str(uuid.uuid4())})

    def upload(self, data: bytes) -> str:
        """``POST /uploads``; the id of a mask's file. Sending it again changes nothing."""
        return self._json("POST", "/uploads", content=data, headers={"Content-Type": "image/png"})["upload"]

    def job(self, job: str) -> dict[str, Any]:
        """``GET /jobs/{id}``."""
        return self._json("GET", f"/jobs/{job}")

    def cancel(self, job: str) -> dict[str, Any]:
        """``POST /jobs/{id}/cancel``; the job as it stands then. Not DELETE, which deletes a job that has just
        ended."""
        return self._json("POST", f"/jobs/{job}/cancel")

    def model(self, name: str) -> dict[str, Any]:
        """``GET /models/{name}``: the card. Asked once only, so that it also tells at once whether a server is
        there."""
        return self._json("GET", f"/models/{name}", patience_s=0.0)

    def samples(self, job: str) -> Iterator[dict[str, Any]]:
        """``GET /jobs/{id}/samples``, page after page."""
        cursor: str | None = None
        while True:
            page = self._json("GET", f"/jobs/{job}/samples", params={"cursor": cursor} if cursor else {})
            yield from page["samples"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def save_manifest(self, job: str, path: Path) -> None:
        """Writes what ``GET /jobs/{id}/manifest`` answers to ``path``."""
        path.write_bytes(self._send("GET", f"/jobs/{job}/manifest").content)

    def fetch(self, url: str) -> bytes:
        """The bytes behind a link, relative to the server or absolute."""
        return self._send("GET", url).content

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return self._send(method, path, **options).json()

    def _send(self, method: str, path: str, *, patience_s: float | None = None, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        pause_s = 0.1
        if not urlsplit(path).netloc:
            options["headers"] = {**self._key_header, **options.get("headers", {})}
        while True:
            try:
                response = self._http.request(method, path, **options)
                failure: TwinsetError | None = None if response.is_success else _problem_of(response)
                may_pass = response.status_code in _RETRY_STATUSES and not _is_damaged(failure)
                if response.status_code == 429:
                    may_pass, pause_s = True, _retry_after_s(response)
            except httpx.TransportError as error:
                failure, may_pass = self._unreachable(error, path), True
            if failure is None:
                return response
            if not may_pass or time.monotonic() + pause_s > deadline:
                raise failure
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)

    def _unreachable(self, error: httpx.TransportError, path: str) -> NoServer:
        reason = str(error) or type(error).__name__
        asked = urlsplit(path)
        if asked.netloc and f"{asked.scheme}://{asked.netloc}" != self.url:
            return NoServer(
                f"the server at {self.url} gave a link to {asked.scheme}://{asked.netloc}, which does not answer "
                f"({reason}). Its TWINSET_PUBLIC_URL must be an address that clients can reach."
            )
        return NoServer(
            f"{self.url} does not answer ({reason}). Start a server with 'twinset up' (everything on this machine) "
            "or 'twinset serve', or name another with --url or TWINSET_PUBLIC_URL."
        )


def _retry_after_s(response: httpx.Response) -> float:
    """How long a server that is asked too much would like to be left alone, in seconds."""
    told = response.headers.get("retry-after", "")
    return float(told) if told.isdecimal() else 1.0


def _is_damaged(failure: TwinsetError | None) -> bool:
    """Whether the server has read an object again and again already, and found it damaged each time."""
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
