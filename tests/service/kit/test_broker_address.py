"""Broker addresses: what is read out of them, what is refused with which remedy, and that no secret is ever quoted."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import SettingsError
from service.kit.broker_address import BrokerAddress, mask_userinfo, parse_broker_address
from service.settings import read_settings


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://box", BrokerAddress(host="box")),
        ("redis://", BrokerAddress()),
        ("REDIS://box:6411?db=3", BrokerAddress(host="box", port=6411, database=3)),
        ("redis://box/4?db=4", BrokerAddress(host="box", database=4)),
        ("redis://:p%40ss%2F@[::1]:6380/2", BrokerAddress(host="::1", port=6380, database=2, password="p@ss/")),
        ("redis://acl:secret@box/", BrokerAddress(host="box", username="acl", password="secret")),
        ("unix:///run/redis.sock?db=2", BrokerAddress(socket="/run/redis.sock", database=2)),
        ("unix://u:p@/run/a%20b.sock", BrokerAddress(socket="/run/a b.sock", username="u", password="p")),
        ("rediss://box", BrokerAddress(host="box", tls={"ssl_cert_reqs": "required", "ssl_check_hostname": True})),
        (
            "rediss://box?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=CERT_REQUIRED",
            BrokerAddress(
                host="box",
                tls={"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": "/etc/ca.pem"},
            ),
        ),
        (
            "rediss://box?ssl_cert_reqs=none",
            BrokerAddress(host="box", tls={"ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        ),
    ],
)
def test_addresses_are_taken_apart(text: str, address: BrokerAddress) -> None:
    assert parse_broker_address(text) == address


@pytest.mark.parametrize(
    ("text", "remedy", "followed"),
    [
        ("redis://:Kx/9+sekretAbc=@box:6379/0", "write / as %2F", "redis://:Kx%2F9+sekretAbc=@box:6379/0"),
        ("redis://:a?sekretAbc@box", r"\? as %3F", "redis://:a%3FsekretAbc@box"),
        ("redis://:a#sekretAbc@box", "# as %23", "redis://:a%23sekretAbc@box"),
        ("redis://:a@sekretAbc@box", "as %40", "redis://:a%40sekretAbc@box"),
        ("redis://:a%sekretAbc@box", "as %25", "redis://:a%25sekretAbc@box"),
        ("redis://:a sekretAbc@box", "as %20", "redis://:a%20sekretAbc@box"),
        ("redis://sekretAbc@box", ":password@", "redis://:sekretAbc@box"),
        ("redis://box?password=sekretAbc", "user:password@ before the host", "redis://:sekretAbc@box"),
        ("unix://:a/sekretAbc@/run/x.sock", "write / as %2F", "unix://:a%2FsekretAbc@/run/x.sock"),
        ("redis:sekretAbc@box", "must begin with redis://", "redis://:sekretAbc@box"),
        ("redis://box:six", "write redis://host:6379/0", "redis://box:6379/0"),
        ("redis://box:70000", "1 to 65535", "redis://box:6379/0"),
        ("redis://box/jobs", "must be a number", "redis://box/0"),
        ("redis://box/1?db=2", "name it once", "redis://box/2"),
        ("redis://box?timeout=3", "; db can stand there", "redis://box?db=3"),
        ("redis://box?sekretAbc@box", r"write .* as %3F", "redis://:box%3FsekretAbc@box"),
        ("redis://box?ssl_ca_certs=x", "needs rediss://", "rediss://box?ssl_ca_certs=x"),
        ("rediss://box?ssl_cert_reqs=optional", "required, or none", "rediss://box?ssl_cert_reqs=none"),
        ("unix://run/redis.sock", "unix:///path/of/the/socket", "unix:///run/redis.sock"),
        ("amqp://box", "rediss:// or unix://", "redis://box"),
    ],
)
def test_what_one_library_would_not_honour_is_refused_with_a_remedy_that_works(
    text: str, remedy: str, followed: str
) -> None:
    with pytest.raises(SettingsError, match=remedy) as caught:
        read_settings(broker_url=text)
    assert "sekretAbc" not in str(caught.value)
    assert read_settings(broker_url=followed).broker_url == followed


SECRET = "sekretAbcXyz"
ANYTHING = st.text(st.characters(codec="utf-8"), max_size=8)


@given(ANYTHING, ANYTHING, ANYTHING)
@example("?", "=1", "")
@example("/0?", "", "")
@example("6379/?", "", "")
def test_no_message_and_no_repr_quotes_a_password_whatever_its_characters(before: str, after: str, user: str) -> None:
    text = f"redis://{user}:{before}{SECRET}{after}@box:6379/0"
    try:
        said = repr(read_settings(broker_url=text))
    except SettingsError as error:
        said = str(error)
    assert SECRET not in said
    assert SECRET not in mask_userinfo(text, "********")


@given(ANYTHING.filter(bool), ANYTHING)
def test_quoted_as_the_remedies_say_every_password_comes_through(password: str, user: str) -> None:
    from urllib.parse import quote

    url = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@box"
    address = parse_broker_address(url)
    assert (address.username, address.password) == (user or None, password)
