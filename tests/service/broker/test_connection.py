"""Broker addresses over a real server: redis-py, redis.asyncio and Celery's own connection go the same way."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import AuthenticationError, ConnectionError

from service.broker.connection import connect, connect_async
from service.broker.queues import celery_options
from service.local.valkey import server_program
from service.settings import read_settings
from tests.ports import free_port

StartTls = Callable[[str], tuple[int, Path]]
PASSWORD = "Kx/9+se%kret?A#b:c@d e"


def by_redis_py(url: str) -> int:
    """The number of the database that the connection uses."""
    with connect(url, timeout_s=2, keepalive=True, retry_once=True) as client:
        return _database(client.client_info())


def by_asyncio(url: str) -> int:
    async def ask() -> int:
        client = connect_async(url, connect_timeout_s=2, timeout_s=2, decode_responses=True)
        try:
            return _database(await client.client_info())
        finally:
            await client.aclose()

    return asyncio.run(ask())


def by_celery(url: str) -> int:
    app = Celery()
    app.conf.update(celery_options(read_settings(broker_url=url)))
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)
        return _database(connection.default_channel.client.client_info())


def _database(info: dict[str, str]) -> int:
    return int(info["db"])


WAYS = pytest.mark.parametrize("way", [by_redis_py, by_asyncio, by_celery])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port and the socket of a server that asks for :data:`PASSWORD`."""
    folder, port = tmp_path_factory.mktemp("valkey"), free_port()
    path = folder / "broker's-100%.sock"
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path), "--save", ""]
    with subprocess.Popen(
        [str(server_program()), *arguments, "--requirepass", PASSWORD, "--dir", str(folder)], stdout=subprocess.DEVNULL
    ) as process:
        until = time.monotonic() + 10
        while not path.exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        yield port, path
        process.terminate()


@WAYS
@pytest.mark.parametrize("form", ["tcp", "tcp-db-behind", "tcp-user", "tcp-name", "socket", "socket-db"])
def test_every_form_of_an_address_reaches_the_same_database(
    server: tuple[int, Path], way: Callable[[str], int], form: str
) -> None:
    port, path = server
    secret, place = quote(PASSWORD, safe=""), quote(str(path))
    url, database = {
        "tcp": (f"redis://:{secret}@127.0.0.1:{port}/3", 3),
        "tcp-db-behind": (f"redis://:{secret}@127.0.0.1:{port}?db=5", 5),
        "tcp-user": (f"redis://default:{secret}@127.0.0.1:{port}/", 0),
        "tcp-name": (f"redis://:{secret}@localhost:{port}", 0),
        "socket": (f"unix://:{secret}@{place}", 0),
        "socket-db": (f"unix://default:{secret}@{place}?db=7", 7),
    }[form]
    assert way(url) == database


@WAYS
def test_a_wrong_password_is_refused(server: tuple[int, Path], way: Callable[[str], int]) -> None:
    with pytest.raises((AuthenticationError, OperationalError)):
        way(f"redis://:wrong@127.0.0.1:{server[0]}/0")


# TLS -------------------------------------------------------------------------------------------------------------


def _certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate that signs itself, for ``host`` and 127.0.0.1's name, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(host)]
    if host == "localhost":
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_file = folder / f"{host}.pem", folder / f"{host}.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, key_file


class TlsProxy:
    """TLS in front of a port of this machine, as stunnel would do it."""

    def __init__(self, port: int, certificate: Path, key: Path) -> None:
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            client = self._context.wrap_socket(plain, server_side=True)
        except (ssl.SSLError, OSError):
            plain.close()
            return
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()
            _pump(client, server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture(scope="module")
def tls(server: tuple[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartTls]:
    """Starts TLS in front of the server with a certificate for a host; its port and the certificate."""
    proxies: dict[str, tuple[TlsProxy, Path]] = {}
    folder = tmp_path_factory.mktemp("tls")

    def start(host: str) -> tuple[int, Path]:
        if host not in proxies:
            certificate, key = _certificate(folder, host)
            proxies[host] = TlsProxy(server[0], certificate, key), certificate
        proxy, certificate = proxies[host]
        return proxy.port, certificate

    yield start
    for proxy, _ in proxies.values():
        proxy.close()


REFUSED = (ConnectionError, OperationalError, ssl.SSLError)


@WAYS
def test_a_certificate_that_nobody_vouches_for_is_refused(tls: StartTls, way: Callable[[str], int]) -> None:
    port, _ = tls("localhost")
    with pytest.raises(REFUSED):
        way(f"rediss://:{quote(PASSWORD, safe='')}@localhost:{port}/0")


@WAYS
def test_a_certificate_of_the_given_authority_is_taken(tls: StartTls, way: Callable[[str], int]) -> None:
    port, authority = tls("localhost")
    assert way(f"rediss://:{quote(PASSWORD, safe='')}@localhost:{port}/2?ssl_ca_certs={authority}") == 2


@WAYS
def test_a_certificate_for_another_host_is_refused_unless_names_are_not_checked(
    tls: StartTls, way: Callable[[str], int]
) -> None:
    port, authority = tls("elsewhere.example")
    url = f"rediss://:{quote(PASSWORD, safe='')}@localhost:{port}/0?ssl_ca_certs={authority}"
    with pytest.raises(REFUSED):
        way(url)
    assert way(f"{url}&ssl_check_hostname=false") == 0


@WAYS
def test_checks_can_be_switched_off_by_name_alone(tls: StartTls, way: Callable[[str], int]) -> None:
    port, _ = tls("localhost")
    assert way(f"rediss://:{quote(PASSWORD, safe='')}@localhost:{port}/1?ssl_cert_reqs=none") == 1


def test_a_client_decodes_by_default_and_may_give_bytes(server: tuple[int, Path]) -> None:
    url = f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{server[0]}/9"
    with connect(url, timeout_s=2) as texts, connect(url, timeout_s=2, decode=False) as raw:
        assert isinstance(texts, Redis)
        texts.set("name", "ü")
        assert texts.get("name") == "ü"
        assert raw.get("name") == "ü".encode()
