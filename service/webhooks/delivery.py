"""One delivery attempt: a POST over a connection pinned to an address that has been checked.

The host is resolved once, all its addresses must be allowed, and the connection goes to one of exactly these; a name
that resolves differently a moment later changes nothing. No proxy, no redirect, no cookie; of the answer only status
and headers are read.
"""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from service.webhooks.addresses import kind_of, may_receive
from service.webhooks.urls import CallbackTarget

CONNECT_TIMEOUT_S = 5.0
_ADDRESSES_TRIED = 3
_ERROR_CHARS = 200
_log = logging.getLogger("twinset.webhooks")

Resolve = Callable[[str, int], Sequence[str]]
"""A resolver: from a host and a port to the host's addresses, best first. Raises OSError where there are none."""


@dataclass(frozen=True)
class ReceiverAnswer:
    """The status and ``Retry-After`` of a receiver's answer."""

    status: int
    retry_after: str | None


class NotDelivered(Exception):
    """No answer came. The message is for the job's owner, and reveals nothing of the worker's own network."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason[:_ERROR_CHARS])


def resolve(host: str, port: int) -> list[str]:
    """The host's addresses, from the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def post(
    target: CallbackTarget,
    headers: Mapping[str, str],
    body: bytes,
    *,
    timeout_s: float,
    private_allowed: bool,
    resolve: Resolve = resolve,
) -> ReceiverAnswer:
    """Sends ``body`` and returns status and headers of the answer, within ``timeout_s`` of resolving the host.

    Raises :class:`NotDelivered`.
    """
    connection = _PinnedConnection(target, _checked_addresses(target, private_allowed, resolve), timeout_s)
    # a socket's own timeout applies to each read, and a slow receiver may send a byte now and then
    cut = threading.Timer(timeout_s, connection.cut)
    cut.daemon = True
    cut.start()
    try:
        connection.request("POST", target.path, body, {"Host": target.authority, "Connection": "close", **headers})
        with connection.getresponse() as answer:
            return ReceiverAnswer(answer.status, answer.headers.get("Retry-After"))
    except (OSError, http.client.HTTPException) as error:
        late = connection.was_cut or isinstance(error, TimeoutError)
        raise NotDelivered(f"no answer within {timeout_s:g} s" if late else _reason(error)) from error
    finally:
        cut.cancel()
        connection.close()


def _checked_addresses(target: CallbackTarget, private_allowed: bool, resolve: Resolve) -> list[str]:
    literal = target.address
    try:
        addresses = [str(literal)] if literal is not None else list(resolve(target.host, target.port))
    except (OSError, UnicodeError) as error:
        raise NotDelivered("the host's name could not be resolved") from error
    for address in addresses:
        if not may_receive(ip_address(address), private_allowed=private_allowed):
            # the address goes to the log only: a client must not learn how names resolve inside this network
            _log.warning("no webhook to %s: %s is %s", target.origin, address, kind_of(ip_address(address)).value)
            raise NotDelivered("refused: the host's name resolves to an address that no webhook may be sent to")
    if not addresses:
        raise NotDelivered("the host's name could not be resolved")
    return addresses


class _Unreachable(OSError):
    """No connection to any of a host's addresses; the message may be shown to the client."""


class _PinnedConnection(http.client.HTTPConnection):
    """An HTTP connection to one of ``addresses`` and nothing else, for the host of ``target``."""

    def __init__(self, target: CallbackTarget, addresses: Sequence[str], timeout_s: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self.was_cut = False
        self._target = target
        self._addresses = addresses
        self._deadline = time.monotonic() + timeout_s

    def connect(self) -> None:
        self.sock = self._connected()
        self.sock.settimeout(self.timeout)
        if self._target.tls:
            # the handshake comes after self.sock is set, where cut() finds the socket
            tls = _tls().wrap_socket(self.sock, server_hostname=self._target.host, do_handshake_on_connect=False)
            self.sock = tls
            tls.do_handshake()
        if self.was_cut:
            raise TimeoutError

    def cut(self) -> None:
        """Aborts whatever the connection waits for. Called from another thread."""
        self.was_cut = True
        if self.sock is not None:
            with suppress(OSError):
                # not SSLSocket.shutdown, which would drop the TLS state while another thread reads
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def _connected(self) -> socket.socket:
        reason: OSError = TimeoutError()
        for address in self._addresses[:_ADDRESSES_TRIED]:
            left_s = min(CONNECT_TIMEOUT_S, self._deadline - time.monotonic())
            if left_s <= 0:
                break
            try:
                return socket.create_connection((address, self._target.port), left_s)
            except OSError as error:
                reason = error
        raise _Unreachable(f"no connection: {'it timed out' if isinstance(reason, TimeoutError) else _reason(reason)}")


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _reason(error: Exception) -> str:
    if isinstance(error, _Unreachable):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the host's certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'the connection broke'}"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, (ConnectionError, http.client.RemoteDisconnected)):
        return "the connection broke before an answer came"
    if isinstance(error, http.client.HTTPException):
        return "the answer was not valid HTTP"
    return f"the connection failed: {getattr(error, 'strerror', None) or type(error).__name__}"
