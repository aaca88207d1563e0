"""Other programs speak to our sockets through Redis, with python-socketio's write-only manager (contract.md 7.2)."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import socketio

from namespaces.names import ALL
from realtime.rooms import tenant_room, user_room
from tests.support.listeners import Listener
from tests.support.people import Person
from tests.support.running import Orchestrator

pytestmark = pytest.mark.cluster


@pytest.fixture
async def emitter(orchestrator: Orchestrator) -> AsyncIterator[socketio.AsyncRedisManager]:
    emitter = socketio.AsyncRedisManager(orchestrator.settings.redis_url.get_secret_value(), write_only=True)
    yield emitter
    await emitter.redis.aclose()


async def test_reaches_a_user_a_tenant_and_one_namespace(
    orchestrator: Orchestrator, owner: Person, stranger: Person, emitter: socketio.AsyncRedisManager
) -> None:
    mine = await Listener().connect(orchestrator.url, owner.token, *ALL)
    theirs = await Listener().connect(orchestrator.url, stranger.token, *ALL)
    word = uuid4().hex
    for namespace in ALL:
        await emitter.emit("word", {"to": "user", "word": word}, namespace=namespace, room=user_room(owner.user_id))
        await emitter.emit("word", {"to": "tenant"}, namespace=namespace, room=tenant_room(owner.tenant_id))
    await mine.until(lambda: len(mine.of("word")) == 2 * len(ALL))
    for namespace in ALL:
        assert mine.of("word", namespace) == [{"to": "user", "word": word}, {"to": "tenant"}]
    await emitter.emit("word", {"to": "them"}, namespace="/", room=user_room(stranger.user_id))
    await theirs.until(lambda: theirs.of("word"))
    assert theirs.of("word") == [{"to": "them"}]
    await mine.close()
    await theirs.close()


async def test_noise_on_the_channel_harms_nobody(
    orchestrator: Orchestrator, owner: Person, emitter: socketio.AsyncRedisManager
) -> None:
    listener = await Listener().connect(orchestrator.url, owner.token, "/")
    await emitter.emit("word", {"before": "noise"}, room=user_room(owner.user_id))
    for noise in (b"", b"not json", b"[]", b"{}", b'{"method": "nothing"}', b'{"method": "emit"}', b"\x80\x04K\x01."):
        await emitter.redis.publish(emitter.channel, noise)
    await emitter.emit("word", {"after": "noise"}, room=user_room(owner.user_id))
    await listener.until(lambda: len(listener.of("word")) == 2)
    assert listener.of("word") == [{"before": "noise"}, {"after": "noise"}]
    assert await listener.client.call("ping") == {"ok": True}
    await listener.close()
