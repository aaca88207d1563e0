"""Numbers without gaps and without twins, whoever issues at once, in how many processes, and whoever rolls back."""

import asyncio
import secrets
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import ClientSession
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from models.billing import Subscription
from models.documents import Document
from services.documents.numbering import take_numbers
from tests.support.billing import PLATFORM
from tests.support.clock import MovableClock
from tests.support.people import RegisterCompany
from tests.support.running import Orchestrator
from tests.support.spine import Ears, spine

ROOT = Path(__file__).resolve().parents[3]
WORKER = Path(__file__).with_name("issuing_process.py")
TENANTS, PROCESSES, EACH = 3, 2, 26


class Undo(Exception):
    """Leaves a unit of work without a trace."""


def series_of_its_own() -> str:
    return f"T{secrets.token_hex(6)}".upper()


async def test_parallel_issue_in_two_processes_leaves_no_gap(
    http: ClientSession, orchestrator: Orchestrator, engine: AsyncEngine, company: RegisterCompany
) -> None:
    owners = [await company() for _ in range(TENANTS)]
    tenant_ids = [owner.tenant_id for owner in owners]
    async with orchestrator.units(PLATFORM) as uow:
        found = await uow.session.scalars(select(Subscription.id).where(Subscription.tenant_id.in_(tenant_ids)))
        subscriptions = [str(subscription_id) for subscription_id in found]
    series = series_of_its_own()
    arguments = [engine.url.render_as_string(hide_password=False), series, str(EACH), *subscriptions]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.services.documents.issuing_process",
            *arguments,
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    said = [(await process.communicate())[0] for process in processes]
    assert [int(count) for count in said] == [EACH // 2] * PROCESSES
    async with orchestrator.units(PLATFORM) as uow:
        papers = (await uow.session.scalars(select(Document).where(Document.series == series))).all()
    assert sorted(paper.place for paper in papers) == list(range(1, EACH // 2 * PROCESSES + 1))
    assert {paper.tenant_id for paper in papers} == set(tenant_ids)
    assert {paper.number for paper in papers} == {
        f"{series}-{paper.year}-{place:06d}" for place, paper in enumerate(papers, start=1)
    }


async def test_what_is_rolled_back_gives_its_numbers_back(engine: AsyncEngine) -> None:
    units, series = spine(engine, Ears()), series_of_its_own()
    with pytest.raises(Undo):
        async with units(PLATFORM) as uow:
            await take_numbers(uow, series, count=3)
            raise Undo
    async with units(PLATFORM) as uow:
        numbers = await take_numbers(uow, series, count=2)
    assert [number.text for number in numbers] == [f"{series}-{uow.now.year}-{place:06d}" for place in (1, 2)]


async def test_each_year_and_each_series_counts_from_one(engine: AsyncEngine) -> None:
    clock, ears = MovableClock(), Ears()
    units, series = spine(engine, ears, clock=clock), series_of_its_own()
    years = []
    for _ in range(2):
        async with units(PLATFORM) as uow:
            (number,) = await take_numbers(uow, series, count=1)
            (other,) = await take_numbers(uow, series_of_its_own(), count=1)
        assert (number.place, other.place) == (1, 1)
        years.append(number.year)
        clock.offset += timedelta(days=366)
    assert years[1] > years[0]
