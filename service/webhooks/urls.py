"""Strict parsing of a callback URL, once, so that what is checked and what is connected to cannot differ.

Ports are not restricted: unless the settings allow plain HTTP, every webhook begins with a TLS handshake with a public
host whose certificate must be valid, which does no harm to a mail server or a database.
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
_INTERNAL_DOMAINS = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home.arpa")
"""Names under these domains are never public. There are others, so the address is checked again at delivery."""


class UrlRefused(ValueError):
    """A URL that no webhook may be sent to; the message has the reason and the remedy."""


@dataclass(frozen=True)
class CallbackTarget:
    """The target of a webhook. ``host`` is a lower-case name or an address without brackets; ``path`` has the query."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port for the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: the part of the URL that may appear in a log."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def address(self) -> Address | None:
        """The host if it is an address; None if it is a name."""
        for kind in (IPv4Address, IPv6Address):
            try:
                return kind(self.host)
            except AddressValueError:
                pass
        return None


def parse_target(url: str, *, private_allowed: bool) -> CallbackTarget:
    """The target of ``url``. Raises :class:`UrlRefused`.

    Addresses and names that are clearly not public are refused here, so that the client learns of it immediately. Names
    are resolved and checked at delivery.
    """
    if len(url) > MAX_URL_CHARS:
        raise UrlRefused(f"it has {len(url)} characters; at most {MAX_URL_CHARS} are allowed")
    if not _RFC_3986.fullmatch(url):
        raise UrlRefused(
            "it has characters that are not allowed in a URL; percent-encode them, and write the host in punycode"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UrlRefused(f"it is not a URL ({error}); write https://host/path") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and private_allowed):
        http = "" if parts.scheme != "http" else f"; plain http is allowed where {SETTING} is true"
        raise UrlRefused(f"it must start with https://{http}")
    if "@" in parts.netloc:
        raise UrlRefused(
            "it has a user or a password, which would be stored and shown; the signature identifies the sender"
        )
    if "#" in url:
        raise UrlRefused("it has a fragment, which is never sent; leave out what follows '#'")
    if port == 0 or not _NETLOC.fullmatch(parts.netloc):
        raise UrlRefused(
            "after its host there may be a port, 1 to 65535; write https://host:port/path, or leave it out"
        )
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = CallbackTarget(tls, _host(parts.netloc, parts.hostname or ""), port or (443 if tls else 80), path)
    _refuse_internal(target, private_allowed)
    return target


def _host(netloc: str, host: str) -> str:
    if netloc.startswith("["):
        try:
            address = IPv6Address(host)
        except AddressValueError:
            address = None
        if address is None or address.scope_id is not None:
            raise UrlRefused("the text in its brackets is not a public IPv6 address")
        return str(address)
    host = host.removesuffix(".")
    if not _NAME.fullmatch(host):
        raise UrlRefused("its host is neither a name nor an address; write https://host/path")
    if _ENDS_IN_A_NUMBER.fullmatch(host):
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            # 127.1, 0x7f000001 and the like, which some resolvers read as addresses
            raise UrlRefused("its host is neither a name nor an IPv4 address of four decimal numbers") from None
    return host


def _refuse_internal(target: CallbackTarget, private_allowed: bool) -> None:
    address = target.address
    if address is not None:
        if not may_receive(address, private_allowed=private_allowed):
            raise UrlRefused(f"{target.host} is {kind_of(address).value}; {_remedy(private_allowed)}")
    elif not private_allowed:
        inside = "." not in target.host or any(f".{target.host}".endswith(f".{name}") for name in _INTERNAL_DOMAINS)
        if inside:
            raise UrlRefused(f"{target.host} is a name inside a private network; {_remedy(private_allowed)}")


def _remedy(private_allowed: bool) -> str:
    if private_allowed:
        return "webhooks may go to public, private and loopback addresses"
    return f"webhooks go to public addresses; {SETTING}=true on the service allows private and loopback ones"
