"""More instances beside the shared server, each with a clock and settings of its own, and tokens of any age."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from server.keys import secret_key
from server.processes import background, listening
from server.wiring import Part, build
from tests.support.clock import MovableClock
from tests.support.running import Orchestrator
from tests.support.stores import free_port
from tests.support.waiting import until


@asynccontextmanager
async def beside(orchestrator: Orchestrator, **changes: Any) -> AsyncIterator[Orchestrator]:
    """Run one more web process's worth of the orchestrator on the same stores, with some settings changed."""
    defaults = {"port": free_port(), "socket_drain_s": 0.1}
    settings = orchestrator.settings.model_copy(update={**defaults, **changes})
    part, clock = Part(web=True), MovableClock()
    async with (
        build(settings, orchestrator.house.engine, part, clock=clock) as house,
        background(house, part),
        listening(house, settings.host, settings.port),
    ):
        await until(lambda: house.bus.healthy)
        yield Orchestrator(url=settings.public_base, house=house, clock=clock)


@asynccontextmanager
async def doors(orchestrator: Orchestrator, deployment: str) -> AsyncIterator[list[Orchestrator]]:
    """Yield the instances of a deployment: one when it is embedded, two in the cluster."""
    if deployment == "embedded":
        yield [orchestrator]
        return
    async with beside(orchestrator) as other:
        yield [orchestrator, other]


def token_for(orchestrator: Orchestrator, token: str, *, left_s: float | None = None, **changes: object) -> str:
    """Return a token of the server's own signature with other claims, or with so many seconds left."""
    claims = {**jwt.decode(token, options={"verify_signature": False}), **changes}
    if left_s is not None:
        claims["exp"] = int((orchestrator.clock.now() + timedelta(seconds=left_s)).timestamp())
    return jwt.encode(claims, secret_key(orchestrator.settings), algorithm="HS256")


def expiry_of(token: str) -> datetime:
    """Return when a token expires."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return datetime.fromtimestamp(claims["exp"], UTC)
