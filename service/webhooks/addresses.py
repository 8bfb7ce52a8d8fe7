"""Which addresses a callback may be sent to: those of the public internet, and private ones only where settings say so.

Otherwise anyone who may ask for twins could have the workers speak to what only the workers can reach. The tables are
our own where those of ``ipaddress`` differ between Python's versions, or name a whole range public of which a part is
not.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address


class AddressKind(StrEnum):
    """What an address is to a sender of callbacks."""

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
# All that is given out to the public internet so far lies in 2000::/3, and of that these are not: protocols and Teredo,
# documentation twice, and 6to4, which leads to any IPv4 address, through a relay if there still is one.
_GIVEN_OUT = ip_network("2000::/3")
_SPECIAL_V6 = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16")))
_NAT64 = IPv6Network("64:ff9b::/96")


def kind_of(address: Address) -> AddressKind:
    """What ``address`` is. One that holds an IPv4 address is what that one is, for that is where packets go."""
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
        # how machines without IPv4 reach the public internet; a translator has no business with anything else
        within = kind_of(IPv4Address(int(address) & 0xFFFFFFFF))
        return AddressKind.PUBLIC if within is AddressKind.PUBLIC else AddressKind.SPECIAL
    if address.is_loopback:
        return AddressKind.LOOPBACK
    if any(address in network for network in _PRIVATE):
        return AddressKind.PRIVATE
    public = address in _GIVEN_OUT and not any(address in network for network in _SPECIAL_V6)
    return AddressKind.PUBLIC if public else AddressKind.SPECIAL


def may_receive(address: Address, *, private_allowed: bool) -> bool:
    """Whether a callback may go to ``address``. Even where private addresses are allowed, those of special use are
    not."""
    kind = kind_of(address)
    return kind is AddressKind.PUBLIC or (private_allowed and kind is not AddressKind.SPECIAL)
