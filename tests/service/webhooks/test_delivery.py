"""One attempt over a real connection: pinned to the address that was looked at, in bounded time, following nothing."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.webhooks import delivery
from service.webhooks.delivery import (
    NotDelivered,
    ReceiverAnswer,
    Resolve,
    post,
)
from service.webhooks.urls import CallbackTarget, parse_target
from tests.service.webhooks.receiver import LOOPBACK, Receiver, receiving


def send(
    target: CallbackTarget | str,
    *,
    timeout_s: float = 10.0,
    private_allowed: bool = True,
    resolve: Resolve = delivery.resolve,
) -> ReceiverAnswer:
    if isinstance(target, str):
        target = parse_target(target, private_allowed=True)
    headers = {"Content-Type": "application/json", "webhook-id": "j_ended"}
    return post(target, headers, b"{}", timeout_s=timeout_s, private_allowed=private_allowed, resolve=resolve)


class Names:
    """A resolver that gives each of ``answers`` once, the last of them for ever, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_what_is_sent_arrives(receiver: Receiver) -> None:
    assert send(receiver.url) == ReceiverAnswer(204, None)
    (got,) = receiver.got
    assert (got.method, got.path, got.body) == ("POST", "/hook?of=mine", b"{}")
    assert got.headers["host"] == f"{LOOPBACK}:{receiver.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == "j_ended"


def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver) -> None:
    receiver.answers = [(307, {"Location": receiver.url, "Retry-After": "7"})]
    assert send(receiver.url) == ReceiverAnswer(307, "7")
    assert len(receiver.got) == 1


def test_no_proxy_comes_between(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert send(receiver.url).status == 204


def test_a_name_that_turns_private_after_it_was_looked_at_leads_nowhere_else(receiver: Receiver) -> None:
    # the second answer would be refused even here; it is never asked for
    names = Names([LOOPBACK], ["169.254.169.254"])
    assert send(f"http://rebinding.example:{receiver.port}/", resolve=names).status == 204
    assert names.asked == [("rebinding.example", receiver.port)]
    assert receiver.got[0].headers["host"] == f"rebinding.example:{receiver.port}"


def test_a_name_that_was_public_when_it_was_admitted_and_is_private_at_delivery_is_refused(receiver: Receiver) -> None:
    target = parse_target(f"https://rebinding.example:{receiver.port}/", private_allowed=False)
    for addresses in ([LOOPBACK], ["8.8.8.8", LOOPBACK], ["::ffff:127.0.0.1"], ["10.0.0.7"], ["fe80::1%1"]):
        with pytest.raises(NotDelivered, match="no webhook may be sent to") as refused:
            send(target, private_allowed=False, resolve=Names(addresses))
        assert not any(address in str(refused.value) for address in addresses), "names of the inside are not told"
    assert receiver.got == []


def test_special_addresses_are_refused_even_where_private_ones_are_allowed() -> None:
    with pytest.raises(NotDelivered, match="no webhook may be sent to"):
        send("https://metadata.example/", resolve=Names(["169.254.169.254"]))


def test_the_next_address_is_tried_where_one_refuses(receiver: Receiver) -> None:
    assert send(f"http://two.example:{receiver.port}/", resolve=Names(["127.0.0.2", LOOPBACK])).status == 204


def test_why_there_was_no_answer_is_told(receiver: Receiver) -> None:
    def no_such_name(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(NotDelivered, match="could not be resolved"):
        send("https://nowhere.example/", resolve=no_such_name)
    with socket.create_server((LOOPBACK, 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NotDelivered, match="no connection: the connection was refused"):
        send(f"http://{LOOPBACK}:{port}/")
    with pytest.raises(NotDelivered, match="TLS failed"):
        send(f"https://{LOOPBACK}:{receiver.port}/")


def test_what_speaks_no_http_is_told_from_what_hangs_up() -> None:
    def serve(listener: socket.socket, answers: list[bytes]) -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=serve, args=(listener, [b"220 mail ESMTP\r\n", b""]), daemon=True).start()
        url = f"http://{LOOPBACK}:{listener.getsockname()[1]}/"
        with pytest.raises(NotDelivered, match="not valid HTTP"):
            send(url)
        with pytest.raises(NotDelivered, match="broke before an answer"):
            send(url)


def test_a_receiver_that_says_nothing_or_a_byte_at_a_time_is_left_in_bounded_time(receiver: Receiver) -> None:
    receiver.held = threading.Event()
    for drips in (False, True):
        if drips:
            receiver.drips = True
            receiver.held.set()
        began = time.monotonic()
        with pytest.raises(NotDelivered, match=r"no answer within 0\.5 s"):
            send(receiver.url, timeout_s=0.5)
        assert 0.4 < time.monotonic() - began < 5


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """A server's TLS with a certificate for receiver.example, which this machine trusts for as long as the test
    lasts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(minutes=10))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("receiver.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    delivery._tls.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    yield context
    delivery._tls.cache_clear()


def test_over_tls_the_certificate_must_be_the_names_though_the_connection_is_the_addresss(
    certified: ssl.SSLContext,
) -> None:
    heard: list[str | None] = []
    certified.sni_callback = lambda _, name, __: heard.append(name)
    with receiving(certified) as receiver:
        answer = send(f"https://receiver.example:{receiver.port}/a", resolve=Names([LOOPBACK]))
        assert answer.status == 204
        assert receiver.got[0].headers["host"] == f"receiver.example:{receiver.port}"
        assert heard == ["receiver.example"]
        with pytest.raises(NotDelivered, match="certificate is not valid"):
            send(f"https://another.example:{receiver.port}/a", resolve=Names([LOOPBACK]))
    assert len(receiver.got) == 1
