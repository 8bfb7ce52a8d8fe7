"""A callback's URL, taken apart once and strictly, so that what is checked and what is connected to cannot differ.

Ports are not restricted: without the setting that allows plain HTTP every callback begins with a TLS handshake to a
public host whose certificate must fit, which no mail server or database can be talked into anything by.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import urlsplit

from service.webhooks.addresses import Address, kind_of, may_receive

MAX_URL_CHARS = 2048
SETTING = "TWINSET_WEBHOOK_ALLOW_PRIVATE"

_RFC_3986 = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
_NETLOC = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d{1,5})?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*")
_ENDS_IN_A_NUMBER = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")
_INSIDE = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home.arpa")
"""Names under these never lead out of a network. There are others, so what counts is the address at delivery."""


class UrlRefused(ValueError):
    """A URL that no callback may go to; says why, and what would do."""


@dataclass(frozen=True)
class CallbackTarget:
    """Where a callback goes. ``host`` is a name in lower case or an address without brackets; ``path`` has the
    query."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as the ``Host`` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: all of the URL that may stand in a log."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def address(self) -> Address | None:
        """The host where it is an address; None where it is a name."""
        for kind in (IPv4Address, IPv6Address):
            try:
                return kind(self.host)
            except AddressValueError:
                pass
        return None


def parse_target(url: str, *, private_allowed: bool) -> CallbackTarget:
    """Where ``url`` leads. Raises :class:`UrlRefused`.

    Addresses and names that are plainly not public are refused here, so that a client learns it at once; what a name
    stands for is looked at when it is connected to.
    """
    if len(url) > MAX_URL_CHARS:
        raise UrlRefused(f"it has {len(url)} characters; at most {MAX_URL_CHARS} are kept, shorten it")
    if not _RFC_3986.fullmatch(url):
        raise UrlRefused("it holds characters that no URL has; write them percent-encoded, and a host in punycode")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UrlRefused(f"it is not a URL ({error}); write https://host/path") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and private_allowed):
        http = "" if parts.scheme != "http" else f"; plain http is taken where {SETTING} is true"
        raise UrlRefused(f"it must start with https://{http}")
    if "@" in parts.netloc:
        raise UrlRefused("it holds a user or a password, which would be stored and shown; the signature says who calls")
    if "#" in url:
        raise UrlRefused("it holds a fragment, which is never sent; leave out what follows '#'")
    if port == 0 or not _NETLOC.fullmatch(parts.netloc):
        raise UrlRefused(
            "after its host there may be a port, 1 to 65535; write https://host:port/path, or leave it out"
        )
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = CallbackTarget(tls, _host(parts.netloc, parts.hostname or ""), port or (443 if tls else 80), path)
    _refuse_plainly_inside(target, private_allowed)
    return target


def _host(netloc: str, host: str) -> str:
    if netloc.startswith("["):
        try:
            address = IPv6Address(host)
        except AddressValueError:
            address = None
        if address is None or address.scope_id is not None:
            raise UrlRefused("what stands in its brackets is no IPv6 address of the internet")
        return str(address)
    host = host.removesuffix(".")
    if not _NAME.fullmatch(host):
        raise UrlRefused("its host is neither a name nor an address; write https://host/path")
    if _ENDS_IN_A_NUMBER.fullmatch(host):
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            # 127.1, 0x7f000001 and the like, which some resolvers read as addresses
            raise UrlRefused("its host is no name, and no IPv4 address of four decimal numbers") from None
    return host


def _refuse_plainly_inside(target: CallbackTarget, private_allowed: bool) -> None:
    address = target.address
    if address is not None:
        if not may_receive(address, private_allowed=private_allowed):
            raise UrlRefused(f"{target.host} is {kind_of(address).value}; {_remedy(private_allowed)}")
    elif not private_allowed:
        inside = "." not in target.host or any(f".{target.host}".endswith(f".{name}") for name in _INSIDE)
        if inside:
            raise UrlRefused(f"{target.host} is a name inside of a network; {_remedy(private_allowed)}")


def _remedy(private_allowed: bool) -> str:
    if private_allowed:
        return "callbacks go to public, private and loopback addresses"
    return f"callbacks go to public addresses; {SETTING}=true, on the service, allows private and loopback ones"
