"""Which addresses may be connected to: public ones, at the hosts that the operator allows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address
_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291, 2.5.5.1: likewise
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")  # RFC 3879: deprecated, still routed in places
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215


def is_public(text: str) -> bool:
    """Whether an address, as the resolver writes it, is one that anybody on the internet means by it.

    Loopback, private, link-local, shared, multicast and reserved ones are not; nor are IPv6 addresses that stand for
    such an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo), nor any with a zone.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return all(found.is_global and not found.is_multicast and not found.is_reserved for found in _meant(address))


def _meant(address: Address) -> Iterable[Address]:
    """The address, or those inside it."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.scope_id is not None or address in _SITE_LOCAL or address in _NAT64_LOCAL:
        return [ipaddress.IPv4Address("127.0.0.1")]  # as good as one of those
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64 or address in _COMPATIBLE:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        return list(address.teredo)
    return [address]


def host_allowed(host: str, allowed: Iterable[str]) -> bool:
    """Whether a host is in a list of names; `*.example.org` stands for all names below it, `*` for any."""
    name = host.lower().rstrip(".")
    return any(
        pattern == "*" or name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]))
        for pattern in (entry.lower() for entry in allowed)
    )
