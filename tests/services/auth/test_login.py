"""Signing in: what the tokens say, what a refusal gives away, and hashes of older times."""

import asyncio
from uuid import uuid4

import pytest
from passlib.hash import bcrypt
from sqlalchemy import delete, event, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from core.errors import DomainError
from models.tenants import Membership, Tenant
from models.users import User
from services.auth.errors import (
    AccountInactive,
    CredentialsRefused,
    LoginRefused,
    RefreshUserGone,
    TokenExpired,
    TokenRevoked,
    UserGone,
    UserHasNoTenants,
    UserInactive,
)
from tests.services.auth.support import execute, member_of_two, refresh
from tests.support.identity import ACCESS, PASSWORD, REFRESH, Identity, claims_of, tenant_of


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


async def test_a_crowd_that_signs_in_leaves_connections_to_others(identity: Identity, engine: AsyncEngine) -> None:
    view = await identity.sign_up()
    used: list[int] = []

    def count(*_: object) -> None:
        used.append(engine.sync_engine.pool.checkedout())  # type: ignore[attr-defined]

    event.listen(engine.sync_engine, "checkout", count)
    try:
        refused = await asyncio.gather(
            *(identity.login(view.user.email, "not the password") for _ in range(40)), return_exceptions=True
        )
    finally:
        event.remove(engine.sync_engine, "checkout", count)
    assert all(isinstance(answer, LoginRefused) for answer in refused)
    # Four who are looked up, and what else goes on here.
    assert max(used) < 10


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
    await execute(identity, delete(Tenant).where(Tenant.id == tenant_of(view)))

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


async def test_refusals_are_domain_errors_with_codes_of_the_contract() -> None:
    codes = {
        error.code
        for error in (LoginRefused, CredentialsRefused, TokenExpired, TokenRevoked, UserGone, UserInactive)
        if issubclass(error, DomainError)
    }
    assert codes == {"AUTH_ERROR", "TOKEN_EXPIRED", "TOKEN_REVOKED", "PERMISSION_DENIED"}
