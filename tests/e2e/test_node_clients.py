"""The JavaScript client that browsers and phones use connects as contract.md 7.1 lists, and hears the story."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node
from tests.support.running import Orchestrator

pytestmark = pytest.mark.node

SCRIPT = Path(__file__).parent / "story.mjs"

ROOTS = ("flutter", "flutter, websocket only", "report", "endpoint", "plain", "query", "header", "polling only")
PROVISIONING = ("report, provisioning", "endpoint, provisioning")
NOTIFICATIONS = ("report, notifications", "plain, notifications")
ALL = (*ROOTS, *PROVISIONING, *NOTIFICATIONS, "report, billing")


@dataclass(frozen=True, slots=True)
class Story:
    """What each socket heard, in the order of arrival."""

    lines: list[dict[str, Any]]

    def of(self, socket: str, event: str | None = None) -> list[Any]:
        return [line.get("data") for line in self.lines if line["socket"] == socket and event in (None, line["event"])]

    def events(self, socket: str) -> list[str]:
        return [line["event"] for line in self.lines if line["socket"] == socket]


@pytest.fixture(scope="module")
async def story(node: Node, site_orchestrator: Orchestrator) -> Story:
    """Play the story once; every test below looks at another side of it."""
    return Story(await node.play(SCRIPT, site_orchestrator.url))


@pytest.mark.parametrize("socket", ALL)
async def test_every_way_leads_in(story: Story, socket: str) -> None:
    (registered,) = story.of("REST")
    assert story.events(socket)[0] == "connected"
    (greeting,) = story.of(socket, "connected")
    assert greeting == {
        "message": "Successfully connected to ERPMax Orchestrator",
        "user_id": registered["user"]["id"],
        "tenant_id": registered["current_tenant"]["id"],
        # Where in the tenant's stream this socket begins to hear.
        "epoch": greeting["epoch"],
        "seq": greeting["seq"],
    }
    assert isinstance(greeting["epoch"], str)
    assert isinstance(greeting["seq"], int)
    assert story.of(socket, "connect_error") == []
    assert story.of(socket, "ack") == [{"ok": True}]
    assert len(story.of(socket, "pong")) == 1
    (refusal,) = story.of(socket, "refusal")
    assert refusal == {"ok": False, "error": {"code": "VALIDATION_ERROR", "message": "notification_id required"}}
    assert story.of(socket, "error") == [{"message": "notification_id required"}]


@pytest.mark.parametrize("socket", [*ROOTS, *PROVISIONING])
async def test_the_site_is_seen_growing(story: Story, socket: str) -> None:
    (registered,) = story.of("REST")
    (completed,) = story.of(socket, "status:completed")
    assert completed["tenant_id"] == registered["current_tenant"]["id"]
    assert (completed["status"], completed["job_type"], completed["progress"]) == ("completed", "create_site", 100)
    assert completed["erpnext_url"].startswith("http")
    updates = story.of(socket, "status:update")
    assert {update["job_id"] for update in updates} <= {completed["job_id"]}
    progress = [update["progress"] for update in updates]
    assert progress == sorted(progress), "progress never goes back"
    numbers = [body["seq"] for body in (*updates, completed)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("socket", [*ROOTS, *NOTIFICATIONS])
async def test_the_owner_is_told(story: Story, socket: str) -> None:
    (registered,) = story.of("REST")
    (told,) = story.of(socket, "notification:new")
    assert told["user_id"] == registered["user"]["id"]
    assert told["read"] is False
    assert {"id", "title", "message", "type", "created_at", "link", "event_id", "seq"} <= set(told)
    twins = [told] if socket in ROOTS else []
    assert story.of(socket, "notification") == twins


async def test_namespaces_hear_their_own_only(story: Story) -> None:
    heard = {socket: {event for event in story.events(socket) if ":" in event} for socket in ALL}
    for socket in PROVISIONING:
        assert heard[socket] <= {"status:update", "status:completed", "job:log"}
    for socket in NOTIFICATIONS:
        assert heard[socket] == {"notification:new"}
    assert heard["report, billing"] <= {"subscription:updated"}


async def test_transports_are_what_was_asked_for(story: Story) -> None:
    assert story.of("polling only", "transport") == ["polling"]
    assert story.of("flutter, websocket only", "transport") == ["websocket"]


async def test_refusals_reach_the_client_with_their_code(story: Story) -> None:
    assert story.of("stranger") == [{"code": "AUTH_ERROR"}]
    assert story.events("lost") == ["connect_error"]
