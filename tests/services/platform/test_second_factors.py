"""A lost second factor, reset by the platform's people: for a reason, told to its owner, and never their own."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from models.audit import AuditEntry
from models.notifications import Notification
from models.second_factors import RecoveryCode, SecondFactor, SignInChallenge
from services.auth.errors import ChallengeRefused, RefreshRevoked, SecondFactorAbsent, TokenRevoked
from services.identity import Impersonated, Principal, SuperuserRequired
from services.platform.errors import OwnSecondFactor, UserNotFound
from services.step_up import RECENT, StepUpRequired
from tests.services.auth.second_factors import answer, challenge, enrolled
from tests.services.platform.conftest import Platform
from tests.support.identity import PLATFORM, tenant_of

REASON = "Passport seen, ticket 4711"


async def reset(platform: Platform, actor: Principal, user_id: UUID) -> None:
    async with platform.identity.units(PLATFORM) as uow:
        await platform.service.second_factors.reset(uow, actor, user_id=user_id, reason=REASON)


async def test_the_password_is_enough_again_and_the_owner_is_told(platform: Platform) -> None:
    identity = platform.identity
    person = await enrolled(identity)
    waiting = await challenge(identity, person)
    code = person.code(identity)
    actor, _ = await platform.superuser()

    await reset(platform, actor, person.actor.user_id)

    with pytest.raises(TokenRevoked):
        await identity.actor(person.view)
    with pytest.raises(RefreshRevoked):
        await identity.auth.sessions.refresh(refresh_token=person.view.refresh_token)
    with pytest.raises(ChallengeRefused):
        await answer(identity, waiting, code)
    assert (await identity.login(person.view.user.email)).user.id == person.actor.user_id
    for table in (SecondFactor, RecoveryCode, SignInChallenge):
        count = select(func.count()).select_from(table).where(table.user_id == person.actor.user_id)
        assert await identity.one(count) == 0
    letter = (await identity.letters(person.view.user.email))[-1]
    assert letter.subject == "Your second factor was reset"
    assert REASON in letter.body
    notification = (
        await identity.rows(
            select(Notification)
            .where(Notification.user_id == person.actor.user_id, Notification.tenant_id == tenant_of(person.view))
            .order_by(Notification.created_at)
        )
    )[-1]
    assert notification.data == {"notice": "two_factor_reset"}
    (entry,) = await identity.rows(
        select(AuditEntry).where(
            AuditEntry.subject_id == str(person.actor.user_id), AuditEntry.action == "second_factor.reset"
        )
    )
    assert (entry.actor_id, entry.details) == (actor.user_id, {"reason": REASON, "sessions": 1})
    with pytest.raises(SecondFactorAbsent):
        await reset(platform, actor, person.actor.user_id)


async def test_of_two_at_once_one_is_a_deed(platform: Platform) -> None:
    person = await enrolled(platform.identity)
    actor, _ = await platform.superuser()

    outcomes = await asyncio.gather(
        *(reset(platform, actor, person.actor.user_id) for _ in range(3)), return_exceptions=True
    )

    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, SecondFactorAbsent) for outcome in outcomes) == 2


async def test_who_may_not_and_whom_not(platform: Platform) -> None:
    identity = platform.identity
    person = await enrolled(identity)
    actor, view = await platform.superuser()

    with pytest.raises(SuperuserRequired):
        await reset(platform, person.actor, actor.user_id)
    with pytest.raises(OwnSecondFactor):
        await reset(platform, actor, actor.user_id)
    with pytest.raises(UserNotFound):
        await reset(platform, actor, uuid4())
    acting = Principal(
        user_id=actor.user_id,
        session_id=actor.session_id,
        tenant_id=None,
        role=None,
        is_superuser=True,
        impersonator_id=uuid4(),
    )
    with pytest.raises(Impersonated):
        await reset(platform, acting, person.actor.user_id)
    identity.clock.offset += RECENT + timedelta(seconds=1)
    with pytest.raises(StepUpRequired):
        await reset(platform, actor, person.actor.user_id)
    assert view.user.id == actor.user_id


async def test_the_command_line_helps_the_last_superuser_too(platform: Platform) -> None:
    identity = platform.identity
    person = await enrolled(identity)
    async with identity.units(PLATFORM) as uow:
        with pytest.raises(UserNotFound):
            await platform.service.second_factors.reset_by_command(uow, login="+79990000001", reason=REASON)
        login = person.view.user.email.upper()
        await platform.service.second_factors.reset_by_command(uow, login=login, reason=REASON)

    assert (await identity.login(person.view.user.email)).user.id == person.actor.user_id
