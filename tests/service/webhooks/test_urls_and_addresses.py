"""Where a callback may go: addresses by table, and URLs that look like one thing and are another."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from service.webhooks.addresses import AddressKind, kind_of, may_receive
from service.webhooks.urls import CallbackTarget, UrlRefused, parse_target

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1"]
PUBLIC_WITHIN = ["::ffff:8.8.8.8", "64:ff9b::808:808"]
PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "fd12:3456::1",
    "fc00::1",
    "::ffff:10.1.2.3",
]
LOOPBACK = ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"]
SPECIAL = [
    *("0.0.0.0", "0.1.2.3", "169.254.169.254", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "224.0.1.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *(
        "::",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "100::1",
        "2001::1",
        "2001:2::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
    ),
    # addresses in disguise: of NAT64 (the well-known prefix and a local one), 6to4, IPv4-compatible, mapped
    *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808", "2002:7f00:1::1", "2002:808:808::1", "::7f00:1"),
    "::ffff:169.254.169.254",
    # metadata services, wherever they hide
    *("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
]


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [
        (PUBLIC + PUBLIC_WITHIN, AddressKind.PUBLIC),
        (PRIVATE, AddressKind.PRIVATE),
        (LOOPBACK, AddressKind.LOOPBACK),
        (SPECIAL, AddressKind.SPECIAL),
    ],
)
def test_every_address_is_what_it_is_also_in_disguise(addresses: list[str], kind: AddressKind) -> None:
    assert {address: kind_of(ip_address(address)) for address in addresses} == dict.fromkeys(addresses, kind)
    for address in map(ip_address, addresses):
        assert may_receive(address, private_allowed=False) == (kind is AddressKind.PUBLIC)
        assert may_receive(address, private_allowed=True) == (kind is not AddressKind.SPECIAL)


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        (
            "https://Hooks.Example/a/b?token=x%20y",
            CallbackTarget(True, "hooks.example", 443, "/a/b?token=x%20y"),
            "hooks.example",
        ),
        ("https://hooks.example:8443", CallbackTarget(True, "hooks.example", 8443, "/"), "hooks.example:8443"),
        ("https://hooks.example.?q", CallbackTarget(True, "hooks.example", 443, "/?q"), "hooks.example"),
        ("https://8.8.8.8:443/", CallbackTarget(True, "8.8.8.8", 443, "/"), "8.8.8.8"),
        ("https://[2606:4700:0::1111]/x", CallbackTarget(True, "2606:4700::1111", 443, "/x"), "[2606:4700::1111]"),
        (
            "https://xn--bcher-kva.example/",
            CallbackTarget(True, "xn--bcher-kva.example", 443, "/"),
            "xn--bcher-kva.example",
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, target: CallbackTarget, authority: str) -> None:
    found = parse_target(url, private_allowed=False)
    assert (found, found.authority) == (target, authority)


INSIDE = [
    "https://127.0.0.1/",
    "https://10.0.0.1/",
    "https://[::1]/",
    "https://[fd00::1]:8443/",
    "https://[::ffff:192.168.0.1]/",
    "https://localhost/",
    "https://LOCALHOST./",
    "https://a.localhost/",
    "https://redis:6379/",
    "https://db.internal/",
    "https://printer.local/",
    "https://router.home.arpa/",
    "http://hooks.example/",
]


@pytest.mark.parametrize("url", INSIDE)
def test_what_is_plainly_inside_is_taken_only_where_the_setting_allows_it(url: str) -> None:
    with pytest.raises(UrlRefused, match="TWINSET_WEBHOOK_ALLOW_PRIVATE"):
        parse_target(url, private_allowed=False)
    parse_target(url, private_allowed=True)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "start with https://"),
        ("hooks.example/a", "start with https://"),
        ("ftp://hooks.example/", "start with https://"),
        ("file:///etc/passwd", "start with https://"),
        ("https:///path", "neither a name nor an address"),
        ("https://", "neither a name nor an address"),
        ("https://user@hooks.example/", "user or a password"),
        ("https://user:pass@hooks.example/", "user or a password"),
        ("https://8.8.8.8@127.0.0.1/", "user or a password"),
        ("https://hooks.example/#part", "fragment"),
        ("https://hooks.example/#", "fragment"),
        ("https://hooks.example:0/", "1 to 65535"),
        ("https://hooks.example:/", "1 to 65535"),
        ("https://hooks.example:65536/", "not a URL"),
        ("https://hooks.example:80a/", "not a URL"),
        ("https://[::1]x/", "1 to 65535"),
        ("https://[::1/", "not a URL"),
        ("https://[fe80::1%25eth0]/", "not a public IPv6 address"),
        ("https://hooks.example\\@127.0.0.1/", "percent-encode them"),
        ("https://hooks.example/a b", "percent-encode them"),
        ("https://hooks.example/\r\nHost: other", "percent-encode them"),
        ("https://b\u00fccher.example/", "punycode"),
        ("https://127.0.0.1\u3002example/", "punycode"),
        ("https://hooks..example/", "neither a name"),
        ("https://hooks%2eexample/", "neither a name"),
        ("https://" + "a" * 64 + ".example/", "neither a name"),
        # what some resolvers read as 127.0.0.1
        ("https://127.1/", "neither a name nor an IPv4 address"),
        ("https://2130706433/", "neither a name nor an IPv4 address"),
        ("https://0x7f000001/", "neither a name nor an IPv4 address"),
        ("https://0177.0.0.1/", "neither a name nor an IPv4 address"),
        ("https://127.0.0.0x1/", "neither a name nor an IPv4 address"),
        ("https://169.254.169.254/latest/meta-data/", "special use"),
        ("https://0.0.0.0/", "special use"),
        ("https://[fd00:ec2::254]/", "special use"),
        ("https://hooks.example/" + "a" * 2048, "at most 2048"),
    ],
)
@pytest.mark.parametrize("private_allowed", [False, True])
def test_what_is_no_address_for_a_callback_is_never_taken(url: str, why: str, private_allowed: bool) -> None:
    with pytest.raises(UrlRefused, match=why):
        parse_target(url, private_allowed=private_allowed)
