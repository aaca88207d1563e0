"""Codes: hashed, bounded in guesses whatever the crowd, used once, and sent at a bounded pace."""

import asyncio
import secrets
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from core.errors import RateLimited
from core.phones import mask_phone
from models.audit import AuditEntry
from models.messengers import MessageState, MessengerMessage
from models.phones import CODE_ATTEMPTS
from services.phones import Pace
from services.phones.chats import bind_chat
from services.phones.errors import ChannelInactive, NoChannel, PhoneCodeRefused, PhoneTaken
from tests.support.identity import DEVICE, PLATFORM
from tests.support.phones import World, new_phone, phone_world
from tests.support.running import Orchestrator


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06d}"


async def test_a_code_arrives_and_is_nowhere_to_be_read(world: World) -> None:
    phone = world.phone()
    requested = await world.request(phone, ip="192.0.2.7")
    (written,) = await world.messages(phone)
    assert written.sealed_code
    await world.deliver()

    (sent,) = world.gateway.sent
    code = sent["code"]
    assert (sent["phone_number"], sent["ttl"], len(code)) == (phone, 300, 6)
    assert (requested.dev_code, requested.start_link is None) == (None, False)
    row = await world.open_code(phone)
    assert (row.attempts_left, row.channel, row.ip) == (CODE_ATTEMPTS, "telegram_gateway", "192.0.2.7")
    assert row.expires_at - row.created_at == timedelta(seconds=300)
    (message,) = await world.messages(phone)
    assert (message.state, message.sealed_code) == (MessageState.SENT, "")
    (entry,) = (
        entry
        for entry in await world.audited("phone_code.requested", mask_phone(phone))
        if entry.created_at == row.created_at
    )
    assert code not in (row.digest, written.sealed_code, message.text, message.reference)
    assert entry.details == {"channel": "telegram_gateway"}


async def test_a_crowd_of_wrong_codes_is_looked_at_five_times(world: World) -> None:
    phone = world.phone()
    code = await world.code(phone)
    guesses = [f"{(int(code) + step) % 10**6:06d}" for step in range(1, 51)]

    outcomes = await asyncio.gather(
        *(world.identity.phones.codes.prove(phone=phone, code=guess) for guess in guesses), return_exceptions=True
    )

    assert all(isinstance(outcome, PhoneCodeRefused) for outcome in outcomes)
    row = await world.open_code(phone)
    assert row.attempts_left == 0
    tried = await world.identity.rows(
        select(AuditEntry.details).where(
            AuditEntry.action == "phone_code.tried",
            AuditEntry.subject_id == mask_phone(phone),
            AuditEntry.created_at >= row.created_at,
        )
    )
    assert sorted(entry["attempts_left"] for entry in tried) == [0, 1, 2, 3, 4]
    with pytest.raises(PhoneCodeRefused):
        await world.identity.phones.codes.prove(phone=phone, code=code)


async def test_the_right_code_opens_once_however_many_bring_it(world: World) -> None:
    phone = world.phone()
    code = await world.code(phone)

    async def use() -> None:
        proven = await world.identity.phones.codes.prove(phone=phone, code=code)
        async with world.identity.units(PLATFORM) as uow:
            await world.identity.phones.codes.redeem(uow, proven)

    outcomes = await asyncio.gather(*(use() for _ in range(4)), return_exceptions=True)

    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, PhoneCodeRefused) for outcome in outcomes) == 3
    with pytest.raises(PhoneCodeRefused):
        await use()


async def test_what_fails_later_gives_no_attempt_back(world: World) -> None:
    phone = world.phone()
    await world.sign_in(phone, await world.code(phone))
    code = await world.code(phone)

    with pytest.raises(PhoneTaken):
        await world.identity.auth.phones.register(phone=phone, code=code, locale="en", device=DEVICE)

    assert (await world.open_code(phone)).attempts_left == CODE_ATTEMPTS - 1
    # The code itself is still good, for whoever now signs in instead.
    await world.sign_in(phone, code)


async def test_a_code_grows_old_and_a_new_one_takes_its_place(world: World) -> None:
    phone = world.phone()
    first = await world.code(phone)
    with pytest.raises(PhoneCodeRefused):
        await world.identity.phones.codes.prove(phone=phone, code=wrong(first))
    second = await world.code(phone)
    assert (await world.open_code(phone)).attempts_left == CODE_ATTEMPTS
    if first != second:
        with pytest.raises(PhoneCodeRefused):
            await world.identity.phones.codes.prove(phone=phone, code=first)

    world.identity.clock.offset += timedelta(seconds=301)
    with pytest.raises(PhoneCodeRefused):
        await world.sign_in(phone, second)


async def test_a_newer_code_voids_one_that_was_guessed_but_not_yet_used(world: World) -> None:
    phone = world.phone()
    proven = await world.identity.phones.codes.prove(phone=phone, code=await world.code(phone))
    await world.request(phone)

    with pytest.raises(PhoneCodeRefused):
        async with world.identity.units(PLATFORM) as uow:
            await world.identity.phones.codes.redeem(uow, proven)


@pytest.mark.parametrize("code", ["", "12345", "1234567", "١٢٣٤٥٦", "１２３４５６", "x" * 64, "12345\udcff"])
async def test_what_is_no_code_is_wrong(world: World, code: str) -> None:
    phone = world.phone()
    await world.request(phone)

    with pytest.raises(PhoneCodeRefused):
        await world.identity.phones.codes.prove(phone=phone, code=code)
    with pytest.raises(PhoneCodeRefused):
        await world.identity.phones.codes.prove(phone=new_phone(), code="123456")


async def test_a_phone_gets_codes_at_a_bounded_pace(
    engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    paces = [Pace(codes=3, within=timedelta(minutes=10)), Pace(codes=4, within=timedelta(days=1))]
    async with phone_world(engine, orchestrator.services, tmp_path, bots=(), paces=paces) as world:
        phone, other = world.phone(), world.phone()

        outcomes = await asyncio.gather(*(world.request(phone) for _ in range(8)), return_exceptions=True)

        refused = [outcome for outcome in outcomes if isinstance(outcome, RateLimited)]
        assert len(refused) == 5
        assert all(590 <= (refusal.retry_after_s or 0) <= 600 for refusal in refused)
        assert len(await world.messages(phone)) == 3
        await world.request(other)
        world.identity.clock.offset += timedelta(minutes=10, seconds=1)
        await world.request(phone)
        with pytest.raises(RateLimited) as day:
            await world.request(phone)
        assert (day.value.retry_after_s or 0) > 80_000


async def test_only_messengers_that_are_there_are_used(
    engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    async with phone_world(engine, orchestrator.services, tmp_path, bots=()) as world:
        with pytest.raises(ChannelInactive, match="Provider max is not active"):
            await world.request(world.phone(), channel="max")
        assert (await world.request(world.phone(), channel="telegram")).start_link is None
    async with phone_world(engine, orchestrator.services, tmp_path, bots=(), gateways=()) as world:
        with pytest.raises(NoChannel):
            await world.request(world.phone())


async def test_the_running_worker_brings_it(orchestrator: Orchestrator) -> None:
    phone = new_phone()
    async with orchestrator.units(PLATFORM) as uow:
        requested = await orchestrator.services.phones.codes.request(uow, phone=phone, locale="en")
    assert requested.dev_code is not None

    state: MessageState | None = None
    async with asyncio.timeout(30):
        while state is not MessageState.SENT:
            await asyncio.sleep(0.02)
            async with orchestrator.units(PLATFORM) as uow:
                state = await uow.session.scalar(select(MessengerMessage.state).where(MessengerMessage.phone == phone))


async def test_what_is_old_is_forgotten(world: World) -> None:
    phone = world.phone()
    await world.code(phone)
    world.identity.clock.offset += timedelta(days=1)
    await world.identity.phones.prune()
    assert await world.messages(phone)

    world.identity.clock.offset += timedelta(days=2)
    await world.identity.phones.prune()

    assert await world.messages(phone) == []


async def test_the_limit_of_all_refuses_the_known_and_the_unknown_alike(
    engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    """A bot knows the chat of one phone only; links that it offers to others are no codes."""
    total = [Pace(codes=2, within=timedelta(minutes=17))]
    async with phone_world(engine, orchestrator.services, tmp_path, gateways=(), total=total) as world:
        known, address = new_phone(), str(secrets.randbelow(10**12))
        async with world.identity.units(PLATFORM) as uow:
            await bind_chat(uow, messenger="telegram", address=address, phone=known)
        for _ in range(5):
            assert (await world.request(new_phone())).start_link is not None
        for _ in range(2):
            await world.request(known)

        waits = []
        for phone in (known, new_phone()):
            with pytest.raises(RateLimited) as refused:
                await world.request(phone)
            waits.append(refused.value.retry_after_s or 0)

        assert len(await world.messages(known)) == 2
    assert 1000 < min(waits) <= max(waits) <= 1020
    assert max(waits) - min(waits) <= 1
