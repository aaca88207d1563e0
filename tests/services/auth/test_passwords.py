"""Forgotten passwords: a token that works once, tells nobody anything, and ends every session."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import ColumnElement, func, select, update

from models.users import OneTimeToken, TokenPurpose, User, UserSession
from services.auth.errors import LoginRefused, RefreshRevoked, ResetTokenInvalid, TokenRevoked
from tests.support.identity import PLATFORM, Identity, token_in

NEW = "a new password"


async def forgot(identity: Identity, email: str) -> None:
    async with identity.units(PLATFORM) as uow:
        await identity.auth.passwords.forgot(uow, email=email)


async def reset(identity: Identity, token: str, password: str = NEW) -> None:
    await identity.auth.passwords.reset(token=token, new_password=password)


def resets_of(user_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return OneTimeToken.user_id == user_id, OneTimeToken.purpose == TokenPurpose.PASSWORD_RESET


async def token_for(identity: Identity, email: str) -> str:
    """Ask for a letter and return the token in the newest one."""
    await forgot(identity, email)
    return token_in((await identity.letters(email))[-1].body)


async def test_the_letters_token_sets_a_password_and_ends_every_session(identity: Identity) -> None:
    view = await identity.sign_up()
    phone = await identity.login(view.user.email)
    token = await token_for(identity, view.user.email.upper())

    await reset(identity, token)

    with pytest.raises(LoginRefused):
        await identity.login(view.user.email)
    assert (await identity.login(view.user.email, NEW)).user.id == view.user.id
    for session in (view, phone):
        with pytest.raises(TokenRevoked):
            await identity.actor(session)
        with pytest.raises(RefreshRevoked):
            await identity.auth.sessions.refresh(refresh_token=session.refresh_token)
    reasons = await identity.rows(
        select(UserSession.revoked_reason).where(
            UserSession.user_id == view.user.id, UserSession.revoked_at.is_not(None)
        )
    )
    assert reasons == ["password_reset", "password_reset"]
    assert [letter.subject for letter in await identity.letters(view.user.email)] == [
        "Reset your password",
        "Your password was changed",
    ]


async def test_a_token_works_once(identity: Identity) -> None:
    view = await identity.sign_up()
    token = await token_for(identity, view.user.email)

    outcomes = await asyncio.gather(
        *(reset(identity, token, f"password {number}") for number in range(4)), return_exceptions=True
    )

    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ResetTokenInvalid) for outcome in outcomes) == 3
    with pytest.raises(ResetTokenInvalid):
        await reset(identity, token)


async def test_of_two_letters_used_at_once_one_wins(identity: Identity) -> None:
    view = await identity.sign_up()
    first = await token_for(identity, view.user.email)
    identity.clock.offset = timedelta(minutes=2)
    second = await token_for(identity, view.user.email)
    assert first != second

    outcomes = await asyncio.gather(
        reset(identity, first, "first password"), reset(identity, second, "second password"), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes if outcome is not None] == [ResetTokenInvalid]


async def test_a_token_is_good_for_an_hour(identity: Identity) -> None:
    view = await identity.sign_up()
    token = await token_for(identity, view.user.email)

    identity.clock.offset = timedelta(hours=1, seconds=1)
    with pytest.raises(ResetTokenInvalid, match="Invalid or expired reset token"):
        await reset(identity, token)
    await identity.login(view.user.email)


async def test_a_bad_token_is_refused(identity: Identity) -> None:
    for token in ("", "x" * 43, "żółw"):
        with pytest.raises(ResetTokenInvalid):
            await reset(identity, token)


async def test_only_a_hash_of_the_token_is_stored(identity: Identity) -> None:
    view = await identity.sign_up()
    token = await token_for(identity, view.user.email)

    stored = await identity.one(select(OneTimeToken).where(*resets_of(view.user.id)))
    assert token not in repr(vars(stored))
    assert len(stored.token_hash) == 64


async def test_nobody_hears_of_an_unknown_or_inactive_address(identity: Identity) -> None:
    view = await identity.sign_up()
    await forgot(identity, view.user.email)
    token = token_in((await identity.letters(view.user.email))[0].body)
    async with identity.units(PLATFORM) as uow:
        await uow.session.execute(update(User).where(User.id == view.user.id).values(is_active=False))
    nobody = f"nobody-{uuid4().hex}@example.org"

    identity.clock.offset = timedelta(minutes=2)
    await forgot(identity, view.user.email)
    await forgot(identity, nobody)

    assert len(await identity.letters(view.user.email)) == 1
    assert await identity.letters(nobody) == []
    with pytest.raises(ResetTokenInvalid):
        await reset(identity, token)


async def test_asking_again_and_again_sends_one_letter_a_minute(identity: Identity) -> None:
    view = await identity.sign_up()

    for _ in range(3):
        await forgot(identity, view.user.email)
    assert len(await identity.letters(view.user.email)) == 1

    identity.clock.offset = timedelta(seconds=61)
    await forgot(identity, view.user.email)
    assert len(await identity.letters(view.user.email)) == 2
    count = await identity.one(select(func.count()).where(*resets_of(view.user.id)))
    assert count == 2


async def test_a_crowd_that_asks_at_once_sends_one_letter(identity: Identity) -> None:
    view = await identity.sign_up()

    await asyncio.gather(*(forgot(identity, view.user.email) for _ in range(10)))

    assert len(await identity.letters(view.user.email)) == 1


async def test_the_letter_speaks_the_users_language(identity: Identity) -> None:
    view = await identity.sign_up(locale="ru")

    await forgot(identity, view.user.email)

    letter = (await identity.letters(view.user.email))[0]
    assert letter.subject == "Восстановление пароля"
    assert view.user.full_name in letter.body
    assert f"http://localhost/reset-password?token={token_in(letter.body)}" in letter.body
    assert ("mail.send", letter.id) in [(task.name, task.row_id) for task in identity.ears.tasks]
