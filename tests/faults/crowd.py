"""The crowd: sockets of both clients, unmodified, each with the record of what it heard."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import engineio
import socketio

from tests.faults.oracle import Record
from tests.support.node import Node

_SCRIPT = Path(__file__).with_name("sockets.mjs")
# A line holds one object; many lines come at once after an outage.
_LINE_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who belongs to a tenant, and the token of a session there."""

    tenant_id: UUID
    user_id: UUID
    manages: bool
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a socket connects, and how; Node's sockets with the same `connection` share one."""

    member: Member
    namespace: str
    transports: tuple[str, ...]
    connection: str

    def record(self) -> Record:
        name = f"{self.connection} {self.namespace} {'+'.join(self.transports)}"
        member = self.member
        return Record(name, member.tenant_id, member.user_id, member.manages, self.namespace)


def greet(record: Record, seq: int) -> None:
    """Note a greeting; the first one says where the record begins."""
    record.greetings += 1
    if record.start is None:
        record.start = seq


class NodeSockets:
    """Some sockets of npm's client in one process of Node."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.records = [place.record() for place in places]
        self._places = places
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None

    async def start(self, node: Node, url: str, folder: Path) -> None:
        # Beside the library, where its imports are looked for.
        script = shutil.copy(_SCRIPT, node.folder)
        listed = folder / f"sockets-{self._places[0].connection}.json"
        listed.write_text(json.dumps([_wire_form(place) for place in self._places]))
        self._process = await asyncio.create_subprocess_exec(
            node.command, script, url, listed, cwd=node.folder, stdout=asyncio.subprocess.PIPE, limit=_LINE_LIMIT
        )
        self._listening = asyncio.create_task(self._listen(self._process))

    async def close(self) -> None:
        if self._process is not None and self._listening is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            await self._listening

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            said = json.loads(line)
            record = self.records[said["socket"]]
            if "heard" in said:
                record.heard.append(said["heard"])
            else:
                _note(record, said)


def _note(record: Record, said: dict[str, Any]) -> None:
    what = said["at"]
    if what == "greeting":
        record.unrecovered += record.start is not None and not said["recovered"]
        greet(record, said["seq"])
        note(record, f"greeted at {said['seq']}, recovered: {said['recovered']}")
    elif what == "reset":
        record.resets.append(said["reason"])
        note(record, f"reset: {said['reason']}")
    else:
        note(record, f"{what}: {said['reason']}")


def note(record: Record, text: str) -> None:
    """Add a line to a record's story."""
    after = record.heard[-1] if record.heard else None
    record.notes.append(f"{asyncio.get_running_loop().time():.3f} after {after}: {text}")


def _wire_form(place: Place) -> dict[str, object]:
    return {
        "connection": place.connection,
        "namespace": place.namespace,
        "token": place.member.token,
        "transports": place.transports,
    }


class _Engine(engineio.AsyncClient):  # type: ignore[misc]
    """The library's own, but for one fault (4.15): of an answer that breaks off in the middle its polling dies unheard.

    It reads the body where it expects no network to fail; here it has been read before it looks.
    """

    async def _send_request(self, *arguments: Any, **options: Any) -> Any:
        answer = await super()._send_request(*arguments, **options)
        try:
            if isinstance(answer, aiohttp.ClientResponse):
                await answer.read()
        except aiohttp.ClientError as error:
            return str(error)
        return answer


class _Client(socketio.AsyncClient):  # type: ignore[misc]
    def _engineio_client_class(self) -> type[_Engine]:
        return _Engine


class PythonSocket:
    """A socket of python-socketio's client, which says by `last_seq` and `epoch` where it goes on."""

    def __init__(self, place: Place) -> None:
        self.records = [place.record()]
        self._place = place
        self._record = self.records[0]
        self._position: dict[str, Any] = {}
        self._client = _Client(reconnection_delay=0.2, reconnection_delay_max=2, randomization_factor=0.1)
        self._client.on("*", handler=self._hear, namespace=place.namespace)
        self._client.on("disconnect", handler=self._part, namespace=place.namespace)

    async def start(self, url: str) -> None:
        await self._client.connect(
            url,
            auth=lambda: {"token": self._place.member.token, **self._position},
            namespaces=[self._place.namespace],
            transports=list(self._place.transports),
            wait_timeout=10,
        )

    async def close(self) -> None:
        await self._client.shutdown()

    def note_state(self) -> None:
        """Note what the client takes its connection for, and whether it still reads from it."""
        engine = self._client.eio
        note(self._record, f"in the end: {engine.state}, reading by {engine.read_loop_task}")

    def _hear(self, event: str, body: Any = None, *_: Any) -> None:
        if event == "connected":
            greet(self._record, body["seq"])
            note(self._record, f"greeted at {body['seq']}")
            self._position = {"last_seq": body["seq"], "epoch": body["epoch"]}
        elif event == "rt:reset":
            self._record.resets.append(body["reason"])
            note(self._record, f"reset: {body['reason']}")
        elif event.startswith("auth:"):
            note(self._record, event)
        # On the roots notifications have a second name, for the oldest clients: the same event, not another one.
        elif isinstance(body, dict) and "seq" in body and event != "notification":
            self._record.heard.append(body["seq"])
            self._position["last_seq"] = body["seq"]

    def _part(self, reason: str) -> None:
        note(self._record, f"farewell: {reason}")


class Crowd:
    """All sockets of a test."""

    def __init__(self, sockets: Sequence[NodeSockets | PythonSocket]) -> None:
        self._sockets = sockets

    @property
    def records(self) -> list[Record]:
        return [record for sockets in self._sockets for record in sockets.records]

    def story(self) -> str:
        """Return what happened to every socket, for a file beside the processes' logs."""
        for sockets in self._sockets:
            if isinstance(sockets, PythonSocket):
                sockets.note_state()
        return "\n".join(
            f"{record.socket} of {record.user_id} in {record.tenant_id}, from {record.start}, heard "
            f"{len(record.heard)}\n  " + "\n  ".join(record.notes)
            for record in self.records
        )


@asynccontextmanager
async def crowd(node: Node, url: str, folder: Path, places: Sequence[Place]) -> AsyncIterator[Crowd]:
    """Open a socket at every place, those whose connection's name begins with `py` by python-socketio's client."""
    python = [place for place in places if place.connection.startswith("py")]
    by_process: dict[str, list[Place]] = {}
    for place in places:
        if place not in python:
            by_process.setdefault(place.connection.partition(".")[0], []).append(place)
    async with AsyncExitStack() as stack:
        sockets: list[NodeSockets | PythonSocket] = []
        for group in by_process.values():
            nodes = NodeSockets(group)
            stack.push_async_callback(nodes.close)
            await nodes.start(node, url, folder)
            sockets.append(nodes)
        for place in python:
            socket = PythonSocket(place)
            stack.push_async_callback(socket.close)
            await socket.start(url)
            sockets.append(socket)
        yield Crowd(sockets)
