"""npm's socket.io-client, unmodified, against the engine on every transport."""

from pathlib import Path
from typing import Any

import pytest

from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from tests.realtime.engine.talking import Served, talking
from tests.support.node import Node
from tests.support.waiting import until

pytestmark = pytest.mark.node

SCRIPT = Path(__file__).parent / "clients.mjs"


def prepare(served: Served) -> None:
    """Add what the script asks for: being asked, being put out, being dropped."""
    sio = served.sio

    @served.on("ask me")
    async def ask(sid: str, what: str) -> list[Any]:
        first, second, third = await sio.call("question", what, to=sid, timeout=8)
        return [first, second, list(third)]

    @served.on("put me out", namespace="/custom")
    async def put_out(sid: str) -> None:
        await sio.disconnect(sid, namespace="/custom")

    @served.on("drop me")
    async def drop(sid: str) -> None:
        served.broadcaster.members["/"][sid].session.close(Reason.TRANSPORT_CLOSE)


async def test_the_javascript_client_does_everything_on_every_transport(node: Node) -> None:
    async with talking(EngineOptions(ping_interval_s=0.2, ping_timeout_s=2)) as served:
        prepare(served)
        found: dict[str, dict[str, Any]] = {}
        for line in await node.play(SCRIPT, served.url):
            found.setdefault(line["way"], {})[line["what"]] = line["found"]
        await until(lambda: not served.sio.engine.sessions)
    for way in ("websocket", "polling", "upgrade"):
        lost = found[way].pop("back")
        assert lost[0] in ("transport close", "transport error")
        assert lost[1:] == [True, False]
        assert found[way] == {
            "greetings": [{"token": "abc"}, {}],
            "transport": ["polling" if way == "polling" else "websocket"],
            "echo": [1, [0, 255], []],
            "ack": [[7]],
            "asked": [["answer", "why", [9]]],
            "order": [True],
            "stranger": ["Invalid namespace"],
            "put out": ["io server disconnect", True],
            "left": ["io client disconnect"],
        }
