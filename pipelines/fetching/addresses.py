"""Which network addresses may be fetched from: public ones, and those that a configuration names."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Network = IPv4Network | IPv6Network

# The IANA registries of special-purpose addresses (RFC 6890 and its updates), multicast and class E. Listed here and
# not asked of `ipaddress`, whose answers changed between patch releases of Python.
_SPECIAL_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; also a metadata service (100.100.100.200)
        "127.0.0.0/8",
        "168.63.129.16/32",  # a public address by number, inside Azure the host's own service
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Global unicast, and what in it is not: protocol assignments with Teredo, documentation, 6to4, AS112.
_GLOBAL_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
_NAT64 = IPv6Network("64:ff9b::/96")


def permitted(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether a numeric address, as ``getaddrinfo`` gives it, is public or in one of the networks `allowed`.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64) counts as that.
    """
    plain = _plain(ipaddress.ip_address(address.partition("%")[0]))
    return any(plain in network for network in allowed) or _public(plain)


def networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Networks from their names (``10.1.0.0/16``, or a single address); ValueError for what is none."""
    return tuple(ipaddress.ip_network(name) for name in names)


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)
