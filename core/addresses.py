"""Addresses of the network, as far as they tell who somebody is."""

import ipaddress

# Whoever gets IPv6 at all gets this much of it, and may come from another of its addresses each time (RFC 6177).
_SHARED_BITS = 64


def counted_address(address: str) -> str:
    """Return what an address counts as where limits are by address: an IPv6 address as its /64, any other as itself.

    An IPv4 address that is written as an IPv6 one (`::ffff:192.0.2.1`) counts as the IPv4 address. What is no address
    counts as itself.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), _SHARED_BITS), strict=False))
