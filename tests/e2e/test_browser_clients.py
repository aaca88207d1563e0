"""npm's socket.io-client in a real browser: every transport, and the recovery of what was missed.

The page has an origin of its own, as dashboards of other companies have, and speaks to each server across origins.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession, web
from socketio.exceptions import ConnectionRefusedError as Refused

from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from tests.e2e.webdriver import Window, window
from tests.namespaces.deploying import Door, door_to, pay, state_of
from tests.namespaces.instances import beside, token_for
from tests.namespaces.newcomers import found_company
from tests.namespaces.test_delivery import payment, record
from tests.realtime.engine.serving import serving
from tests.realtime.engine.talking import Served, talking
from tests.support.node import Node
from tests.support.people import Person
from tests.support.running import Orchestrator

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.node]

WAYS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}
EVERY_WAY = pytest.mark.parametrize("way", WAYS)
# How the browser tells the cut, by what it was doing at that moment.
CUT = {"transport close", "transport error"}

_HERE = Path(__file__).parent
_PATIENCE_S = 15.0


class Page:
    """The page in its window."""

    def __init__(self, shown: Window, origin: str) -> None:
        self._window = shown
        self.origin = origin

    async def load(self) -> None:
        """Load the page anew, with no sockets."""
        await self._window.open(f"{self.origin}/")

    async def call(self, what: str, *arguments: object) -> Any:
        """Call a function of the page, wait for its promise, and return what it gives."""
        return await self._window.run(f"return matrix.{what}(...arguments)", *arguments)

    async def sign_in(self, url: str, person: Person) -> dict[str, Any]:
        """Sign somebody in by `fetch` and return the tokens."""
        login = {"email": person.email, "password": person.password}
        tokens: dict[str, Any] = await self.call("post", f"{url}/api/v1/auth/login", login)
        return tokens


class Socket:
    """One socket of the page; `log` holds what has happened to it: [what, details...]."""

    def __init__(self, page: Page, name: str) -> None:
        self._page = page
        self._name = name
        self.log: list[list[Any]] = []

    async def until(self, true: Callable[[], object]) -> None:
        """Read the log until something is so, or fail telling what happened."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not true():
                    await asyncio.sleep(0.01)
                    self.log = await self._page.call("log", self._name)
        except TimeoutError:
            raise AssertionError(f"{self._name}: {self.log[-20:]}") from None

    async def hears(self, event: str, count: int = 1) -> None:
        """Wait until an event was heard so often."""
        await self.until(lambda: len(self.of(event)) >= count)

    async def undergoes(self, what: str, count: int = 1) -> None:
        """Wait until it was connected, disconnected or refused so often."""
        await self.until(lambda: len(self.all(what)) >= count)

    async def send(self, event: str, *arguments: object) -> None:
        await self._page.call("send", self._name, event, *arguments)

    async def ask(self, event: str, *arguments: object) -> list[Any]:
        """Send an event and return all that it is acknowledged with."""
        answer: list[Any] = await self._page.call("ask", self._name, event, *arguments)
        return answer

    async def count(self, event: str) -> int:
        """Connect and say numbers before, during and after the upgrade; returns how many."""
        said: int = await self._page.call("count", self._name, event)
        return said

    async def show(self, **auth: object) -> None:
        """Change what is shown to the server at the next connection."""
        await self._page.call("show", self._name, auth)

    def all(self, what: str) -> list[list[Any]]:
        return [details for kind, *details in self.log if kind == what]

    def of(self, event: str) -> list[list[Any]]:
        """Return the arguments of every event of this name."""
        return [arguments for name, *arguments in self.all("event") if name == event]

    @property
    def sid(self) -> str:
        sid: str = self.all("connect")[-1][0]
        return sid

    @property
    def recovered(self) -> list[bool]:
        """For each connection, whether it was a recovery."""
        return [recovered for _, recovered in self.all("connect")]

    @property
    def transports(self) -> list[str]:
        return [name for [name] in self.all("transport")]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events of the log that were heard, in the order of arrival."""
        bodies = [arguments[0] for _, *arguments in self.all("event") if arguments]
        return [body["seq"] for body in bodies if isinstance(body, dict) and "event_id" in body]


Open = Callable[..., Awaitable[Socket]]


@pytest.fixture(scope="module")
async def page(node: Node, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """The page, with the client's bundle as npm has installed it."""
    app = web.Application()
    app.router.add_static("/client", node.folder / "node_modules" / "socket.io-client" / "dist")
    for address, name in {"/": "browser_matrix.html", "/browser_matrix.js": "browser_matrix.js"}.items():
        app.router.add_get(address, _shows(_HERE / name))
    async with serving(app) as origin, window(tmp_path_factory.mktemp("browser")) as shown:
        yield Page(shown, origin)


def _shows(file: Path) -> Callable[[web.Request], Awaitable[web.FileResponse]]:
    async def show(_: web.Request) -> web.FileResponse:
        return web.FileResponse(file)

    return show


@pytest.fixture
async def open_socket(page: Page) -> AsyncIterator[Open]:
    """Opens sockets in the page, which are closed after the test; each waits until its server has let it in."""
    await page.load()
    opened = 0

    async def open_one(url: str, way: str = "websocket", *, let_in: bool = True, **options: object) -> Socket:
        nonlocal opened
        opened += 1
        socket = Socket(page, f"socket {opened}")
        await page.call("open", f"socket {opened}", url, {"transports": WAYS[way], **options})
        if let_in:
            await socket.undergoes("connect")
        return socket

    yield open_one
    await page.call("close")


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    """The engine by itself, on an application that knows nothing of the product."""

    def refuse(*_: object) -> None:
        raise Refused("no", {"code": 7})

    async with talking(EngineOptions(ping_interval_s=0.2, ping_timeout_s=5)) as running:
        running.sio.on("connect", refuse, namespace="/closed")
        yield running


@pytest.fixture(scope="module")
async def server(orchestrator: Orchestrator, page: Page) -> AsyncIterator[Orchestrator]:
    """An instance that pages of this origin may use."""
    async with beside(orchestrator, allowed_origins=(page.origin,)) as running:
        yield running


@pytest.fixture
async def door(server: Orchestrator) -> AsyncIterator[Door]:
    async with door_to(server.url) as door:
        yield door


@pytest.fixture
async def owner(server: Orchestrator, http: ClientSession) -> Person:
    owner = await found_company(server, http)
    # A log begins with its first event.
    await record(server, payment(owner.tenant_id, uuid4()))
    return owner


async def settled(socket: Socket, way: str) -> None:
    """Wait for the upgrade, if there is one to come."""
    await socket.until(lambda: socket.transports == WAYS[way])


class TestEngine:
    """Whatever the application: transports, events, acknowledgements, namespaces."""

    @EVERY_WAY
    async def test_it_connects_by_the_transports_it_asked_for(
        self, served: Served, open_socket: Open, way: str
    ) -> None:
        socket = await open_socket(served.url, way)
        await settled(socket, way)
        assert served.sio.transport(socket.sid) == WAYS[way][-1]
        assert await socket.ask("message-with-ack", "text", {"deep": [None, 1.5, "ü"]}) == [
            "text",
            {"deep": [None, 1.5, "ü"]},
        ]

    @EVERY_WAY
    async def test_bytes_and_acknowledgements_go_both_ways(self, served: Served, open_socket: Open, way: str) -> None:
        socket = await open_socket(served.url, way)
        await settled(socket, way)
        spoken = [1, {"bytes": [0, 255]}, {"deep": [{"bytes": []}, "x"]}]
        await socket.send("message", *spoken)
        await socket.hears("message-back")
        assert socket.of("message-back") == [spoken]
        assert served.of("message", socket.sid) == [(1, b"\x00\xff", {"deep": [b"", "x"]})]
        assert await socket.ask("message-with-ack", *spoken) == spoken
        answer = await served.sio.call("question", (b"\x02", [b"\xff" * 3]), to=socket.sid, timeout=5)
        assert answer == ("answer", b"\x02", [b"\xff" * 3])

    @EVERY_WAY
    async def test_it_comes_back_after_a_cut(self, served: Served, open_socket: Open, way: str) -> None:
        socket = await open_socket(served.url, way, auth={"token": "abc"})
        await settled(socket, way)
        first = socket.sid
        served.broadcaster.members["/"][first].session.close(Reason.TRANSPORT_CLOSE)
        await socket.undergoes("connect", 2)
        assert {reason for [reason] in socket.all("disconnect")} <= CUT
        assert socket.sid != first
        assert socket.recovered == [False, False]
        assert served.of("connect", socket.sid) == [{"token": "abc"}]
        assert await socket.ask("message-with-ack", {"bytes": [1]}) == [{"bytes": [1]}]

    async def test_nothing_is_lost_or_reordered_while_it_upgrades(self, served: Served, open_socket: Open) -> None:
        spread = False
        # The upgrade may be quicker than the first word, so that this may need several attempts.
        while not spread:
            socket = await open_socket(served.url, "upgrade", let_in=False, autoConnect=False)
            said = await socket.count("message")
            await socket.hears("message-back", said)
            assert socket.of("message-back") == [[number] for number in range(said)]
            upgraded = socket.log.index(["transport", "websocket"])
            before, after = ([line[1] for line in part] for part in (socket.log[:upgraded], socket.log[upgraded:]))
            spread = "message-back" in before and "message-back" in after

    async def test_namespaces_share_a_connection_and_are_each_shown_their_own_auth(
        self, served: Served, open_socket: Open
    ) -> None:
        main = await open_socket(served.url, auth={"token": "main"})
        custom = await open_socket(f"{served.url}/custom", auth={"token": "custom"})
        for socket, token in ((main, "main"), (custom, "custom")):
            await socket.hears("auth")
            assert socket.of("auth") == [[{"token": token}]]
        members = served.broadcaster.members
        assert members["/"][main.sid].session is members["/custom"][custom.sid].session

        closed = await open_socket(f"{served.url}/closed", let_in=False)
        unknown = await open_socket(f"{served.url}/unknown", let_in=False)
        await closed.undergoes("refused")
        await unknown.undergoes("refused")
        assert closed.all("refused") == [["no", {"code": 7}]]
        assert unknown.all("refused") == [["Invalid namespace", None]]

        await served.sio.disconnect(custom.sid, namespace="/custom")
        await custom.undergoes("disconnect")
        assert custom.all("disconnect") == [["io server disconnect"]]
        assert await main.ask("message-with-ack", "still here") == ["still here"]


class TestProduct:
    """The whole server: a page signs in, hears what units of work have written, and misses nothing."""

    @EVERY_WAY
    async def test_what_was_missed_comes_in_order_and_then_what_is_new(  # noqa: PLR0917 - fixtures
        self, server: Orchestrator, door: Door, owner: Person, page: Page, open_socket: Open, way: str
    ) -> None:
        tokens = await page.sign_in(door.url, owner)
        socket = await open_socket(door.url, way, auth={"token": tokens["access_token"], "recovery": True})
        await settled(socket, way)
        sid = socket.sid
        numbers = await pay(server, owner.tenant_id, 3)
        await socket.until(lambda: socket.numbers == numbers)
        await door.cut()
        await socket.undergoes("disconnect")
        numbers += await pay(server, owner.tenant_id, 5)
        await door.restore()
        await socket.undergoes("connect", 2)
        numbers += await pay(server, owner.tenant_id, 2)
        await socket.until(lambda: len(socket.numbers) >= len(numbers))
        assert socket.numbers == numbers
        assert (socket.recovered, socket.sid) == ([False, True], sid)
        assert {reason for [reason] in socket.all("disconnect")} <= CUT
        assert socket.of("rt:reset") == []

    @pytest.mark.parametrize("reason", ["invalid", "future", "epoch"])
    async def test_what_is_no_place_in_the_log_is_answered_with_a_reset(
        self, server: Orchestrator, owner: Person, open_socket: Open, reason: str
    ) -> None:
        socket = await open_socket(server.url, auth={"token": owner.token, "recovery": True})
        await pay(server, owner.tenant_id, 2)
        await socket.until(lambda: len(socket.numbers) == 2)
        state = await state_of(server, owner.tenant_id)
        offsets = {"invalid": "garbage", "future": f"{state.epoch}.{state.head + 9}", "epoch": f"other.{state.head}"}
        await socket.show(offset=offsets[reason])
        cut(server, socket)
        await socket.hears("rt:reset")
        ((told, _),) = socket.of("rt:reset")
        assert told == {"reason": reason, "epoch": state.epoch, "head": state.head}
        assert socket.recovered == [False, False]
        numbers = await pay(server, owner.tenant_id, 2)
        await socket.until(lambda: len(socket.numbers) >= 4)
        assert socket.numbers[2:] == numbers

    async def test_a_socket_lives_as_long_as_its_token_and_its_session(
        self, server: Orchestrator, owner: Person, page: Page, open_socket: Open
    ) -> None:
        tokens = await page.sign_in(server.url, owner)
        auth = {"token": token_for(server, tokens["access_token"], left_s=3), "recovery": True}
        kept, left = await open_socket(server.url, auth=auth), await open_socket(server.url, auth=auth, forceNew=True)
        for socket in (kept, left):
            await socket.hears("auth:expiring")
        url = f"{server.url}/api/v1/auth"
        fresh = await page.call("post", f"{url}/refresh", {"refresh_token": tokens["refresh_token"]})
        [answer] = await kept.ask("auth:refresh", {"token": fresh["access_token"]})
        assert answer["ok"] is True

        await left.undergoes("refused")
        assert [body["code"] for body, *_ in left.of("auth:expired")] == ["TOKEN_EXPIRED"]
        assert {reason for [reason] in left.all("disconnect")} <= CUT
        assert [data for _, data in left.all("refused")] == [{"code": "TOKEN_EXPIRED"}]
        assert await kept.ask("ping") == [{"ok": True}]
        assert kept.all("disconnect") == []

        await page.call("post", f"{url}/logout", {}, fresh["access_token"])
        await kept.undergoes("disconnect")
        assert [body["code"] for body, *_ in kept.of("auth:revoked")] == ["SESSION_REVOKED"]
        assert kept.all("disconnect") == [["io server disconnect"]]


def cut(server: Orchestrator, socket: Socket) -> None:
    """Close a socket's connection under it, without a word."""
    member = server.house.sockets.sio.manager.member(socket.sid, "/")
    assert member is not None
    member.session.close(Reason.TRANSPORT_CLOSE)
