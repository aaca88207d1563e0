"""Addresses that strangers name: out into the world only, whatever a name led to when it was checked."""

import pytest
from aiohttp import web

from core.clock import SystemClock
from providers.addresses import AddressRefused, HostRefused, check_public_host, is_public, open_public_socket
from providers.http import HttpClient, HttpUnavailable
from tests.fakes.server import FakeServer, Reply, Seen
from tests.providers.payments.harness_one_time import quick_policy


class Nothing(FakeServer):
    def answer(self, request: web.Request, seen: Seen) -> Reply:
        return Reply(200, {})


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1"),
        "0.0.0.0",  # noqa: S104 - it is refused here
        *("169.254.169.254", "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1"),
        # IPv4 in IPv6: mapped, translated by a gateway, 6to4 and Teredo.
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
    ],
)
def test_our_own_network_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_the_world_is_public(address: str) -> None:
    assert is_public(address)


def test_no_socket_is_made_for_a_private_address() -> None:
    with pytest.raises(AddressRefused):
        open_public_socket((2, 1, 6, "", ("169.254.169.254", 80)))
    open_public_socket((2, 1, 6, "", ("93.184.216.34", 80))).close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_connection_is_checked_by_the_address_that_it_is_made_to(name: str) -> None:
    """So that neither a literal nor a name that was changed after the check leads inside."""
    async with Nothing() as server:
        url = server.base_url.replace("127.0.0.1", name)
        for public_only in (False, True):
            client = HttpClient(quick_policy(), clock=SystemClock(), public_only=public_only)
            try:
                if public_only:
                    with pytest.raises(HttpUnavailable):
                        await client.request("x", "GET", url, repeatable=True)
                else:
                    assert (await client.request("x", "GET", url, repeatable=True)).status == 200
            finally:
                await client.aclose()
        assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["https://127.0.0.1", "https://localhost:8443/x", "https://nowhere.invalid"])
async def test_a_host_that_leads_inside_is_refused_in_the_same_words(url: str) -> None:
    with pytest.raises(HostRefused, match=r"^does not lead to a public address$"):
        await check_public_host(url, https_only=True, private_allowed=False)


async def test_development_may_allow_it() -> None:
    await check_public_host("http://127.0.0.1:9", https_only=False, private_allowed=True)
    with pytest.raises(HostRefused, match="https"):
        await check_public_host("http://127.0.0.1:9", https_only=True, private_allowed=True)
    await check_public_host("https://93.184.216.34/btcpay", https_only=True, private_allowed=False)


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://a.example", "https://", "https://a:b@c.example", "https://[", "https://a:x"]
)
async def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(HostRefused):
        await check_public_host(url, https_only=False, private_allowed=True)
