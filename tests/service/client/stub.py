"""Stub of the API of datasets, exports and augmentations, from memory, and of an object store on another host.

It records every request, and can be made to misbehave: ``faults`` holds, by path, the responses to give in place of the
true ones, one after the other. Links are valid while their ``age`` is the current one.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

API = "https://twins.example"
STORE = "https://store.example"
TIME = "2026-01-31T12:00:00Z"
PLAN = {
    "by": "pixels", "count": 4, "max_samples": 8, "items": 4, "skipped": {}, "sources": {"classes": 1.0}, "masks": 4.0,
    "classes": [
        {"index": 1, "name": "water", "colour": [0, 0, 255], "real": 0.4, "target": 0.5, "feasible": 0.5,
         "planned": 0.5, "met": True}
    ],
    "notes": ["water has at most 50 % of the pixels."],
}  # fmt: skip
Fault = Callable[[httpx.Request], httpx.Response]


@dataclass
class Stub:
    """The stub server. A run has ended after ``polls`` requests for its state."""

    files: dict[str, bytes] = field(default_factory=dict)
    format: str = "folders"
    polls: int = 2
    page: int = 2
    state: str = "succeeded"
    doing: str | None = None
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    age: int = 0
    link_uses: int | None = None
    _polled: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def transport(self) -> httpx.MockTransport:
        """A transport for either client."""
        return httpx.MockTransport(self.handle)

    def handle(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
            self.bodies.append(request.read())
            faults = self.faults.get(request.url.path, [])
            if faults:
                return faults.pop(0)(request)
        if request.url.host == "store.example":
            return self._object(request)
        assert request.url.host == "twins.example"
        parts = request.url.path.strip("/").split("/")
        return getattr(self, f"_{parts[0]}")(request, parts[1:])

    def sent(self, method: str, path: str) -> list[httpx.Request]:
        """The requests that were sent to a path."""
        return [request for request in self.requests if (request.method, request.url.path) == (method, path)]

    def fetched(self) -> list[str]:
        """The files that were requested, in order."""
        return [
            request.url.path.removeprefix("/files/") for request in self.requests if request.url.host == "store.example"
        ]

    def _object(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            if self.link_uses is not None and int(request.url.params["age"]) == self.age:
                self.link_uses -= 1
                if self.link_uses < 0:
                    self.age, self.link_uses = self.age + 1, 3
            if int(request.url.params["age"]) != self.age:
                return httpx.Response(
                    403, text="<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
                )
        data = self.files[request.url.path.removeprefix("/files/")]
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start:
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            return httpx.Response(206, content=data[start:], headers=headers)
        return httpx.Response(200, content=data)

    def _run(self, id: str, name: str | None, **members: Any) -> dict[str, Any]:
        ended = self._polled >= self.polls
        return {
            "id": id,
            "name": name,
            "state": self.state if ended else "running",
            "done": 4 if ended else 1,
            "total": 4,
            "reason": None,
            "created_at": TIME,
            "finished_at": TIME if ended else None,
            "seconds": 2.5 if ended else None,
            "links": {},
            "doing": None if ended else self.doing,
            **members,
        }

    def _count_poll(self, request: httpx.Request) -> None:
        if request.method == "GET":
            self._polled += 1

    def _exports(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        if parts[1:] == ["files"]:
            return self._listing(request)
        if request.method == "DELETE":
            return httpx.Response(204)
        self._count_poll(request)
        body = json.loads(self.bodies[-1]) if not parts and request.method == "POST" else {}
        view = self._run(
            "e7ybr17pesw6kn47yb0",
            body.get("name"),
            format=body.get("format", self.format),
            rate=None,
            seconds_left=None,
            items={"real": 1, "synthetic": 3},
            skipped={},
            files=len(self.files),
            bytes=sum(map(len, self.files.values())),
            request=body,
        )
        if not parts and request.method == "GET":
            return httpx.Response(200, json={"exports": [view], "next_cursor": None})
        return httpx.Response(202 if request.method == "POST" else 200, json=view)

    def _listing(self, request: httpx.Request) -> httpx.Response:
        start = int(request.url.params.get("cursor", 0))
        named = sorted(self.files)
        files = [
            {
                "path": path,
                "bytes": len(self.files[path]),
                "sha256": hashlib.sha256(self.files[path]).hexdigest(),
                "url": f"{STORE}/files/{quote(path)}?age={self.age}&X-Amz-Signature=5ec2e7",
            }
            for path in named[start : start + self.page]
        ]
        end = start + self.page
        return httpx.Response(
            200, json={"files": files, "next_cursor": str(end) if end < len(named) else None, "links_expire_at": TIME}
        )

    def _datasets(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        if parts[2:] and parts[2] in ("report", "statistics"):
            return httpx.Response(200, content=self.files[parts[2]], headers={"Content-Type": "application/json"})
        if request.method == "DELETE":
            return httpx.Response(204)
        self._count_poll(request)
        name = (
            parts[0]
            if parts
            else request.url.params.get("name") or json.loads(self.bodies[-1] or b"{}").get("name", "tiles")
        )
        version = int(parts[1]) if len(parts) > 1 else 3
        classes = [{"index": 0, "name": "water", "colour": [0, 0, 255], "background": False}]
        view = self._run(
            f"{name}@{version}", name, version=version, format="folders", items=4, skipped=0, bytes=9, classes=classes
        )
        if not parts and request.method == "GET":
            return httpx.Response(200, json={"datasets": [view], "next_cursor": None})
        return httpx.Response(202 if request.method == "POST" else 200, json=view)

    def _augmentations(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        if parts[1:] == ["samples"]:
            return self._samples(request)
        if request.method == "DELETE":
            return httpx.Response(204)
        body = json.loads(self.bodies[-1]) if not parts and request.method == "POST" else {}
        if body.get("dry_run"):
            plan = {"model": "aerial@1.0.0", "dataset": "tiles@3", "seed": 5, "parameters": {"steps": 50}, "plan": PLAN}
            return httpx.Response(200, json={**plan, "picture": "iVBORw0KGgo="})
        self._count_poll(request)
        view = self._run(
            "a7ybr17pesw6kn47yb0",
            body.get("name"),
            model="aerial@1.0.0",
            dataset="tiles@3",
            count=4,
            seed=5,
            tried=6,
            budget=8,
            rejected={"low_confidence": 2},
            plan=PLAN,
            achieved={"water": 0.5},
            jobs=["j7ybr17pesw6kn47yb0"],
            request=body,
        )
        if not parts and request.method == "GET":
            return httpx.Response(200, json={"augmentations": [view], "next_cursor": None})
        return httpx.Response(202 if request.method == "POST" else 200, json=view)

    def _samples(self, request: httpx.Request) -> httpx.Response:
        start = int(request.url.params.get("cursor", 0))
        digest = hashlib.sha256(b"").hexdigest()
        file = {"url": f"{STORE}/files/x?age=0", "sha256": digest, "bytes": 0}
        samples = [
            {
                "index": index,
                "seed": index,
                "job": "j7ybr17pesw6kn47yb0",
                "classes": [],
                "image": file,
                "mask": file,
                "error": None,
            }
            for index in range(start, min(start + 3, 4))
        ]
        return httpx.Response(
            200, json={"samples": samples, "next_cursor": "3" if start == 0 else None, "links_expire_at": TIME}
        )


def problem(status: int, slug: str = "not-ready", **headers: str) -> Fault:
    """A response with a problem document."""
    document = {"type": f"/problems/{slug}", "title": "No", "status": status, "detail": f"it is {slug}"}
    return lambda request: httpx.Response(
        status, json=document, headers={**headers, "Content-Type": "application/problem+json"}
    )


def other_bytes(data: bytes) -> Fault:
    """A response with these bytes in place of the recorded ones."""
    return lambda request: httpx.Response(200, content=data)


class _Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Any:
        yield self._data
        raise httpx.ReadError("the connection was reset")

    async def __aiter__(self) -> Any:
        yield self._data
        raise httpx.ReadError("the connection was reset")


def broken_after(data: bytes) -> Fault:
    """A response that breaks off after ``data``."""
    return lambda request: httpx.Response(200, stream=_Broken(data))


def raising(error: BaseException) -> Fault:
    """No response: ``error`` is raised."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer
