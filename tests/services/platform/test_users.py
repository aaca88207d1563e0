"""Accounts switched off and on: at once, for every way in, and whoever races."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from core.errors import DomainError
from models.audit import AuditEntry
from models.tenants import Tenant, TenantStatus
from models.users import User, UserSession
from services.auth.errors import (
    AccountInactive,
    LoginRefused,
    RefreshRefused,
    RefreshRevoked,
    TokenRevoked,
    UserInactive,
)
from services.auth.views import SessionView
from services.identity import SuperuserRequired
from services.platform.errors import OwnAccount, UserNotFound
from services.platform.users import MASTER
from services.step_up import RECENT, StepUpRequired
from tests.services.platform.conftest import Platform
from tests.support.identity import DEVICE, PASSWORD, PLATFORM, Identity, tenant_of, token_in
from tests.support.phones import new_phone


async def audited(identity: Identity, view: SessionView) -> list[AuditEntry]:
    return await identity.rows(
        select(AuditEntry)
        .where(
            AuditEntry.subject_id == str(view.user.id), AuditEntry.action.in_(("user.deactivated", "user.activated"))
        )
        .order_by(AuditEntry.id)
    )


async def open_sessions(identity: Identity, view: SessionView) -> list[UserSession]:
    return await identity.rows(
        select(UserSession).where(UserSession.user_id == view.user.id, UserSession.revoked_at.is_(None))
    )


async def test_a_switched_off_account_is_out_at_once_and_cannot_come_back(platform: Platform) -> None:
    identity = platform.identity
    actor, _ = await platform.superuser()
    view = await identity.sign_up()
    second = await identity.login(view.user.email)
    identity.ears.events.clear()

    assert await platform.deactivate(actor, view) is True

    [told] = [event.payload for event in identity.ears.events]
    assert (told["change"], told["code"], len(told["session_ids"])) == ("sessions_ended", "USER_INACTIVE", 2)
    with pytest.raises(TokenRevoked):
        await identity.actor(second)
    with pytest.raises(RefreshRevoked):
        await identity.auth.sessions.refresh(refresh_token=second.refresh_token)
    with pytest.raises(AccountInactive):
        await identity.login(view.user.email)
    [entry] = await audited(identity, view)
    assert (entry.actor_id, entry.tenant_id) == (actor.user_id, None)
    assert entry.details == {"reason": "spam", "sessions": 2}


@pytest.mark.embedded
async def test_a_switched_off_account_has_no_way_in_by_letter(platform: Platform) -> None:
    identity = platform.identity
    actor, _ = await platform.superuser()
    host, view = await identity.sign_up(), await identity.sign_up()
    guest = await identity.actor(view)
    newcomer = "somebody-" + view.user.email
    await identity.invite(host, newcomer)
    token = token_in((await identity.letters(newcomer))[-1].body)
    await platform.deactivate(actor, view)

    async with identity.units(PLATFORM) as uow:
        await identity.auth.passwords.forgot(uow, email=view.user.email)
    assert [letter.subject for letter in await identity.letters(view.user.email)] == []
    # Recognised a moment before the account was switched off.
    with pytest.raises(UserInactive):
        await identity.auth.registration.accept_invitation(token=token, guest=guest, device=DEVICE)
    assert await open_sessions(identity, view) == []


async def test_an_account_that_is_on_again_signs_in_anew(platform: Platform) -> None:
    identity = platform.identity
    actor, _ = await platform.superuser()
    view = await identity.sign_up()
    await platform.deactivate(actor, view)

    assert await platform.activate(actor, view) is True
    assert await platform.activate(actor, view) is False

    with pytest.raises(RefreshRefused):
        await identity.auth.sessions.refresh(refresh_token=view.refresh_token)
    await identity.actor(await identity.login(view.user.email))
    assert [entry.action for entry in await audited(identity, view)] == ["user.deactivated", "user.activated"]


async def test_of_two_deactivations_at_once_one_is_a_deed(platform: Platform) -> None:
    actor, _ = await platform.superuser()
    view = await platform.identity.sign_up()

    outcomes = await asyncio.gather(*(platform.deactivate(actor, view) for _ in range(4)))

    assert sorted(outcomes) == [False, False, False, True]
    assert len(await audited(platform.identity, view)) == 1


async def test_no_sign_in_outlives_a_deactivation_at_the_same_moment(platform: Platform) -> None:
    identity = platform.identity
    actor, _ = await platform.superuser()
    view = await identity.sign_up()

    async def come_in() -> None:
        # Some come in before the deed and are put out by it; the others are refused.
        with pytest.raises(DomainError):
            while True:
                await identity.auth.sessions.refresh(
                    refresh_token=(await identity.login(view.user.email)).refresh_token
                )

    crowd = [asyncio.create_task(come_in()) for _ in range(4)]
    await platform.deactivate(actor, view)
    await asyncio.gather(*crowd)

    assert await open_sessions(identity, view) == []
    with pytest.raises(LoginRefused):
        await identity.login(view.user.email)


async def test_of_two_superusers_who_switch_each_other_off_one_stays(platform: Platform) -> None:
    (first, first_view), (second, second_view) = await platform.superuser(), await platform.superuser()

    outcomes = await asyncio.gather(
        platform.deactivate(first, second_view), platform.deactivate(second, first_view), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["SuperuserRequired", "bool"]
    users = await platform.identity.rows(select(User).where(User.id.in_((first.user_id, second.user_id))))
    assert sorted(user.is_active for user in users) == [False, True]


@pytest.mark.embedded
async def test_who_may_not_and_whom_not(platform: Platform) -> None:
    identity = platform.identity
    actor, own = await platform.superuser()
    view = await identity.sign_up()
    with pytest.raises(OwnAccount):
        await platform.deactivate(actor, own)
    with pytest.raises(SuperuserRequired):
        await platform.deactivate(await identity.actor(view), own)
    # A token that claims more than the database knows.
    with pytest.raises(SuperuserRequired):
        await platform.deactivate(replace(await identity.actor(view), is_superuser=True), own)
    async with identity.units(PLATFORM) as uow:
        with pytest.raises(UserNotFound):
            await platform.service.users.activate(uow, actor, user_id=actor.session_id, reason=None)


async def test_masters_are_made_and_tenants_closed_by_superusers_in_person(platform: Platform) -> None:
    identity = platform.identity
    actor, _ = await platform.superuser()
    view = await identity.sign_up()
    phone = new_phone()
    identity.clock.offset = RECENT + timedelta(seconds=1)

    with pytest.raises(StepUpRequired):
        await platform.service.users.create_master(actor, phone=phone, password=PASSWORD, role=MASTER, locale="en")
    with pytest.raises(StepUpRequired):
        async with identity.units(PLATFORM) as uow:
            await platform.service.tenants.suspend(uow, actor, tenant_id=tenant_of(view), reason="spam")

    assert await identity.rows(select(User).where(User.phone == phone)) == []
    tenant = await identity.one(select(Tenant).where(Tenant.id == tenant_of(view)))
    assert tenant.status is not TenantStatus.SUSPENDED
