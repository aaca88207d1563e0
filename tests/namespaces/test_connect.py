"""Connecting: the forms of contract.md 7.1 and 7.2 on every namespace, and a coded reason for every refusal."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
import socketio

from core.keys import SigningKey
from core.tokens import TokenSigner
from namespaces.names import ALL
from realtime.log import EventLog
from server.keys import secret_key
from tests.namespaces.conftest import join_company, sign_in
from tests.support.listeners import Listener
from tests.support.people import Person, RegisterCompany
from tests.support.running import Orchestrator

NAMESPACES = (
    "/",
    "/ws",
    "/notifications",
    "/provisioning",
    "/billing",
    "/ws/notifications",
    "/ws/provisioning",
    "/ws/billing",
)

Options = dict[str, Any]


def options_with(token: str, form: str) -> Options:
    """Put a token where clients put it: `auth`, the query of the URL, or a header."""
    options: dict[str, Options] = {
        "auth": {"auth": {"token": token}},
        "bearer in auth": {"auth": {"token": f"Bearer {token}"}},
        "query": {"auth": None},
        "header": {"auth": None, "headers": {"Authorization": f"Bearer {token}"}},
        "bare header": {"auth": None, "headers": {"Authorization": token}},
    }
    return options[form]


def changed(orchestrator: Orchestrator, token: str, **changes: object) -> str:
    """Return a token of the server's own signature with other claims; `...` takes one out."""
    claims = {**jwt.decode(token, options={"verify_signature": False}), **changes}
    kept = {name: value for name, value in claims.items() if value is not ...}
    return jwt.encode(kept, secret_key(orchestrator.settings), algorithm="HS256")


async def stands(orchestrator: Orchestrator, person: Person) -> dict[str, Any]:
    """Return where the stream of somebody's tenant stands: its epoch, and the number of its last event."""
    log = EventLog(orchestrator.house.engine)
    state = (await log.states([person.tenant_id]))[person.tenant_id]
    return {"epoch": state.epoch, "seq": state.head}


async def refusal(url: str, namespace: str = "/", **options: Any) -> Any:
    """Try to connect and return the data of the CONNECT_ERROR."""
    client = socketio.AsyncClient(reconnection=False)
    reasons: asyncio.Queue[Any] = asyncio.Queue()
    client.on("connect_error", handler=reasons.put, namespace=namespace)
    options.setdefault("transports", ["websocket"])
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect(url, namespaces=[namespace], wait_timeout=10, **options)
    await client.disconnect()
    return reasons.get_nowait()


async def eventually_refused(url: str, token: str) -> Any:
    """Try to connect until it is refused, which must be within the second that every instance has to hear of it."""
    async with asyncio.timeout(1):
        while True:
            client = socketio.AsyncClient(reconnection=False)
            try:
                await client.connect(url, auth={"token": token}, transports=["websocket"])
            except socketio.exceptions.ConnectionError:
                return await refusal(url, auth={"token": token})
            await client.disconnect()


def test_these_are_the_namespaces() -> None:
    assert set(ALL) == set(NAMESPACES)


@pytest.mark.parametrize("form", ["auth", "bearer in auth", "query", "header", "bare header"])
async def test_every_namespace_knows_its_user_in_every_form(
    orchestrator: Orchestrator, owner: Person, form: str
) -> None:
    url = f"{orchestrator.url}?token={owner.token}" if form == "query" else orchestrator.url
    for namespace in NAMESPACES:
        listener = await Listener().connect(url, owner.token, namespace, **options_with(owner.token, form))
        place, event, greeting = listener.heard[0]
        assert (place, event) == (namespace, "connected")
        assert greeting == {
            "message": "Successfully connected to ERPMax Orchestrator",
            "user_id": str(owner.user_id),
            "tenant_id": str(owner.tenant_id),
            **await stands(orchestrator, owner),
        }
        await listener.close()


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("path", ["socket.io", "ws/socket.io", "/socket.io/", "/ws/socket.io/"])
async def test_both_paths_and_both_transports(
    orchestrator: Orchestrator, owner: Person, path: str, transport: str
) -> None:
    listener = await Listener().connect(
        orchestrator.url, owner.token, "/", "/ws", socketio_path=path, transports=[transport]
    )
    assert await listener.client.call("ping") == {"ok": True}
    assert listener.client.transport() == transport
    # A polite goodbye would wait here for the poll that is under way, which the server answers at its next ping.
    await listener.client.eio.disconnect(abort=True)


async def test_a_client_climbs_from_polling_to_a_websocket(orchestrator: Orchestrator, owner: Person) -> None:
    listener = await Listener().connect(orchestrator.url, owner.token, "/", transports=["polling", "websocket"])
    await listener.until(lambda: listener.client.transport() == "websocket")
    assert await listener.client.call("ping") == {"ok": True}
    await listener.close()


async def test_one_connection_carries_all_namespaces(orchestrator: Orchestrator, owner: Person) -> None:
    listener = await Listener().connect(orchestrator.url, owner.token, *NAMESPACES)
    assert sorted(place for place, event, _ in listener.heard if event == "connected") == sorted(NAMESPACES)
    for namespace in NAMESPACES:
        assert await listener.client.call("ping", namespace=namespace) == {"ok": True}
    await listener.close()


class TestRefusals:
    @pytest.mark.parametrize("namespace", NAMESPACES)
    async def test_no_namespace_lets_a_stranger_in(self, orchestrator: Orchestrator, namespace: str) -> None:
        reason = await refusal(orchestrator.url, namespace)
        assert reason == {"message": "Not authenticated", "data": {"code": "AUTH_ERROR"}}
        reason = await refusal(orchestrator.url, namespace, auth={"token": "forged"})
        assert reason == {"message": "Could not validate credentials", "data": {"code": "AUTH_ERROR"}}

    @pytest.mark.parametrize(
        "auth",
        [{}, {"token": None}, {"token": ""}, {"token": "  "}, {"token": 5}, {"token": {"a": 1}}, {"Token": "x"}],
        ids=repr,
    )
    async def test_what_holds_no_token_is_none(self, orchestrator: Orchestrator, auth: Any) -> None:
        reason = await refusal(orchestrator.url, auth=auth)
        assert reason == {"message": "Not authenticated", "data": {"code": "AUTH_ERROR"}}

    async def test_a_cookie_opens_no_socket(self, orchestrator: Orchestrator, owner: Person) -> None:
        """A browser would send it along whatever page opens the socket."""
        headers = {"Cookie": f'access_token="Bearer {owner.token}"'}
        reason = await refusal(orchestrator.url, headers=headers)
        assert reason == {"message": "Not authenticated", "data": {"code": "AUTH_ERROR"}}

    @pytest.mark.parametrize("auth", [["token"], "token", 5, True], ids=repr)
    async def test_what_is_no_object_ends_the_connection(self, orchestrator: Orchestrator, auth: Any) -> None:
        """The protocol knows objects only in a CONNECT; what is none comes from no client worth an answer."""
        listener = Listener()
        with pytest.raises(socketio.exceptions.ConnectionError):
            await listener.client.connect(orchestrator.url, auth=auth, transports=["websocket"], wait_timeout=0.3)
        assert not listener.client.connected
        await listener.close()

    @pytest.mark.parametrize(
        "token", ["Bearer", "Bearer ", "Bearer x", "a.b.c", "ü.ü.ü", "x" * 20_000, "\0"], ids=range(7)
    )
    async def test_noise_is_refused(self, orchestrator: Orchestrator, token: str) -> None:
        reason = await refusal(orchestrator.url, auth={"token": token})
        assert (set(reason), reason["data"]["code"]) == ({"message", "data"}, "AUTH_ERROR")

    async def test_raw_bytes_in_a_header_are_noise(self, orchestrator: Orchestrator) -> None:
        reason = await refusal(orchestrator.url, headers={"Authorization": "Bearer \udcff\udcfe"})
        assert reason["data"]["code"] == "AUTH_ERROR"

    async def test_a_refresh_token_opens_nothing(self, orchestrator: Orchestrator, owner: Person) -> None:
        reason = await refusal(orchestrator.url, auth={"token": owner.refresh_token})
        assert reason["data"]["code"] == "AUTH_ERROR"

    async def test_an_expired_token_says_so(self, orchestrator: Orchestrator, owner: Person) -> None:
        reason = await refusal(orchestrator.url, auth={"token": changed(orchestrator, owner.token, exp=1)})
        assert reason["data"]["code"] == "TOKEN_EXPIRED"

    async def test_a_token_of_another_server_is_forged(self, orchestrator: Orchestrator, owner: Person) -> None:
        now = orchestrator.clock.now()
        token = TokenSigner(SigningKey.shared("another secret of thirty-two characters")).issue(
            "access", owner.user_id, now=now, lifetime=timedelta(hours=1), claims={}
        )
        assert (await refusal(orchestrator.url, auth={"token": token}))["data"]["code"] == "AUTH_ERROR"

    @pytest.mark.parametrize(
        "changes",
        [
            {"sub": "not-a-uuid"},
            {"sid": "not-a-uuid"},
            {"sid": ...},
            {"tenant_id": "not-a-uuid", "tenant": "not-a-uuid"},
            {"type": "module"},
        ],
        ids=range(5),
    )
    async def test_odd_claims_are_refused(
        self, orchestrator: Orchestrator, owner: Person, changes: dict[str, object]
    ) -> None:
        reason = await refusal(orchestrator.url, auth={"token": changed(orchestrator, owner.token, **changes)})
        assert reason["data"]["code"] in {"AUTH_ERROR", "TOKEN_REVOKED"}
        assert "request_id" not in reason["data"], "a bad token is no fault of ours"

    async def test_who_has_been_put_out_of_a_tenant_stays_out(
        self, orchestrator: Orchestrator, owner: Person, company: RegisterCompany
    ) -> None:
        """A token is believed without a look at the database, until something has changed that concerns it."""
        member = await join_company(owner, await company())
        assert (await owner.delete(f"tenants/{owner.tenant_id}/users/{member.user_id}"))[0] == 200
        reason = await eventually_refused(orchestrator.url, member.token)
        assert reason["data"]["code"] == "PERMISSION_DENIED"

    async def test_who_has_signed_out_stays_out(self, orchestrator: Orchestrator, owner: Person) -> None:
        leaving = replace(owner, token=await sign_in(owner))
        assert (await leaving.post("auth/logout"))[0] == 200
        reason = await eventually_refused(orchestrator.url, leaving.token)
        assert reason["data"]["code"] == "TOKEN_REVOKED"

    @pytest.mark.parametrize("namespace", ["/nowhere", "/ws/", "/ws/nowhere", "/WS", "/admin"])
    async def test_an_unknown_namespace_is_refused(
        self, orchestrator: Orchestrator, owner: Person, namespace: str
    ) -> None:
        assert await refusal(orchestrator.url, namespace, auth={"token": owner.token})

    async def test_a_refused_namespace_leaves_the_others_alone(self, orchestrator: Orchestrator, owner: Person) -> None:
        listener = await Listener().connect(orchestrator.url, owner.token, "/")
        await listener.client._send_packet(
            socketio.packet.Packet(socketio.packet.CONNECT, data={"token": "forged"}, namespace="/billing")
        )
        assert await listener.client.call("ping") == {"ok": True}
        await listener.close()


async def test_a_token_without_a_tenant_hears_of_its_user_only(orchestrator: Orchestrator, owner: Person) -> None:
    token = changed(orchestrator, owner.token, tenant_id=None, tenant=None, role=None)
    listener = await Listener().connect(orchestrator.url, token, "/", "/billing")
    for body in listener.of("connected"):
        assert (body["user_id"], body["tenant_id"]) == (str(owner.user_id), None)
        assert (body["epoch"], body["seq"]) == (None, None)
    for event, payload in (("sync", {"after_seq": 0}), ("presence", None)):
        answer = await listener.client.call(event, payload)
        assert (answer["ok"], answer["error"]["code"]) == (False, "TENANT_ERROR")
    answer = await listener.client.call("notification_read", {"notification_id": str(uuid4())})
    assert (answer["ok"], answer["error"]["code"]) == (False, "TENANT_ERROR")
    await listener.close()


async def test_seats_are_freed_when_their_sockets_go(orchestrator: Orchestrator, stranger: Person) -> None:
    """Whoever leaves, in whatever manner, leaves nothing behind in the server's memory."""
    seats, follower = orchestrator.house.sockets.seats, orchestrator.house.follower

    def seated() -> int:
        return sum(seat.principal.user_id == stranger.user_id for seat in seats.all())

    async with asyncio.timeout(10):
        while seated():
            await asyncio.sleep(0.01)
    polite = await Listener().connect(orchestrator.url, stranger.token, *NAMESPACES)
    rude = await Listener().connect(orchestrator.url, stranger.token, *NAMESPACES)
    assert seated() == 2 * len(NAMESPACES)
    assert follower._streams[stranger.tenant_id].sockets == 2 * len(NAMESPACES)
    await polite.close()
    await polite.until(lambda: seated() == len(NAMESPACES))
    await rude.client.eio.ws.close()
    await rude.until(lambda: seated() == 0)
    assert seats.count(stranger.tenant_id) == 0
    # The stream is followed a while longer, for those who come back.
    assert follower._streams[stranger.tenant_id].sockets == 0
    await rude.close()
