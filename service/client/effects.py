"""What an operation asks of the outside world.

An operation is written once, as a generator (a *flow*): it yields the effects below, is sent their outcomes, and
returns its result. What an effect raises is raised at the ``yield``, so that ``try`` and ``with`` work as everywhere.
``blocking`` runs a flow with threads, ``cooperative`` in an event loop; neither knows what a flow is about.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")
PIECE_BYTES = 1 << 18


class Body(Protocol):
    """A request's body that is read while it is sent, each time from its beginning."""

    size: int
    """In bytes."""

    def pieces(self) -> Iterator[bytes]:
        """All of it, in order."""


class BodySink(Protocol):
    """Takes the body of an answer."""

    size: int
    """Bytes taken and kept so far; an answer may go on from there."""

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Called before the body: status 200 brings all of it, 206 what follows after ``size`` bytes."""

    def write(self, piece: bytes) -> None:
        """Takes what comes next."""


@dataclass(frozen=True)
class Request:
    """A request. ``url`` is a path on the server; of a signed link (``signed``) it is all there is, and no key goes
    with it.

    ``repeatable`` says that sending it twice does no more than sending it once.
    """

    method: str
    url: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    json: Any = None
    content: bytes | Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    repeatable: bool = True
    signed: bool = False
    timeout_s: float | None = None

    def __str__(self) -> str:
        """``GET /jobs``; of a link without the query, whose signature opens the object."""
        parts = urlsplit(self.url)
        return f"{self.method} {parts.scheme + '://' + parts.netloc if parts.netloc else ''}{parts.path}"


@dataclass(frozen=True)
class Answer:
    """What came back. ``content`` is empty where the body went to a sink."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def is_success(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Send:
    """Sends a request; the outcome is its :class:`Answer`. Raises httpx.TransportError."""

    request: Request


@dataclass(frozen=True)
class Fetch:
    """Sends a request, and gives the body of a 200 or 206 to ``sink`` as it comes; the outcome is the
    :class:`Answer`."""

    request: Request
    sink: BodySink


@dataclass(frozen=True)
class Sleep:
    """Passes ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Calls what may take long, or waits for a disk; the outcome is what it returns."""

    call: Callable[[], Any]


@dataclass(frozen=True)
class Together:
    """Runs flows side by side, ``at_once`` at a time; the outcome is the list of their results, in the flows' order.

    The first that raises stops the others, and no effect of theirs goes on once this raises. Not to be nested.
    """

    flows: Iterable[Flow[Any]]
    at_once: int


Effect: TypeAlias = Send | Fetch | Sleep | Work | Together
Flow: TypeAlias = Generator[Effect, Any, Result]
