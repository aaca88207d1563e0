"""Addresses that strangers name: they must lead out into the world, never into the network that we stand in.

A name is checked when it is given, so that whoever gives it hears of it, and each connection is checked again by the
address that it is really made to, for names can be changed in between (DNS rebinding).
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

# IPv6 addresses that a gateway turns into the IPv4 address in their last bits (RFC 6052).
_TRANSLATED: Final = ip_network("64:ff9b::/96")
_PATIENCE_S: Final = 5.0


class AddressRefused(OSError):
    """A connection was to lead into our own network."""


class HostRefused(ValueError):
    """An address that a stranger gave is none that we would call; the message says why."""


def is_public(address: str) -> bool:
    """Tell whether an IP address is somebody's in the world: not private, local, shared, multicast or reserved."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = _inner(found)
        if inner is not None:
            return is_public(str(inner))
        # Given up by the standard, and still routed within some networks.
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast


def open_public_socket(info: tuple[Any, ...]) -> socket.socket:
    """Make the socket for a connection, for aiohttp's connector; raises AddressRefused."""
    family, kind, protocol, _, place = info
    if not is_public(str(place[0])):
        raise AddressRefused("the address is not a public one")
    return socket.socket(family=family, type=kind, proto=protocol)


async def check_public_host(url: str, *, https_only: bool, private_allowed: bool) -> None:
    """Refuse the base address of a server that a stranger gave; asks the name server.

    Raises:
        HostRefused: it is no plain address of a server, not https though it must be, or not public.
    """
    host, port = _place(url, https_only=https_only)
    if private_allowed:
        return
    try:
        async with asyncio.timeout(_PATIENCE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        # The same words as for a private address, for our own name server may know names that strangers must not.
        raise HostRefused("does not lead to a public address") from error
    if not all(is_public(str(place[0])) for *_, place in found):
        raise HostRefused("does not lead to a public address")


def _place(url: str, *, https_only: bool) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise HostRefused("is not the address of a server") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HostRefused("is not the address of a server")
    if https_only and parts.scheme != "https":
        raise HostRefused("must begin with https://")
    if parts.username is not None or parts.query or parts.fragment:
        raise HostRefused("must hold neither a login nor a query")
    return parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to."""
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
