"""npm's socket.io-client, unmodified, against the engine on every transport."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from tests.e2e.test_node_clients import Node, node  # noqa: F401 - the fixture is used by its name
from tests.realtime.engine.serving import until
from tests.realtime.engine.talking import Served, talking

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


async def test_the_javascript_client_does_everything_on_every_transport(node: Node) -> None:  # noqa: F811
    shutil.copy(SCRIPT, node.folder)
    async with talking(EngineOptions(ping_interval_s=0.2, ping_timeout_s=2)) as served:
        prepare(served)
        process = await asyncio.create_subprocess_exec(
            node.command,
            SCRIPT.name,
            served.url,
            cwd=node.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
        found: dict[str, dict[str, Any]] = {}
        for line in map(json.loads, output.splitlines()):
            found.setdefault(line["way"], {})[line["what"]] = line["found"]
        assert process.returncode == 0, f"{errors.decode()}\n{found}"
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
