"""Sessions: rotation of refresh tokens with reuse detection, signing out, and which access tokens are believed."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import jwt
import pytest
from sqlalchemy import delete, select

from models.tenants import Role, Tenant
from models.users import REFRESH_GRACE, User, UserSession
from services.auth.errors import (
    CredentialsRefused,
    RefreshExpired,
    RefreshRefused,
    RefreshRevoked,
    RefreshUserGone,
    TokenExpired,
    TokenRevoked,
    UserGone,
)
from tests.services.auth.support import execute, refresh, session_of
from tests.support.identity import ACCESS, PLATFORM, REFRESH, SECRET, Identity, claims_of, tenant_of

MOMENT = timedelta(seconds=1)


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
    # Somebody who owns a tenant alone cannot be deleted before it.
    await execute(identity, delete(Tenant).where(Tenant.id == tenant_of(view)))
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


async def test_fifty_refreshes_of_one_token_at_once_keep_the_session(identity: Identity) -> None:
    view = await identity.sign_up()

    tokens = await asyncio.gather(*(refresh(identity, view) for _ in range(50)))

    assert len({token.refresh_token for token in tokens}) == 50
    session = await session_of(identity, view)
    assert session.revoked_at is None
    newest = [token for token in tokens if claims_of(token.refresh_token)["jti"] == session.current_jti]
    assert len(newest) == 1
    await refresh(identity, newest[0])


async def test_one_stale_token_among_fifty_refreshes_ends_the_session(identity: Identity) -> None:
    view = await identity.sign_up()
    second = await refresh(identity, view)
    identity.clock.offset = REFRESH_GRACE + MOMENT

    outcomes = await asyncio.gather(
        *(refresh(identity, second) for _ in range(49)), refresh(identity, view), return_exceptions=True
    )

    assert isinstance(outcomes[-1], RefreshRevoked)
    assert (await session_of(identity, view)).revoked_reason == "reuse"
    good = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert all(isinstance(outcome, RefreshRevoked) for outcome in outcomes if isinstance(outcome, BaseException))
    for tokens in good:
        with pytest.raises(RefreshRevoked):
            await refresh(identity, tokens)


async def test_the_owner_is_told_of_a_reused_token_once(identity: Identity) -> None:
    view = await identity.sign_up(locale="ru")
    await refresh(identity, view)
    identity.clock.offset = REFRESH_GRACE + MOMENT

    await asyncio.gather(*(refresh(identity, view) for _ in range(10)), return_exceptions=True)

    letters = [letter.subject for letter in await identity.letters(view.user.email)]
    assert letters == ["Вход в вашу учётную запись завершён"]


@pytest.mark.parametrize("behind", [timedelta(seconds=5), timedelta(minutes=2)], ids=str)
async def test_an_instance_whose_clock_is_behind_believes_what_another_has_just_issued(
    identity: Identity, behind: timedelta
) -> None:
    view = await identity.sign_up()
    identity.clock.offset = -behind

    assert (await identity.actor(view)).user_id == view.user.id
    tokens = await refresh(identity, view)
    assert (await identity.actor(tokens.access_token)).user_id == view.user.id


async def test_an_instance_whose_clock_is_far_ahead_says_that_a_token_has_expired(identity: Identity) -> None:
    view = await identity.sign_up()
    identity.clock.offset = ACCESS + MOMENT

    with pytest.raises(TokenExpired):
        await identity.actor(view)
