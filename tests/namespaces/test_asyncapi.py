"""AsyncAPI: every event of the catalogue in the channels where it is heard, described as it is sent."""

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest
from aiohttp import ClientSession

from core import json as wire
from namespaces.asyncapi import build_asyncapi
from namespaces.names import ALL
from services.events import CATALOGUE
from tests.namespaces.test_delivery import EXPECTED, every_event
from tests.support.running import Orchestrator

Json = dict[str, Any]

ROOTS = ("/", "/ws")
RECOVERY = {"rt:reset", "rt:pos"}
AUTHORITY = {"auth:expiring", "auth:expired", "auth:revoked", "auth:changed"}
PLAIN = {"connected", "pong", "error", "notification_read_confirmed", *RECOVERY, *AUTHORITY}
FROM_CLIENTS = {"ping", "notification_read", "auth:refresh", "sync", "presence"}


@pytest.fixture(scope="module")
def document() -> Json:
    parsed: Json = json.loads(wire.dumps(build_asyncapi(version="1.2.3", host="erp.example.org")))
    return parsed


def resolve(document: Json, reference: Json) -> Json:
    place: Any = document
    for part in reference["$ref"].removeprefix("#/").split("/"):
        place = place[part.replace("~1", "/").replace("~0", "~")]
    found: Json = place
    return found


def test_it_is_asyncapi_3(document: Json) -> None:
    assert document["asyncapi"].startswith("3.0.")
    assert document["info"]["version"] == "1.2.3"
    (server,) = document["servers"].values()
    assert server["host"] == "erp.example.org"


def test_every_namespace_is_a_channel(document: Json) -> None:
    assert set(document["channels"]) == set(ALL)
    assert all(channel["address"] == name for name, channel in document["channels"].items())


@pytest.mark.parametrize("namespace", ALL)
def test_a_channel_lists_what_is_heard_and_said_there(document: Json, namespace: str) -> None:
    own = {name for name, (place, _) in EXPECTED.items() if namespace in (place, f"/ws{place}", *ROOTS)}
    whispered = {"job:log"} if namespace in ("/provisioning", "/ws/provisioning", *ROOTS) else set()
    of_roots = {"notification", "presence:changed"} if namespace in ROOTS else set()
    assert set(document["channels"][namespace]["messages"]) == own | whispered | of_roots | PLAIN | FROM_CLIENTS


@pytest.mark.parametrize("namespace", ALL)
def test_operations_tell_who_says_what(document: Json, namespace: str) -> None:
    """Without a list of its own, an operation would claim every message of its channel, in both directions."""
    said: dict[str, set[str]] = {}
    for operation in document["operations"].values():
        if resolve(document, operation["channel"])["address"] == namespace:
            messages = [resolve(document, resolve(document, message)) for message in operation["messages"]]
            said[operation["action"]] = {message["name"] for message in messages}
    assert said["receive"] == FROM_CLIENTS
    assert said["send"] == set(document["channels"][namespace]["messages"]) - FROM_CLIENTS


def test_every_message_has_a_valid_schema_and_a_summary(document: Json) -> None:
    for name, message in document["components"]["messages"].items():
        assert message["name"] == name
        assert message["summary"]
        jsonschema_rs.meta.validate({"$schema": "http://json-schema.org/draft-07/schema#", **message["payload"]})


def test_what_is_sent_is_what_is_told(document: Json) -> None:
    """The payloads, encoded as they go over the wire, keep to the schemas that clients generate their code from."""
    extra = {"event_id": UUID(int=4), "seq": 7}
    facts = every_event(UUID(int=1), UUID(int=2))
    assert {fact.event for fact in facts} == {event.event for event in CATALOGUE}
    for fact in facts:
        payload = json.loads(wire.dumps({**fact.payload(), **extra}))
        schema = document["components"]["messages"][fact.event]["payload"]
        jsonschema_rs.validate(schema, payload)
        assert set(schema["required"]) <= set(payload)
        assert set(payload) == set(schema["properties"])
    assert isinstance(json.loads(wire.dumps({"amount": Decimal("1.00")}))["amount"], float)


async def test_the_running_server_shows_it(orchestrator: Orchestrator, http: ClientSession) -> None:
    async with http.get(f"{orchestrator.url}/asyncapi.json") as response:
        assert response.status == 200
        shown = await response.json()
    assert set(shown["channels"]) == set(ALL)
