"""Signing in and up by phone: everything or nothing, once per phone, and with the second factor."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from models.audit import AuditEntry
from models.billing import Subscription, SubscriptionStatus
from models.provisioning import JobType, ProvisioningJob
from models.tenants import Membership, Role, Tenant
from models.users import EmploymentType, User, UserSession
from services.auth import PhoneSignUp, ProfileChanges
from services.auth.accounts import insert_phone_user
from services.auth.errors import LoginRefused, TokenRevoked
from services.auth.phone_views import PhoneRegisteredView, PhoneSessionView
from services.auth.views import ChallengeView, SessionView
from services.entitlements import EntitlementDesk
from services.phones.errors import PhoneBlocked, PhoneCodeRefused, PhoneTaken, PhoneUnknown
from services.provisioning.sites import SiteAddresses, site_target
from services.sso import SsoAcceptedView, SsoService
from tests.services.auth.support import execute
from tests.support.identity import DEVICE, ENTITLED, PASSWORD, PLATFORM
from tests.support.phones import World, new_phone, phone_world
from tests.support.running import Orchestrator


@pytest.fixture
async def world(engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path) -> AsyncIterator[World]:
    async with phone_world(engine, orchestrator.services, tmp_path, bots=()) as made:
        yield made


def form(phone: str, code: str, **changes: Any) -> PhoneSignUp:
    filled: dict[str, Any] = {
        "password": PASSWORD,
        "first_name": "Анна",
        "last_name": "Иванова",
        "employment_type": EmploymentType.SELF_EMPLOYED,
        "locale": "ru",
        **changes,
    }
    return PhoneSignUp(phone=phone, code=code, **filled)


async def register_full(world: World, phone: str) -> PhoneSessionView:
    view = await world.identity.auth.phones.register_full(form(phone, await world.code(phone)), device=DEVICE)
    assert isinstance(view, PhoneSessionView)
    return view


async def verify(world: World, phone: str) -> PhoneSessionView | ChallengeView:
    code = await world.code(phone)
    return await world.identity.auth.phones.verify(phone=phone, code=code, locale="en", device=DEVICE)


async def user_of(world: World, phone: str) -> User:
    user: User = await world.identity.one(select(User).where(User.phone == phone))
    return user


async def test_signing_up_makes_what_signing_up_by_mail_makes(world: World) -> None:
    phone = world.phone()
    view = await register_full(world, phone)

    assert view.is_new_user
    user = await user_of(world, phone)
    assert (user.id, user.email, user.full_name, user.locale) == (view.user_id, None, "Анна Иванова", "ru")
    assert (user.first_name, user.last_name) == ("Анна", "Иванова")
    assert user.employment_type is EmploymentType.SELF_EMPLOYED
    assert (user.hashed_password or "").startswith("$argon2id$")
    tenant = await world.identity.one(select(Tenant).where(Tenant.id == view.tenant_id))
    assert tenant.name == "Company Иванова"
    assert re.fullmatch(r"u-[0-9a-f]{8}", tenant.slug)
    place = await world.identity.one(select(Membership).where(Membership.tenant_id == view.tenant_id))
    assert (place.user_id, place.role, place.is_default) == (user.id, Role.OWNER, True)
    subscription = await world.identity.one(select(Subscription).where(Subscription.tenant_id == view.tenant_id))
    assert subscription.status is SubscriptionStatus.TRIAL
    job = await world.identity.one(select(ProvisioningJob).where(ProvisioningJob.tenant_id == view.tenant_id))
    assert job.job_type is JobType.CREATE_SITE
    actions = await world.identity.rows(select(AuditEntry.action).where(AuditEntry.tenant_id == view.tenant_id))
    assert {"user.registered", "tenant.created", "session.opened"} <= set(actions)
    actor = await world.identity.actor(view.access_token)
    assert (actor.user_id, actor.tenant_id, actor.role) == (user.id, view.tenant_id, Role.OWNER)


async def test_a_wrong_code_makes_nobody(world: World) -> None:
    phone = world.phone()
    code = await world.code(phone)
    with pytest.raises(PhoneCodeRefused):
        await world.identity.auth.phones.register_full(form(phone, ""), device=DEVICE)
    with pytest.raises(PhoneCodeRefused):
        await world.identity.auth.phones.register_full(form(new_phone(), code), device=DEVICE)

    assert await world.identity.rows(select(User.id).where(User.phone == phone)) == []


async def test_one_right_code_signs_up_once_however_many_bring_it(world: World) -> None:
    phone = world.phone()
    code = await world.code(phone)
    phones = world.identity.auth.phones

    outcomes = await asyncio.gather(
        phones.register(phone=phone, code=code, locale="en", device=DEVICE),
        phones.register_full(form(phone, code), device=DEVICE),
        phones.verify(phone=phone, code=code, locale="en", device=DEVICE),
        phones.confirm(phone=phone, code=code, locale="en"),
        return_exceptions=True,
    )

    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, PhoneCodeRefused) for outcome in outcomes) == 3
    user = await user_of(world, phone)
    assert len(await world.identity.rows(select(Membership.id).where(Membership.user_id == user.id))) == 1


async def test_a_phone_is_written_down_once_whoever_races(world: World) -> None:
    phone = new_phone()
    names: dict[str, Any] = {"first_name": None, "last_name": None, "employment_type": None}

    async def write() -> None:
        async with world.identity.units(PLATFORM) as uow:
            await insert_phone_user(uow, phone=phone, hashed_password=None, locale="en", **names)

    outcomes = await asyncio.gather(*(write() for _ in range(4)), return_exceptions=True)

    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, PhoneTaken) for outcome in outcomes) == 3
    assert len(await world.identity.rows(select(User.id).where(User.phone == phone))) == 1


async def test_a_code_signs_in_whoever_has_the_phone_and_up_whoever_is_new(world: World) -> None:
    phone = world.phone()
    first, second = await verify(world, phone), await verify(world, phone)

    assert isinstance(first, PhoneSessionView)
    assert isinstance(second, PhoneSessionView)
    assert (first.is_new_user, second.is_new_user) == (True, False)
    assert (first.user_id, first.tenant_id) == (second.user_id, second.tenant_id)
    assert first.access_token != second.access_token
    user = await user_of(world, phone)
    assert (user.full_name, user.hashed_password) == ("", None)
    sessions = await world.identity.rows(select(UserSession).where(UserSession.user_id == user.id))
    assert [session.authenticated_at is not None for session in sessions] == [True, True]
    tokens = await world.identity.auth.sessions.refresh(refresh_token=second.refresh_token)
    assert (await world.identity.actor(tokens.access_token)).user_id == user.id


async def test_registering_by_a_code_alone_answers_a_token(world: World) -> None:
    phone = world.phone()
    phones = world.identity.auth.phones
    view = await phones.register(phone=phone, code=await world.code(phone), locale="en", device=DEVICE)

    assert isinstance(view, PhoneRegisteredView)
    assert (await world.identity.actor(view.token)).tenant_id == view.tenant_id
    tenant = await world.identity.one(select(Tenant).where(Tenant.id == view.tenant_id))
    assert tenant.name == f"Tenant {view.user_id}"
    with pytest.raises(PhoneTaken):
        await phones.register(phone=phone, code=await world.code(phone), locale="en", device=DEVICE)


async def test_confirming_makes_an_account_and_opens_no_session(world: World) -> None:
    phone = world.phone()
    phones = world.identity.auth.phones
    first = await phones.confirm(phone=phone, code=await world.code(phone), locale="en")
    second = await phones.confirm(phone=phone, code=await world.code(phone), locale="en")

    assert first.confirmed
    assert first.tenant_id == second.tenant_id is not None
    user = await user_of(world, phone)
    assert await world.identity.rows(select(UserSession.id).where(UserSession.user_id == user.id)) == []
    assert len(await world.audited("phone.confirmed", str(user.id))) == 2


async def test_a_password_opens_and_says_nothing_when_it_does_not(world: World) -> None:
    phone, codes_only = world.phone(), world.phone()
    registered = await register_full(world, phone)
    await verify(world, codes_only)
    phones = world.identity.auth.phones

    view = await phones.login(phone=phone, password=PASSWORD, device=DEVICE)

    assert isinstance(view, PhoneSessionView)
    assert (view.user_id, view.tenant_id, view.is_new_user) == (registered.user_id, registered.tenant_id, False)
    world.identity.hasher.checks.clear()
    for stranger in (phone, codes_only, new_phone()):
        with pytest.raises(LoginRefused) as refusal:
            await phones.login(phone=stranger, password="another", device=DEVICE)
        assert type(refusal.value) is LoginRefused
    # The same work for everybody, in vain where there is nothing to compare with.
    assert world.identity.hasher.checks == [True, False, False]


async def test_every_way_in_asks_for_the_second_factor(world: World) -> None:
    phone = world.phone()
    identity = world.identity
    registered = await register_full(world, phone)
    actor = await identity.actor(registered.access_token)
    async with identity.units(PLATFORM) as uow:
        enrolment = await identity.auth.second_factors.enrol(uow, actor)
    assert phone.removeprefix("+") in enrolment.provisioning_uri
    totp = pyotp.TOTP(enrolment.secret)
    await identity.auth.second_factors.confirm(actor, code=totp.at(identity.clock.now()))

    by_code = await verify(world, phone)
    by_password = await identity.auth.phones.login(phone=phone, password=PASSWORD, device=DEVICE)

    assert isinstance(by_code, ChallengeView)
    assert isinstance(by_password, ChallengeView)
    sessions = await identity.rows(select(UserSession.id).where(UserSession.user_id == registered.user_id))
    assert sessions == [actor.session_id]
    code = totp.at(identity.clock.now(), counter_offset=1)
    view = await identity.auth.challenges.answer(challenge_token=by_code.challenge_token, code=code, device=DEVICE)
    assert isinstance(view, SessionView)
    # The released clients of other families demand a text here.
    assert view.user.email == ""


async def test_a_forgotten_password_is_replaced_by_a_code(world: World) -> None:
    phone, unknown = world.phone(), world.phone()
    registered = await register_full(world, phone)
    phones = world.identity.auth.phones
    with pytest.raises(PhoneCodeRefused):
        await phones.reset_password(phone=phone, code="wrong", new_password="another horse")
    await phones.reset_password(phone=phone, code=await world.code(phone), new_password="another horse")

    with pytest.raises(TokenRevoked):
        await world.identity.actor(registered.access_token)
    with pytest.raises(LoginRefused):
        await phones.login(phone=phone, password=PASSWORD, device=DEVICE)
    assert isinstance(await phones.login(phone=phone, password="another horse", device=DEVICE), PhoneSessionView)
    assert await world.audited("password.reset", str(registered.user_id))
    with pytest.raises(PhoneUnknown):
        await phones.reset_password(phone=unknown, code=await world.code(unknown), new_password="another horse")


async def test_a_blocked_phone_is_told_so_only_by_who_has_it(world: World) -> None:
    phone = world.phone()
    await register_full(world, phone)
    await execute(world.identity, update(User).where(User.phone == phone).values(is_active=False))
    phones = world.identity.auth.phones
    for attempt in (phones.verify, phones.register):
        with pytest.raises(PhoneCodeRefused):
            await attempt(phone=phone, code="wrong", locale="en", device=DEVICE)
        with pytest.raises(PhoneBlocked):
            await attempt(phone=phone, code=await world.code(phone), locale="en", device=DEVICE)
    with pytest.raises(PhoneBlocked):
        await phones.confirm(phone=phone, code=await world.code(phone), locale="en")


async def test_checking_tells_who_is_known(world: World) -> None:
    phone = world.phone()
    phones = world.identity.auth.phones
    async with world.identity.units(PLATFORM) as uow:
        assert not (await phones.check(uow, phone=phone)).exists
    await verify(world, phone)
    async with world.identity.units(PLATFORM) as uow:
        assert (await phones.check(uow, phone=phone)).exists


async def test_a_profile_is_shown_and_changed(world: World) -> None:
    phone = world.phone()
    view = await verify(world, phone)
    assert isinstance(view, PhoneSessionView)
    actor = await world.identity.actor(view.access_token)
    phones = world.identity.auth.phones
    async with world.identity.units(PLATFORM) as uow:
        shown = await phones.profile(uow, actor)
    assert (shown.phone, shown.first_name, shown.employment_type, shown.role) == (phone, None, None, Role.OWNER)

    changes = ProfileChanges(first_name="Ann", last_name="Lee", employment_type=EmploymentType.OOO)
    async with world.identity.units(PLATFORM) as uow:
        changed = await phones.change_profile(uow, actor, changes)
        assert await phones.change_profile(uow, actor, ProfileChanges()) == changed

    assert (changed.first_name, changed.last_name, changed.employment_type) == ("Ann", "Lee", EmploymentType.OOO)
    assert (await user_of(world, phone)).full_name == "Ann Lee"
    (entry,) = await world.audited("user.profile_changed", str(view.user_id))
    assert entry.details == {
        "before": {"first_name": None, "last_name": None, "employment_type": None},
        "after": {"first_name": "Ann", "last_name": "Lee", "employment_type": "ooo"},
    }


async def test_a_site_knows_a_person_without_an_address_by_one_that_cannot_exist(world: World) -> None:
    phone = world.phone()
    view = await verify(world, phone)
    assert isinstance(view, PhoneSessionView)
    await execute(
        world.identity, update(Tenant).where(Tenant.id == view.tenant_id).values(erpnext_site_url="https://x.example")
    )
    sso = SsoService(
        units=world.identity.units,
        sso_url_template="{site}?{token}",
        lifetime=timedelta(minutes=1),
        development=False,
    )
    actor = await world.identity.actor(view.access_token)
    async with world.identity.units(PLATFORM) as uow:
        ticket = await sso.issue(uow, actor)
    async with world.identity.units(PLATFORM) as uow:
        tenant = (await uow.session.scalars(select(Tenant).where(Tenant.id == view.tenant_id))).one()
        entitlements = await EntitlementDesk(grace=ENTITLED).of(uow, tenant.id)
        target = await site_target(uow, tenant, SiteAddresses("https://{slug}.example"), entitlements=entitlements)
        entered = await sso.redeem(uow, token=ticket.token, redirect="/desk")

    assert isinstance(entered, SsoAcceptedView)
    assert entered.data.email == target.admin_email == f"{phone[1:]}@phone.invalid"
