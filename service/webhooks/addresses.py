"""Addresses that a webhook may be sent to: public ones, and private ones if the settings allow it.

Otherwise any client could make the workers connect to services that only the workers can reach. The tables here replace
those of ``ipaddress`` where they differ between Python versions, or call a range public of which a part is not.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address


class AddressKind(StrEnum):
    """The kind of an address, as far as webhooks are concerned."""

    PUBLIC = "a public address"
    PRIVATE = "a private address"
    LOOPBACK = "a loopback address"
    SPECIAL = "an address of special use"
    """Link-local, multicast, reserved, unspecified, or a cloud's metadata service: never a receiver."""


_METADATA = frozenset(
    map(
        ip_address,
        # Alibaba's and Azure's lie in ranges that are otherwise private and public; Oracle's, Amazon's and Google's
        ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
_SPECIAL_V4 = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24")))
# All public IPv6 addresses assigned so far lie in 2000::/3, except: protocols and Teredo, documentation (twice), and
# 6to4, which leads to any IPv4 address through a relay.
_ASSIGNED = ip_network("2000::/3")
_SPECIAL_V6 = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16")))
_NAT64 = IPv6Network("64:ff9b::/96")


def kind_of(address: Address) -> AddressKind:
    """The kind of ``address``. An IPv6 address that embeds an IPv4 address has the kind of the latter."""
    if address in _METADATA:
        return AddressKind.SPECIAL
    if isinstance(address, IPv6Address):
        return _kind_of_v6(address)
    if address.is_loopback:
        return AddressKind.LOOPBACK
    if any(address in network for network in _PRIVATE):
        return AddressKind.PRIVATE
    special = address.is_multicast or address.is_reserved or any(address in network for network in _SPECIAL_V4)
    return AddressKind.PUBLIC if address.is_global and not special else AddressKind.SPECIAL


def _kind_of_v6(address: IPv6Address) -> AddressKind:
    if address.ipv4_mapped is not None:
        return kind_of(address.ipv4_mapped)
    if address in _NAT64:
        # machines without IPv4 reach the public internet by this; a translator is used for nothing else
        within = kind_of(IPv4Address(int(address) & 0xFFFFFFFF))
        return AddressKind.PUBLIC if within is AddressKind.PUBLIC else AddressKind.SPECIAL
    if address.is_loopback:
        return AddressKind.LOOPBACK
    if any(address in network for network in _PRIVATE):
        return AddressKind.PRIVATE
    public = address in _ASSIGNED and not any(address in network for network in _SPECIAL_V6)
    return AddressKind.PUBLIC if public else AddressKind.SPECIAL


def may_receive(address: Address, *, private_allowed: bool) -> bool:
    """Whether a webhook may be sent to ``address``. Addresses of special use are never allowed."""
    kind = kind_of(address)
    return kind is AddressKind.PUBLIC or (private_allowed and kind is not AddressKind.SPECIAL)
