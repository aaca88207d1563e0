"""An account's phone beside its address: each can be added and taken away, and one way to sign in always stays."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from models.audit import AuditEntry
from models.users import User
from services.auth.errors import EmailAbsent, LastWayIn, LoginRefused
from services.auth.phone_views import PhoneSessionView
from services.auth.views import SessionView
from services.identity import Principal
from services.phones.errors import PhoneCodeRefused, PhoneTaken
from services.step_up import RECENT, StepUpRequired
from services.verification import EmailUnverified
from tests.services.auth.test_addresses import change, confirm, new_address, welcome_token
from tests.support.identity import DEVICE, PASSWORD, PLATFORM, Identity, token_in
from tests.support.phones import World, phone_world
from tests.support.running import Orchestrator


@pytest.fixture
async def world(engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path) -> AsyncIterator[World]:
    async with phone_world(engine, orchestrator.services, tmp_path, bots=()) as made:
        yield made


async def confirmed(world: World) -> tuple[SessionView, Principal]:
    """Return somebody who is known by a confirmed address."""
    view = await world.identity.sign_up()
    await confirm(world.identity, await welcome_token(world.identity, view.user.email))
    return view, await world.identity.actor(view)


async def by_phone(world: World) -> tuple[PhoneSessionView, Principal, str]:
    """Return somebody who is known by a phone alone and has no password."""
    phone = world.phone()
    view = await world.identity.auth.phones.verify(
        phone=phone, code=await world.code(phone), locale="en", device=DEVICE
    )
    assert isinstance(view, PhoneSessionView)
    return view, await world.identity.actor(view.access_token), phone


async def add_phone(world: World, actor: Principal, phone: str) -> None:
    await world.identity.auth.own_phone.change(actor, phone=phone, code=await world.code(phone))


async def remove_phone(identity: Identity, actor: Principal) -> None:
    async with identity.units(PLATFORM) as uow:
        await identity.auth.own_phone.remove(uow, actor)


async def remove_email(identity: Identity, actor: Principal) -> None:
    async with identity.units(PLATFORM) as uow:
        await identity.auth.addresses.remove(uow, actor)


async def user(identity: Identity, user_id: UUID) -> User:
    found: User = await identity.one(select(User).where(User.id == user_id))
    return found


class TestAddingAPhone:
    async def test_its_code_opens_the_account_from_then_on(self, world: World) -> None:
        view, actor = await confirmed(world)
        phone = world.phone()

        await add_phone(world, actor, phone)

        assert await world.sign_in(phone, await world.code(phone)) == view.user.id
        assert (await world.identity.login(view.user.email)).user.phone == phone
        (letter,) = await world.identity.letters(view.user.email)
        assert letter.subject == "Your account has another phone"
        assert phone not in letter.body
        (entry,) = await world.identity.rows(
            select(AuditEntry).where(
                AuditEntry.subject_id == str(view.user.id), AuditEntry.action == "user.phone_changed"
            )
        )
        assert entry.details == {"from": None, "to": f"**********{phone[-2:]}"}

    async def test_another_takes_its_place(self, world: World) -> None:
        view, actor = await confirmed(world)
        first, second = world.phone(), world.phone()
        await add_phone(world, actor, first)

        await add_phone(world, actor, second)

        assert await world.sign_in(second, await world.code(second)) == view.user.id
        assert await world.sign_in(first, await world.code(first)) != view.user.id, "it is anybody's again"

    async def test_a_wrong_code_adds_nothing(self, world: World) -> None:
        view, actor = await confirmed(world)
        phone = world.phone()
        code = await world.code(phone)
        wrong = f"{(int(code) + 1) % 10**6:06d}"

        with pytest.raises(PhoneCodeRefused):
            await world.identity.auth.own_phone.change(actor, phone=phone, code=wrong)
        assert (await user(world.identity, view.user.id)).phone is None

    async def test_one_that_somebody_has_stays_theirs(self, world: World) -> None:
        _, actor = await confirmed(world)
        other, _, phone = await by_phone(world)

        with pytest.raises(PhoneTaken):
            await add_phone(world, actor, phone)
        assert await world.sign_in(phone, await world.code(phone)) == other.user_id

    async def test_of_many_at_once_one_uses_the_code(self, world: World) -> None:
        _, actor = await confirmed(world)
        phone = world.phone()
        code = await world.code(phone)

        outcomes = await asyncio.gather(
            *(world.identity.auth.own_phone.change(actor, phone=phone, code=code) for _ in range(4)),
            return_exceptions=True,
        )

        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, PhoneCodeRefused) for outcome in outcomes) == 3

    async def test_an_account_that_may_be_somebody_elses_gets_none(self, world: World) -> None:
        """Who signed up with a stranger's address must have no way in when its owner takes the account."""
        view = await world.identity.sign_up()
        phone = world.phone()

        with pytest.raises(EmailUnverified):
            await add_phone(world, await world.identity.actor(view), phone)

    async def test_it_needs_a_step_up_and_costs_no_guess_without_one(self, world: World) -> None:
        _, actor = await confirmed(world)
        phone = world.phone()
        world.identity.clock.offset = RECENT + timedelta(seconds=1)

        with pytest.raises(StepUpRequired):
            await add_phone(world, actor, phone)
        assert (await world.open_code(phone)).attempts_left == 5
        with pytest.raises(StepUpRequired):
            await remove_phone(world.identity, actor)


class TestAddingAnAddress:
    async def test_whoever_is_known_by_phone_gets_address_and_password(self, world: World) -> None:
        view, actor, _ = await by_phone(world)
        email = new_address()

        await change(world.identity, actor, email, PASSWORD)
        with pytest.raises(LoginRefused):
            await world.identity.login(email)
        await confirm(world.identity, token_in((await world.identity.letters(email))[-1].body))

        signed_in = await world.identity.login(email)
        assert (signed_in.user.id, signed_in.user.email_verified) == (view.user_id, True)
        assert len(await world.identity.letters(email)) == 1, "nobody is told of a former address that never was"


class TestTakingAway:
    async def test_either_goes_while_the_other_stays(self, world: World) -> None:
        identity = world.identity
        for keeps_phone in (True, False):
            view, actor = await confirmed(world)
            phone = world.phone()
            await add_phone(world, actor, phone)
            if keeps_phone:
                await remove_email(identity, actor)
                with pytest.raises(LoginRefused):
                    await identity.login(view.user.email)
                assert await world.sign_in(phone, await world.code(phone)) == view.user.id
            else:
                await remove_phone(identity, actor)
                assert await world.sign_in(phone, await world.code(phone)) != view.user.id
                assert (await identity.login(view.user.email)).user.id == view.user.id
            subjects = [letter.subject for letter in await identity.letters(view.user.email)]
            assert subjects[-1] == f"The {'address' if keeps_phone else 'phone'} of your account was removed"

    async def test_the_last_one_stays(self, world: World) -> None:
        _, actor, _ = await by_phone(world)
        with pytest.raises(LastWayIn):
            await remove_phone(world.identity, actor)
        with pytest.raises(EmailAbsent):
            await remove_email(world.identity, actor)

    async def test_an_address_that_nobody_has_confirmed_is_no_way_in(self, world: World) -> None:
        _, actor, _ = await by_phone(world)
        await change(world.identity, actor, new_address(), PASSWORD)

        with pytest.raises(LastWayIn):
            await remove_phone(world.identity, actor)

    async def test_of_both_taken_away_at_once_one_stays(self, world: World) -> None:
        for _ in range(5):
            view, actor = await confirmed(world)
            await add_phone(world, actor, world.phone())

            outcomes = await asyncio.gather(
                remove_phone(world.identity, actor), remove_email(world.identity, actor), return_exceptions=True
            )

            assert outcomes.count(None) == 1
            assert sum(isinstance(outcome, LastWayIn) for outcome in outcomes) == 1
            left = await user(world.identity, view.user.id)
            assert (left.phone is None) != (left.email is None)
