"""Readiness: the truth about each store, soon, and nothing of their addresses."""

import asyncio

import pytest

from server import readiness
from server.readiness import StoreReadiness


async def well() -> None:
    pass


async def refused() -> None:
    raise ConnectionRefusedError("postgresql://app:secret@db:5432")


async def test_each_store_has_its_state() -> None:
    states = await StoreReadiness({"database": well, "redis": None, "rabbitmq": refused}).check()
    assert states == {"database": "ok", "redis": "not configured", "rabbitmq": "error: ConnectionRefusedError"}


async def test_a_store_that_does_not_answer_is_away_and_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_TIMEOUT_S", 0.2)
    together = asyncio.Barrier(3)
    met: list[int] = []

    async def hangs() -> None:
        met.append(await together.wait())
        await asyncio.sleep(3600)

    states = await StoreReadiness({"a": hangs, "b": hangs, "c": hangs, "d": well}).check()
    assert states == {"a": "error: TimeoutError", "b": "error: TimeoutError", "c": "error: TimeoutError", "d": "ok"}
    assert len(met) == 3, "stores are looked at side by side"
