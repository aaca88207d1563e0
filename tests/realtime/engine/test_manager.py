"""The manager by itself: what it answers about sockets that are there, and about those that are gone."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from realtime.engine.attach import attach
from realtime.engine.link import Link
from realtime.engine.manager import Broadcaster
from realtime.engine.socketio_server import SocketIoServer
from tests.support.listeners import Listener


@pytest.fixture
async def room():
    """A server whose sockets answer `ask` with their own id, and two clients of it."""
    app = web.Application()
    sio = attach(app)
    sids: list[str] = []

    async def connect(sid: str, environ: dict[str, Any]) -> None:
        sids.append(sid)
        await sio.emit("connected", to=sid)

    sio.on("connect", connect)
    async with TestServer(app) as server:
        clients = [await Listener().connect(str(server.make_url("/")), "none") for _ in range(2)]
        yield sio, sids, clients
        for client in clients:
            await client.close()


async def test_of_who_is_there(room: tuple[SocketIoServer, list[str], list[Listener]]) -> None:
    sio, (first, second), _ = room
    manager: Broadcaster = sio.manager
    await sio.enter_room(first, "r")
    await sio.enter_room(first, "r")
    assert manager.get_rooms(first, "/") == [first, "r"]
    assert list(manager.get_namespaces()) == ["/"]
    eio_sid = manager.eio_sid_from_sid(first, "/")
    assert eio_sid is not None
    assert manager.sid_from_eio_sid(eio_sid, "/") == first
    assert list(manager.get_participants("/", "r")) == [(first, eio_sid)]
    assert [sid for sid, _ in manager.get_participants("/", ["r", second])] == [first, second]
    assert manager.is_connected(first, "/")
    assert not manager.is_pre_connected(first, "/")
    assert await manager.pre_connect(eio_sid, "/") is None, "a session is in a namespace once"


async def test_of_who_is_gone(room: tuple[SocketIoServer, list[str], list[Listener]]) -> None:
    sio, (first, second), _ = room
    manager: Broadcaster = sio.manager
    assert await manager.pre_connect("nobody", "/") is None
    assert await manager.connect("nobody", "/") is None
    assert manager.pre_disconnect("nobody", "/") is None
    await manager.disconnect("nobody", "/")
    await manager.disconnect("nobody", "/elsewhere")
    assert manager.get_rooms("nobody", "/") == []
    assert manager.sid_from_eio_sid("nobody", "/") is None
    assert manager.eio_sid_from_sid("nobody", "/") is None
    await manager.leave_room("nobody", "/", "r")
    await manager.leave_room(first, "/", "never entered")
    with pytest.raises(ValueError, match="not connected"):
        await manager.enter_room("nobody", "/", "r")
    with pytest.raises(ValueError, match="sid room"):
        await manager.enter_room(first, "/", second)
    await manager.enter_room(first, "/", first)
    assert manager.get_rooms(first, "/") == [first]


async def test_a_room_that_is_closed_is_empty(room: tuple[SocketIoServer, list[str], list[Listener]]) -> None:
    sio, sids, clients = room
    for sid in sids:
        await sio.enter_room(sid, "r")
    await sio.leave_room(sids[0], "r")
    assert [sid for sid, _ in sio.manager.get_participants("/", "r")] == sids[1:]
    await sio.enter_room(sids[0], "r")
    await sio.close_room("r")
    await sio.close_room("r")
    assert list(sio.manager.get_participants("/", "r")) == []
    await sio.emit("to the room", to="r")
    await sio.emit("to all")
    await clients[0].until(lambda: clients[0].of("to all"))
    assert clients[0].of("to the room") == []


async def test_a_callback_is_asked_of_those_who_are_not_skipped(
    room: tuple[SocketIoServer, list[str], list[Listener]],
) -> None:
    sio, sids, clients = room
    answers: list[str] = []
    for number, client in enumerate(clients):
        client.client.on("ask", lambda number=number: f"client {number}")
    await sio.emit("ask", callback=answers.append, skip_sid=sids[0])
    await clients[1].until(lambda: answers)
    await asyncio.sleep(0.05)
    assert answers == ["client 1"]
    await sio.emit("plain", skip_sid=[sids[1]])
    await clients[0].until(lambda: clients[0].of("plain"))
    assert clients[1].of("plain") == []


async def test_a_link_that_is_gone_is_not_told_to_read(
    room: tuple[SocketIoServer, list[str], list[Listener]],
) -> None:
    sio, (first, _), clients = room
    link: Link = sio.manager.member(first, "/").session.link
    link.pause_reading()
    link.resume_reading()
    await clients[0].client.emit("anything", callback=lambda *_: None)
    await clients[0].close()
    await clients[1].until(lambda: link.transport is None)
    link.pause_reading()
    link.resume_reading()
    link.close()
    assert link.waiting_bytes == 0
