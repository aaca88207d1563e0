"""Signing in, rotation of refresh tokens with reuse detection, switching, signing out."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import jwt
import pytest
from passlib.hash import bcrypt
from sqlalchemy import delete, func, select, update

from core.errors import DomainError
from models.tenants import Membership, Role
from models.users import REFRESH_GRACE, User, UserSession
from services.auth.errors import (
    AccountInactive,
    CredentialsRefused,
    LoginRefused,
    RefreshExpired,
    RefreshRefused,
    RefreshRevoked,
    RefreshUserGone,
    TokenExpired,
    TokenRevoked,
    UserGone,
    UserHasNoTenants,
    UserInactive,
)
from services.auth.views import SessionView, SwitchView, TokensView
from services.tenants.errors import NoTenantAccess
from tests.support.identity import ACCESS, PASSWORD, PLATFORM, REFRESH, SECRET, Identity, claims_of, tenant_of

MOMENT = timedelta(seconds=1)


async def execute(identity: Identity, statement: object) -> None:
    async with identity.units(PLATFORM) as uow:
        await uow.session.execute(statement)  # type: ignore[call-overload]


async def refresh(identity: Identity, tokens: TokensView | str) -> TokensView:
    token = tokens if isinstance(tokens, str) else tokens.refresh_token
    return await identity.auth.sessions.refresh(refresh_token=token)


async def switch(identity: Identity, view: SessionView, tenant_id: UUID) -> SwitchView:
    actor = await identity.actor(view)
    async with identity.units(PLATFORM) as uow:
        return await identity.auth.sessions.switch_tenant(uow, actor, tenant_id=tenant_id)


async def member_of_two(identity: Identity) -> tuple[SessionView, UUID, UUID]:
    """Return somebody's sign-in, the tenant of their own and the one they were added to."""
    mine, other = await identity.sign_up(), await identity.sign_up()
    await identity.invite(other, mine.user.email, Role.ADMIN)
    return mine, tenant_of(mine), tenant_of(other)


async def session_of(identity: Identity, view: SessionView) -> UserSession:
    claims = claims_of(view.refresh_token)
    row: UserSession = await identity.one(select(UserSession).where(UserSession.id == UUID(claims["sid"])))
    return row


async def test_tokens_carry_the_claims_of_the_contract(identity: Identity) -> None:
    view = await identity.sign_up()

    access = claims_of(view.access_token)
    assert set(access) == {
        "sub", "type", "exp", "iat", "jti", "sid", "tenant_id", "tenant", "role", "platform_role",
    }  # fmt: skip
    assert access["sub"] == str(view.user.id)
    assert access["type"] == "access"
    assert access["tenant_id"] == access["tenant"] == str(tenant_of(view))
    assert (access["role"], access["platform_role"]) == ("owner", None)
    assert access["exp"] - access["iat"] == ACCESS.total_seconds()
    renewed = claims_of(view.refresh_token)
    assert (renewed["type"], renewed["sub"], renewed["sid"]) == ("refresh", access["sub"], access["sid"])
    assert renewed["exp"] - renewed["iat"] == REFRESH.total_seconds()
    assert renewed["jti"] != access["jti"]


async def test_login_ignores_the_case_of_the_address(identity: Identity) -> None:
    view = await identity.sign_up(email=f"Mixed.{uuid4().hex}@example.org")

    again = await identity.login(view.user.email.swapcase())

    assert again.user.id == view.user.id
    assert tenant_of(again) == tenant_of(view)
    assert again.access_token != view.access_token


async def test_login_says_neither_what_is_wrong_nor_takes_less_time(identity: Identity) -> None:
    view = await identity.sign_up()
    identity.hasher.checks.clear()

    with pytest.raises(LoginRefused, match="Invalid email or password") as wrong:
        await identity.login(view.user.email, "wrong password")
    with pytest.raises(LoginRefused, match="Invalid email or password") as unknown:
        await identity.login(f"nobody-{uuid4().hex}@example.org")

    assert type(wrong.value) is type(unknown.value) is LoginRefused
    assert identity.hasher.checks == [True, False], "an unknown address must cost one check too"


async def test_an_inactive_account_is_told_so_only_with_its_password(identity: Identity) -> None:
    view = await identity.sign_up()
    await execute(identity, update(User).where(User.id == view.user.id).values(is_active=False))

    with pytest.raises(AccountInactive, match="User account is inactive"):
        await identity.login(view.user.email)
    with pytest.raises(LoginRefused, match="Invalid email or password"):
        await identity.login(view.user.email, "wrong password")
    with pytest.raises(UserInactive, match="Inactive user"):
        await identity.actor(view)
    with pytest.raises(RefreshUserGone, match="User not found or inactive"):
        await refresh(identity, view)


async def test_who_belongs_nowhere_cannot_sign_in(identity: Identity) -> None:
    view = await identity.sign_up()
    await execute(identity, delete(Membership).where(Membership.user_id == view.user.id))

    with pytest.raises(UserHasNoTenants, match="User has no tenants"):
        await identity.login(view.user.email)
    with pytest.raises(UserHasNoTenants):
        await refresh(identity, view)


async def test_without_a_default_login_leads_to_the_oldest_tenant(identity: Identity) -> None:
    view, first, _ = await member_of_two(identity)
    await execute(identity, update(Membership).where(Membership.user_id == view.user.id).values(is_default=False))

    assert tenant_of(await identity.login(view.user.email)) == first


async def test_an_old_bcrypt_hash_is_upgraded_at_login(identity: Identity) -> None:
    view = await identity.sign_up()
    old = bcrypt.using(rounds=4).hash(PASSWORD)
    await execute(identity, update(User).where(User.id == view.user.id).values(hashed_password=old))

    await identity.login(view.user.email)

    stored = await identity.one(select(User.hashed_password).where(User.id == view.user.id))
    assert stored.startswith("$argon2id$")
    await identity.login(view.user.email)


async def test_logins_that_upgrade_one_hash_at_once_all_succeed(identity: Identity) -> None:
    view = await identity.sign_up()
    old = bcrypt.using(rounds=4).hash(PASSWORD)
    await execute(identity, update(User).where(User.id == view.user.id).values(hashed_password=old))

    views = await asyncio.gather(*(identity.login(view.user.email) for _ in range(3)))

    assert {again.user.id for again in views} == {view.user.id}


async def test_a_password_changed_during_login_counts(identity: Identity) -> None:
    view = await identity.sign_up()
    changed = await identity.hasher.hash("another password")

    async def change() -> None:
        await execute(identity, update(User).where(User.id == view.user.id).values(hashed_password=changed))

    identity.hasher.meanwhile = change
    with pytest.raises(LoginRefused):
        await identity.login(view.user.email)


async def test_a_password_that_never_rests_is_not_waited_for(identity: Identity) -> None:
    view = await identity.sign_up()
    changes = 0

    async def change() -> None:
        nonlocal changes
        changes += 1
        again = await identity.hasher.hash(PASSWORD)
        await execute(identity, update(User).where(User.id == view.user.id).values(hashed_password=again))
        identity.hasher.meanwhile = change

    identity.hasher.meanwhile = change
    with pytest.raises(LoginRefused):
        await identity.login(view.user.email)
    assert changes == 3

    identity.hasher.meanwhile = None
    await identity.login(view.user.email)


async def test_refresh_gives_new_tokens_of_the_same_session(identity: Identity) -> None:
    view = await identity.sign_up()

    tokens = await refresh(identity, view)

    assert tokens.refresh_token != view.refresh_token
    assert tokens.token_type == "bearer"
    before, after = await identity.actor(view), await identity.actor(tokens.access_token)
    assert (after.session_id, after.tenant_id, after.role) == (before.session_id, before.tenant_id, Role.OWNER)
    await refresh(identity, tokens)


async def test_a_retry_within_the_grace_is_no_theft(identity: Identity) -> None:
    view = await identity.sign_up()
    await refresh(identity, view)

    identity.clock.offset = REFRESH_GRACE - MOMENT
    second = await refresh(identity, view)
    third = await refresh(identity, view)

    identity.clock.offset = REFRESH_GRACE * 3
    assert (await session_of(identity, view)).revoked_at is None
    assert third.refresh_token != second.refresh_token
    await refresh(identity, third)


async def test_a_token_used_again_later_ends_the_session_for_good(identity: Identity) -> None:
    view = await identity.sign_up()
    tokens = await refresh(identity, view)

    identity.clock.offset = REFRESH_GRACE + MOMENT
    with pytest.raises(RefreshRevoked, match="Invalid refresh token") as refusal:
        await refresh(identity, view)

    assert refusal.value.code == "TOKEN_REVOKED"
    session = await session_of(identity, view)
    assert (session.revoked_reason, session.revoked_at is not None) == ("reuse", True)
    with pytest.raises(RefreshRevoked):
        await refresh(identity, tokens)
    with pytest.raises(TokenRevoked):
        await identity.actor(tokens.access_token)


async def test_one_session_ends_and_the_others_live(identity: Identity) -> None:
    view = await identity.sign_up()
    phone = await identity.login(view.user.email)
    await refresh(identity, view)
    identity.clock.offset = REFRESH_GRACE + MOMENT
    with pytest.raises(RefreshRevoked):
        await refresh(identity, view)

    assert (await identity.actor(phone)).user_id == view.user.id
    await refresh(identity, phone)


async def test_refreshing_at_once_from_two_tabs_is_no_theft(identity: Identity) -> None:
    view = await identity.sign_up()

    tokens = await asyncio.gather(*(refresh(identity, view) for _ in range(4)))

    assert len({pair.refresh_token for pair in tokens}) == 4
    session = await session_of(identity, view)
    assert session.revoked_at is None
    newest = [pair for pair in tokens if claims_of(pair.refresh_token)["jti"] == session.current_jti]
    assert len(newest) == 1
    await refresh(identity, newest[0])


async def test_a_session_lives_as_long_as_it_is_used(identity: Identity) -> None:
    view = await identity.sign_up()
    identity.clock.offset = REFRESH - timedelta(days=1)
    tokens = await refresh(identity, view)

    identity.clock.offset = REFRESH * 2 - timedelta(days=2)
    tokens = await refresh(identity, tokens)

    identity.clock.offset = REFRESH * 4
    with pytest.raises(RefreshExpired, match="Invalid refresh token") as refusal:
        await refresh(identity, tokens)
    assert refusal.value.code == "TOKEN_EXPIRED"


async def test_what_is_no_refresh_token_is_refused(identity: Identity) -> None:
    view = await identity.sign_up()
    forged = jwt.encode({"sub": str(view.user.id), "type": "refresh", "exp": 2**33}, "x" * 32, algorithm="HS256")
    stranger = identity.signer.issue(
        "refresh", uuid4(), now=identity.clock.now(), lifetime=REFRESH, claims={"sid": str(uuid4()), "jti": "x"}
    )
    now, session = identity.clock.now(), str((await session_of(identity, view)).id)
    no_session = identity.signer.issue("refresh", view.user.id, now=now, lifetime=REFRESH, claims={})
    no_place = jwt.encode(
        {"sub": str(view.user.id), "type": "refresh", "exp": 2**33, "sid": session}, SECRET, algorithm="HS256"
    )

    for token in ("", "not a token", "żółw", "\udcff", view.access_token, forged, stranger, no_session, no_place):
        with pytest.raises(RefreshRefused):
            await refresh(identity, token)
    assert (await session_of(identity, view)).revoked_at is None


async def test_logout_voids_both_tokens(identity: Identity) -> None:
    view = await identity.sign_up()
    actor = await identity.actor(view)

    for _ in range(2):
        async with identity.units(PLATFORM) as uow:
            await identity.auth.sessions.logout(uow, actor)

    with pytest.raises(TokenRevoked, match="Could not validate credentials"):
        await identity.actor(view)
    with pytest.raises(RefreshRevoked):
        await refresh(identity, view)
    assert (await session_of(identity, view)).revoked_reason == "logout"


async def test_a_refresh_waits_for_whoever_is_ending_the_session(identity: Identity) -> None:
    view = await identity.sign_up()
    session_id = (await session_of(identity, view)).id

    async with identity.units(PLATFORM) as uow:
        locked = select(UserSession).where(UserSession.id == session_id).with_for_update()
        (await uow.session.scalars(locked)).one().revoke("password_reset", now=uow.now)
        await uow.session.flush()
        exchange = asyncio.create_task(refresh(identity, view))
        done, _ = await asyncio.wait([exchange], timeout=0.3)
        assert not done

    with pytest.raises(RefreshRevoked):
        await exchange


async def test_what_is_no_access_token_is_refused(identity: Identity) -> None:
    view = await identity.sign_up()
    now = identity.clock.now()
    forged = jwt.encode({"sub": str(view.user.id), "type": "access", "exp": 2**33}, "x" * 32, algorithm="HS256")
    unsigned = jwt.encode({"sub": str(view.user.id), "type": "access", "exp": 2**33}, "", algorithm="none")
    no_session = identity.signer.issue("access", view.user.id, now=now, lifetime=ACCESS, claims={})
    odd_subject = jwt.encode(
        {"sub": "42", "type": "access", "exp": 2**33, "sid": str(uuid4())}, SECRET, algorithm="HS256"
    )
    odd_tenant = identity.signer.issue(
        "access", view.user.id, now=now, lifetime=ACCESS, claims={"sid": str(uuid4()), "tenant_id": "acme"}
    )

    for token in ("", "x", "\udcff", view.refresh_token, forged, unsigned, no_session, odd_subject, odd_tenant):
        with pytest.raises(CredentialsRefused, match="Could not validate credentials") as refusal:
            await identity.actor(token)
        assert refusal.value.code == "AUTH_ERROR"


async def test_an_access_token_expires(identity: Identity) -> None:
    view = await identity.sign_up()

    identity.clock.offset = ACCESS - timedelta(seconds=10)
    await identity.actor(view)
    identity.clock.offset = ACCESS + MOMENT
    with pytest.raises(TokenExpired, match="Could not validate credentials") as refusal:
        await identity.actor(view)
    assert refusal.value.code == "TOKEN_EXPIRED"


async def test_a_token_of_the_second_ancestor_names_its_tenant_shortly(identity: Identity) -> None:
    view = await identity.sign_up()
    session = await session_of(identity, view)
    claims: dict[str, str | None] = {"sid": str(session.id), "tenant": str(tenant_of(view))}
    token = identity.signer.issue("access", view.user.id, now=identity.clock.now(), lifetime=ACCESS, claims=claims)

    assert (await identity.actor(token)).tenant_id == tenant_of(view)


async def test_a_deleted_user_is_gone(identity: Identity) -> None:
    view = await identity.sign_up()
    await execute(identity, delete(User).where(User.id == view.user.id))

    with pytest.raises(UserGone, match="User not found"):
        await identity.actor(view)
    with pytest.raises(RefreshUserGone):
        await refresh(identity, view)


async def test_somebody_elses_session_does_not_help(identity: Identity) -> None:
    view, other = await identity.sign_up(), await identity.sign_up()
    session = await session_of(identity, other)
    now = identity.clock.now()
    access = identity.signer.issue("access", view.user.id, now=now, lifetime=ACCESS, claims={"sid": str(session.id)})
    renewal: dict[str, str | None] = {"sid": str(session.id), "jti": session.current_jti}
    token = identity.signer.issue("refresh", view.user.id, now=now, lifetime=REFRESH, claims=renewal)

    with pytest.raises(TokenRevoked):
        await identity.actor(access)
    with pytest.raises(RefreshUserGone):
        await refresh(identity, token)


async def test_a_lost_place_voids_the_token_and_refresh_leads_home(identity: Identity) -> None:
    view, mine, other = await member_of_two(identity)
    tokens = await switch(identity, view, other)
    lost = (Membership.user_id == view.user.id) & (Membership.tenant_id == other)

    await execute(identity, update(Membership).where(lost).values(role=Role.BUYER))
    assert (await identity.actor(tokens.access_token)).role is Role.BUYER, "a new role counts at once"

    await execute(identity, delete(Membership).where(lost))
    with pytest.raises(NoTenantAccess, match="You don't have access to this tenant"):
        await identity.actor(tokens.access_token)
    renewed = await refresh(identity, tokens)
    assert (await identity.actor(renewed.access_token)).tenant_id == mine


async def test_switching_moves_the_session_and_the_default(identity: Identity) -> None:
    view, mine, other = await member_of_two(identity)

    switched = await switch(identity, view, other)

    assert switched.tenant.id == other
    actor = await identity.actor(switched.access_token)
    assert (actor.tenant_id, actor.role) == (other, Role.ADMIN)
    defaults = await identity.rows(
        select(Membership.tenant_id).where(Membership.user_id == view.user.id, Membership.is_default)
    )
    assert defaults == [other]
    renewed = await refresh(identity, switched)
    assert (await identity.actor(renewed.access_token)).tenant_id == other, "a refresh keeps the tenant"
    again = await identity.login(view.user.email)
    assert (tenant_of(again), again.user.default_tenant_id) == (other, other)
    assert (await identity.actor(view)).tenant_id == mine, "an older token still speaks for its tenant"


async def test_refresh_keeps_the_sessions_tenant_when_another_device_switches(identity: Identity) -> None:
    view, mine, other = await member_of_two(identity)
    phone = await identity.login(view.user.email)
    await switch(identity, phone, other)

    renewed = await refresh(identity, view)

    assert (await identity.actor(renewed.access_token)).tenant_id == mine


async def test_nobody_switches_to_a_foreign_or_unknown_tenant(identity: Identity) -> None:
    view, stranger = await identity.sign_up(), await identity.sign_up()

    for tenant_id in (tenant_of(stranger), uuid4()):
        with pytest.raises(NoTenantAccess, match="You don't have access to this tenant"):
            await switch(identity, view, tenant_id)


async def test_switching_at_once_leaves_one_default(identity: Identity) -> None:
    view, mine, other = await member_of_two(identity)
    third = await identity.sign_up()
    await identity.invite(third, view.user.email)
    targets = [other, tenant_of(third), mine] * 2
    devices = [await identity.login(view.user.email) for _ in targets]

    outcomes = await asyncio.gather(
        *(switch(identity, device, target) for device, target in zip(devices, targets, strict=True)),
        return_exceptions=True,
    )

    assert all(isinstance(outcome, SwitchView) for outcome in outcomes), outcomes
    count = await identity.one(select(func.count()).where(Membership.user_id == view.user.id, Membership.is_default))
    assert count == 1


async def test_switching_does_not_revive_a_closed_session(identity: Identity) -> None:
    view = await identity.sign_up()
    actor = await identity.actor(view)
    async with identity.units(PLATFORM) as uow:
        await identity.auth.sessions.logout(uow, actor)

    with pytest.raises(TokenRevoked):
        async with identity.units(PLATFORM) as uow:
            await identity.auth.sessions.switch_tenant(uow, actor, tenant_id=tenant_of(view))


async def test_refusals_are_domain_errors_with_codes_of_the_contract() -> None:
    codes = {
        error.code
        for error in (LoginRefused, CredentialsRefused, TokenExpired, TokenRevoked, UserGone, UserInactive)
        if issubclass(error, DomainError)
    }
    assert codes == {"AUTH_ERROR", "TOKEN_EXPIRED", "TOKEN_REVOKED", "PERMISSION_DENIED"}
