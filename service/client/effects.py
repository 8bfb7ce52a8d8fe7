"""Effects: the requests, sleeps and calls that an operation asks a runner to perform.

An operation is written once, as a generator (a *flow*): it yields the effects below, is sent their outcomes, and
returns its result. What an effect raises is raised at the ``yield``, so that ``try`` and ``with`` work as usual.
``sync_method`` runs a flow with threads, ``async_method`` in an event loop; neither knows what a flow is about.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")
CHUNK_BYTES = 1 << 18


class RequestBody(Protocol):
    """A request's body that is read while it is sent, from the beginning on each attempt."""

    size: int
    """Size in bytes."""

    def chunks(self) -> Iterator[bytes]:
        """The whole body, in order."""


class BodySink(Protocol):
    """Receives the body of a response."""

    size: int
    """Bytes received so far; a later response may continue from there."""

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Called before the body: with status 200 all of it follows, with 206 what comes after ``size`` bytes."""

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes."""


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    ``url`` is a path on the server, or the whole URL of a signed link (``signed``), which is sent without the key.
    ``repeatable``: sending it twice has the effect of sending it once.
    """

    method: str
    url: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    json: Any = None
    content: bytes | RequestBody | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    repeatable: bool = True
    signed: bool = False
    timeout_s: float | None = None

    def __str__(self) -> str:
        """``GET /jobs``; links are shown without their query, since the signature in it opens the object."""
        parts = urlsplit(self.url)
        return f"{self.method} {parts.scheme + '://' + parts.netloc if parts.netloc else ''}{parts.path}"


@dataclass(frozen=True)
class Response:
    """An HTTP response. ``content`` is empty where the body went to a sink."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Send:
    """Effect: send a request; the outcome is its :class:`Response`. Raises httpx.TransportError."""

    request: Request


@dataclass(frozen=True)
class Fetch:
    """Effect: send a request and stream the body of a 200 or 206 to ``sink``; the outcome is the :class:`Response`."""

    request: Request
    sink: BodySink


@dataclass(frozen=True)
class Sleep:
    """Effect: sleep for ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class Call:
    """Effect: call a function that may take long or wait for a disk; the outcome is what it returns."""

    call: Callable[[], Any]


@dataclass(frozen=True)
class Gather:
    """Effect: run flows concurrently, ``max_concurrency`` at a time; the outcome is their results, in the flows' order.

    The first flow that raises stops the others; when this raises, none of their effects is still running. Not to be
    nested.
    """

    flows: Iterable[Flow[Any]]
    max_concurrency: int


Effect: TypeAlias = Send | Fetch | Sleep | Call | Gather
Flow: TypeAlias = Generator[Effect, Any, Result]
