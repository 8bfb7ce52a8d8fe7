"""The first look at a request, by its header alone: is it for this service, and not from a page of another site?

On loopback no key is needed, and every web page that a browser on this machine shows could send requests here. Two
checks keep pages out, on loopback and elsewhere:

- **Host** must be a name of this service. A page that has its own name point to this machine (DNS rebinding) shares an
  origin with the API, but its requests name its own host.
- **Origin** and **Sec-Fetch-Site**, which browsers set and pages cannot change, must be this service's own if the
  request changes something, whether it has a body or not. Reading needs no such check: no answer allows other origins
  to read it.

Programs send neither Origin nor Sec-Fetch-Site. ``/healthz``, ``/readyz``, ``/metrics`` and ``/autoscaling`` are asked
by the address of a pod or by a service's name, which the settings do not know, and tell nothing worth hiding: they take
any Host.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.connections import MAX_HEADER_BYTES
from service.api.errors import ForeignOrigin, HeaderTooLarge, RepeatedHeader, UnknownHost, refuse
from service.errors import TwinsetError
from service.kit.setting_values import HOST_NAME
from service.kit.validation import truncated_repr
from service.settings import Settings

_PROBED = frozenset({"/healthz", "/readyz", "/metrics", "/autoscaling"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ONCE = frozenset(
    {
        b"host",
        b"origin",
        b"sec-fetch-site",
        b"authorization",
        b"content-type",
        b"content-length",
        b"transfer-encoding",
        b"idempotency-key",
    }
)
Host = tuple[str, str | None]
"""A host's name in lower case, and its port as written; None if it is the scheme's."""


@dataclass(frozen=True)
class OwnHosts:
    """The hosts that are this service: those of the settings, and the address that a connection came to."""

    always: frozenset[Host]
    patterns: tuple[Host, ...]
    """Of ``allowed_hosts``; with ``*`` or ``*.`` at the beginning of a name, and None for any port."""

    @classmethod
    def of(cls, settings: Settings) -> OwnHosts:
        """The hosts of ``settings``."""
        public = _parse(urlsplit(settings.public_url).netloc.rpartition("@")[2])
        allowed = [name for name in settings.allowed_hosts.split(",") if name]
        parsed = [
            ("*", None) if name == "*" else _parse(name.removeprefix("*."), name.startswith("*.")) for name in allowed
        ]
        return cls(frozenset([public] if public else []), tuple(each for each in parsed if each))

    def has(self, host: Host, connected_to: str | None) -> bool:
        """Whether requests may name ``host``, on a connection to the address ``connected_to``."""
        name = host[0]
        if name in _LOOPBACK or name.strip("[]") == connected_to or name in {own for own, _ in self.always}:
            return True
        return self._is_allowed(host)

    def trusts(self, origin: Host) -> bool:
        """Whether pages of ``origin`` may change something although the request names another host."""
        return origin in self.always or self._is_allowed(origin)

    def _is_allowed(self, host: Host) -> bool:
        return any(
            port in (None, host[1]) and (name in ("*", host[0]) or (name[:2] == "*." and host[0].endswith(name[1:])))
            for name, port in self.patterns
        )


class GateMiddleware:
    """Refuses what is not for this service, or not from its own pages, before anything else is done for it."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._own = OwnHosts.of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            error = self._fault(scope)
            if error is not None:
                # who takes a header for another than we do may take the rest of the body for a request
                await refuse(error, scope, receive, send, hang_up=isinstance(error, RepeatedHeader))
                return
        await self._app(scope, receive, send)

    def _fault(self, scope: Scope) -> TwinsetError | None:
        found: dict[bytes, bytes] = {}
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name in _ONCE:
                if name in found:
                    return RepeatedHeader(f"the request has more than one {name.decode().title()} header; send one")
                found[name] = value
        if b"content-length" in found and b"transfer-encoding" in found:
            return RepeatedHeader("the request has a Content-Length and a Transfer-Encoding header; send one")
        if size > MAX_HEADER_BYTES:
            return HeaderTooLarge(f"path, query and header have {size} bytes; at most {MAX_HEADER_BYTES} are read")
        given = found.get(b"host", b"").decode("latin-1")
        host = _parse(given)
        server = scope.get("server")
        if scope["path"] not in _PROBED and not (host and self._own.has(host, server[0] if server else None)):
            return _unknown_host(given)
        if scope["method"] in _READING:
            return None
        return self._foreign(host, found)

    def _foreign(self, host: Host | None, found: dict[bytes, bytes]) -> TwinsetError | None:
        """What is wrong with the origin of a request that changes something."""
        trusted = False
        if (text := found.get(b"origin")) is not None:
            origin = _origin(text.decode("latin-1"))
            trusted = origin is not None and (origin == host or self._own.trusts(origin))
            if not trusted:
                return ForeignOrigin(
                    f"Origin is {truncated_repr(text.decode('latin-1'))}, which is not this service; if its pages may "
                    "use this service, set TWINSET_PUBLIC_URL to the address they are served at, or add its host to "
                    "TWINSET_ALLOWED_HOSTS"
                )
        site = found.get(b"sec-fetch-site", b"none").strip().lower()
        if site in (b"same-origin", b"none") or (site == b"same-site" and trusted):
            return None
        return ForeignOrigin(
            f"Sec-Fetch-Site is {truncated_repr(site.decode('latin-1'))}: a page of another site sent this; use "
            "this service's own pages, or a program"
        )


_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


def _parse(text: str, below: bool = False) -> Host | None:
    """The host and port in a Host header; None if it is neither. ``below`` stands for all names below it."""
    match = HOST_NAME.fullmatch(text.strip())
    if match is None:
        return None
    name = match["name"].lower().removesuffix(".")
    return ("*." if below else "") + name, match["port"]


def _origin(text: str) -> Host | None:
    """The host of an Origin header; None for ``null`` and everything else without one."""
    scheme, separator, host = text.strip().partition("://")
    return _parse(host) if separator and scheme.lower() in ("http", "https") else None


def _unknown_host(given: str) -> UnknownHost:
    what = f"Host is {truncated_repr(given)}, which is not" if given else "the request names no Host, and so not"
    return UnknownHost(
        f"{what} a name of this service; use the address of TWINSET_PUBLIC_URL, or add the name to "
        "TWINSET_ALLOWED_HOSTS and restart the API"
    )
