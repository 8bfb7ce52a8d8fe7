"""Broker addresses: one parser, whose result says the same to redis-py, redis.asyncio, kombu and Celery.

    redis://[[user]:password@]host[:port][/database]
    rediss://...    the same over TLS; certificates are checked by every connection
    unix://[[user]:password@]/path/of/the/socket[?db=database]

The database may also be given as ``?db=``. TLS takes ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile`` (files),
``ssl_cert_reqs`` (required or none) and ``ssl_check_hostname`` (true or false). User and password are percent-encoded.
Whatever else an address holds is refused, because one of these libraries would ignore it or fail on it. No message of
this module quotes an address: a mistyped password is nearly the password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

FORM = "redis://[user:password@]host:port/database, rediss:// for TLS, or unix:///path/of/the/socket?db=database"
DEFAULT_PORT = 6379
_MAX_DATABASE = 2**31 - 1
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_CERT_REQS = {"required": "required", "cert_required": "required", "none": "none", "cert_none": "none"}
_SWITCH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class BrokerAddress:
    """An address, taken apart. ``socket`` is the path of a Unix socket, else None.

    ``tls`` holds the TLS options by redis-py's names; None without TLS.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    socket: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: dict[str, Any] | None = None

    def redis_options(self) -> dict[str, Any]:
        """The keyword arguments of ``redis.Redis`` and ``redis.asyncio.Redis``."""
        options: dict[str, Any] = {"db": self.database, "username": self.username, "password": self.password}
        if self.socket is not None:
            return {**options, "unix_socket_path": self.socket}
        options |= {"host": self.host, "port": self.port}
        return options if self.tls is None else {**options, "ssl": True, **self.tls}

    def celery_options(self) -> dict[str, Any]:
        """``broker_url`` of Celery's configuration, and ``broker_use_ssl`` where the address has TLS."""
        user = ""
        if self.username is not None or self.password is not None:
            user = f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"
        if self.socket is not None:
            path = quote(self.socket, safe="/")
            return {"broker_url": f"redis+socket://{user}{path}?virtual_host={self.database}"}
        host = f"[{self.host}]" if ":" in self.host else self.host
        url = f"://{user}{host}:{self.port}/{self.database}"
        if self.tls is None:
            return {"broker_url": f"redis{url}"}
        return {"broker_url": f"rediss{url}", "broker_use_ssl": dict(self.tls)}


def parse_broker_address(text: str) -> BrokerAddress:
    """The address that ``text`` writes. Raises ValueError, whose message holds the remedy and nothing of a secret."""
    scheme, separator, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"it must begin with redis://, rediss:// or unix://; write {FORM}")
    authority, path, query = _split(rest)
    user, at, place = authority.rpartition("@")
    username, password = _credentials(user) if at else (None, None)
    options = _options(query, scheme)
    named = options.pop("db", None)
    if scheme == "unix":
        if place or len(path) < 2:
            raise ValueError("a Unix socket needs its whole path; write unix:///path/of/the/socket")
        _check_escapes(path, "the path")
        return BrokerAddress(socket=unquote(path), database=_database(named, ""), username=username, password=password)
    host, port = _place(place)
    return BrokerAddress(
        host=host,
        port=port,
        database=_database(named, path),
        username=username,
        password=password,
        tls=_tls(options) if scheme == "rediss" else None,
    )


def mask_userinfo(text: str, mask: str) -> str:
    """``text`` with the secrets of a URL masked: all but a plain user name before the last ``@``, and the values of
    query parameters that are named like secrets. Works on malformed URLs too."""
    text = re.sub(r"(?i)([?&][^=&#\s]*(?:pass|secret|token|key)[^=&#\s]*=)[^&#\s]*", rf"\g<1>{mask}", text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    if "@" not in rest:
        return text
    user, _, place = rest.rpartition("@")
    name = re.match(r"[\w.-]*(?=:)", user, re.ASCII)
    return f"{scheme}{separator}{name[0] + ':' if name and separator else ''}{mask}@{place}"


def _split(rest: str) -> tuple[str, str, str]:
    """(authority, path, query). The authority ends at the first / ? or #, so none of these may stand in a password."""
    found = re.match(r"([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$", rest, re.DOTALL)
    assert found is not None
    authority, path, query, fragment = found.groups()
    if "@" not in authority and "@" in rest and (authority or not path.startswith("/")):
        raise ValueError(
            "the user or password holds one of / ? # as it is; write / as %2F, ? as %3F and # as %23 (and @ as %40, % "
            "as %25)"
        )
    if fragment:
        raise ValueError("it has a part behind #, which means nothing here; write # in a password as %23")
    return authority, path, query or ""


def _credentials(user: str) -> tuple[str | None, str | None]:
    if "@" in user:
        raise ValueError("the user or password holds @ as it is; write it as %40")
    name, colon, password = user.partition(":")
    if not colon:
        raise ValueError(
            "what stands before @ has no colon; write user:password@ or, for a password without a user, :password@"
        )
    _check_escapes(user, "the user or password")
    return unquote(name) or None, unquote(password) or None


def _check_escapes(text: str, what: str) -> None:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError(f"{what} holds a % that begins no escape such as %2F; write the % itself as %25")
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError(f"{what} holds a space or a control character; write a space as %20")


def _place(place: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]*)(?::([^\s:]*))?", place)
    if found is not None and not re.fullmatch(r"\d{0,5}", found[2] or "", re.ASCII):
        raise ValueError(f"the port must be a number, 1 to 65535; write redis://host:{DEFAULT_PORT}/0")
    if found is None:
        raise ValueError(
            "the host must be a name, an IPv4 address, or an IPv6 address in brackets: redis://[::1]:6379/0"
        )
    port = int(found[2]) if found[2] else DEFAULT_PORT
    if not 0 < port <= 65_535:
        raise ValueError(f"the port must be a number, 1 to 65535; write redis://host:{DEFAULT_PORT}/0")
    return found[1].strip("[]") or "localhost", port


def _options(query: str, scheme: str) -> dict[str, str]:
    allowed = ("db", *(_TLS_OPTIONS if scheme == "rediss" else ()))
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in ("username", "password"):
            raise ValueError(f"{name} stands behind ?; write user:password@ before the host instead")
        if name not in allowed:
            if name in _TLS_OPTIONS:
                raise ValueError(f"the option {name} needs rediss://")
            # not quoted: where a password holds a ?, the rest of it stands here
            raise ValueError(
                f"an option behind ? is not one that all connections take; {', '.join(allowed)} can stand there"
            )
        if options.setdefault(name, value) != value:
            raise ValueError(f"the option {name} comes twice with different values; give it once")
    return options


def _database(named: str | None, path: str) -> int:
    given = path.strip("/")
    if given and named is not None and given != named:
        raise ValueError("the path names one database and ?db= another; name it once")
    number = given or named or "0"
    if not re.fullmatch(r"\d{1,10}", number, re.ASCII) or int(number) > _MAX_DATABASE:
        raise ValueError("the database must be a number, as in redis://host:6379/0")
    return int(number)


def _tls(options: dict[str, str]) -> dict[str, Any]:
    required = _CERT_REQS.get(options.get("ssl_cert_reqs", "required").lower())
    if required is None:
        raise ValueError("ssl_cert_reqs must be required, or none to take any certificate")
    check = _SWITCH.get(options.get("ssl_check_hostname", "true" if required == "required" else "false").lower())
    if check is None:
        raise ValueError("ssl_check_hostname must be true or false")
    if check and required == "none":
        raise ValueError("ssl_check_hostname=true needs ssl_cert_reqs=required; without a certificate there is no name")
    files = {name: options[name] for name in _TLS_FILES if options.get(name)}
    return {"ssl_cert_reqs": required, "ssl_check_hostname": check, **files}
