"""Addresses of accounts: nobody's until they are confirmed, by a letter that works once, and told where they change."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from core.errors import InvalidInput
from models.audit import AuditEntry
from models.users import OneTimeToken, User
from services.auth.addresses import LIFETIME, PasswordPresent
from services.auth.errors import EmailTaken, EmailTokenInvalid, LastWayIn, ResetTokenInvalid
from services.auth.registration import Newcomer
from services.auth.views import SessionView
from services.events import AccountChanged
from services.identity import Principal
from services.step_up import RECENT, StepUpRequired
from services.tenants.members import lock_user
from services.verification import EmailUnverified, Verification, require_proven
from tests.services.auth.support import execute
from tests.support.identity import DEVICE, PASSWORD, PLATFORM, Identity, token_in


def new_address() -> str:
    return f"somebody-{uuid4().hex[:12]}@example.org"


async def user_of(identity: Identity, view: SessionView) -> User:
    user: User = await identity.one(select(User).where(User.id == view.user.id))
    return user


async def welcome_token(identity: Identity, email: str) -> str:
    return token_in((await identity.letters(email, welcome=True))[-1].body)


async def confirm(identity: Identity, token: str) -> None:
    async with identity.units(PLATFORM) as uow:
        await identity.auth.addresses.confirm(uow, token=token)


async def resend(identity: Identity, email: str) -> None:
    async with identity.units(PLATFORM) as uow:
        await identity.auth.addresses.resend(uow, email=email)


async def change(identity: Identity, actor: Principal, email: str, password: str | None = None) -> None:
    await identity.auth.addresses.change(actor, email=email, password=password)


async def audited(identity: Identity, user_id: UUID) -> list[str]:
    return await identity.rows(
        select(AuditEntry.action).where(AuditEntry.subject_id == str(user_id)).order_by(AuditEntry.id)
    )


class TestConfirming:
    async def test_the_letters_token_confirms_the_address(self, identity: Identity) -> None:
        view = await identity.sign_up(locale="ru")
        assert not view.user.email_verified
        (letter,) = await identity.letters(view.user.email, welcome=True)
        assert letter.subject == "Подтвердите адрес электронной почты"
        assert f"http://localhost/verify-email?token={token_in(letter.body)}" in letter.body

        await confirm(identity, token_in(letter.body))

        assert (await identity.login(view.user.email)).user.email_verified
        assert "email.verified" in await audited(identity, view.user.id)
        changes = [event.payload["change"] for event in identity.ears.events if event.name == AccountChanged.event]
        assert changes == ["email_verified"]

    async def test_of_many_at_once_one_uses_the_token(self, identity: Identity) -> None:
        view = await identity.sign_up()
        token = await welcome_token(identity, view.user.email)

        outcomes = await asyncio.gather(*(confirm(identity, token) for _ in range(8)), return_exceptions=True)

        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, EmailTokenInvalid) for outcome in outcomes) == 7
        with pytest.raises(EmailTokenInvalid, match="Invalid or expired confirmation token"):
            await confirm(identity, token)

    async def test_it_and_who_refers_to_the_user_do_not_wait_for_each_other(self, identity: Identity) -> None:
        view = await identity.sign_up()
        token = await welcome_token(identity, view.user.email)
        async with identity.units(PLATFORM) as uow:
            # What a foreign key takes when a row that refers to the user is written.
            await uow.session.execute(
                select(User.id).where(User.id == view.user.id).with_for_update(read=True, key_share=True)
            )
            confirming = asyncio.create_task(confirm(identity, token))
            await asyncio.sleep(0.3)
            await lock_user(uow, view.user.id)

        await confirming
        assert (await user_of(identity, view)).email_verified_at is not None

    async def test_it_is_good_for_three_days_and_kept_as_a_hash(self, identity: Identity) -> None:
        view = await identity.sign_up()
        token = await welcome_token(identity, view.user.email)
        stored = await identity.one(select(OneTimeToken).where(OneTimeToken.user_id == view.user.id))
        assert token not in repr(vars(stored))

        identity.clock.offset = LIFETIME + timedelta(seconds=1)
        with pytest.raises(EmailTokenInvalid):
            await confirm(identity, token)
        assert not (await identity.login(view.user.email)).user.email_verified

    @pytest.mark.parametrize("token", ["", "x" * 43, "żółw"])
    async def test_what_is_no_token_is_refused(self, identity: Identity, token: str) -> None:
        with pytest.raises(EmailTokenInvalid):
            await confirm(identity, token)

    async def test_a_token_for_a_password_confirms_nothing_and_the_other_way_round(self, identity: Identity) -> None:
        view = await identity.sign_up()
        welcome = await welcome_token(identity, view.user.email)
        async with identity.units(PLATFORM) as uow:
            await identity.auth.passwords.forgot(uow, email=view.user.email)
        reset = token_in((await identity.letters(view.user.email))[-1].body)

        with pytest.raises(EmailTokenInvalid):
            await confirm(identity, reset)
        with pytest.raises(ResetTokenInvalid):
            await identity.auth.passwords.reset(token=welcome, new_password="another password")

    async def test_whoever_resets_a_password_by_letter_has_confirmed_the_address(self, identity: Identity) -> None:
        view = await identity.sign_up()
        async with identity.units(PLATFORM) as uow:
            await identity.auth.passwords.forgot(uow, email=view.user.email)
        token = token_in((await identity.letters(view.user.email))[-1].body)

        await identity.auth.passwords.reset(token=token, new_password="another password")

        assert (await identity.login(view.user.email, "another password")).user.email_verified

    async def test_an_invitation_that_is_accepted_confirms_the_address(self, identity: Identity) -> None:
        host, email = await identity.sign_up(), new_address()
        await identity.invite(host, email)
        token = token_in((await identity.letters(email))[-1].body)
        guest = Newcomer(full_name="Guest", password=PASSWORD, locale="en")

        joined = await identity.auth.registration.accept_invitation(token=token, guest=guest, device=DEVICE)

        assert joined.user.email_verified
        assert len(await identity.letters(email, welcome=True)) == 1, "the invitation, and no letter besides"


class TestAskingAgain:
    async def test_one_letter_a_minute_until_it_is_confirmed(self, identity: Identity) -> None:
        view = await identity.sign_up()
        email = view.user.email

        await resend(identity, email)
        assert len(await identity.letters(email, welcome=True)) == 1, "the first is a moment old"
        identity.clock.offset = timedelta(seconds=61)
        await asyncio.gather(resend(identity, email), resend(identity, email.upper()))
        letters = await identity.letters(email, welcome=True)
        assert 2 <= len(letters) <= 3
        await confirm(identity, token_in(letters[-1].body))
        identity.clock.offset = timedelta(minutes=5)
        await resend(identity, email)
        assert len(await identity.letters(email, welcome=True)) == len(letters)

    async def test_nobody_hears_of_an_unknown_or_inactive_address(self, identity: Identity) -> None:
        view = await identity.sign_up()
        async with identity.units(PLATFORM) as uow:
            (await uow.session.get_one(User, view.user.id)).is_active = False
        identity.clock.offset = timedelta(minutes=2)
        nobody = new_address()

        await resend(identity, nobody)
        await resend(identity, view.user.email)

        assert await identity.letters(nobody, welcome=True) == []
        assert len(await identity.letters(view.user.email, welcome=True)) == 1


class TestChanging:
    async def test_the_new_address_counts_once_it_is_confirmed_and_the_old_one_is_told(
        self, identity: Identity
    ) -> None:
        view, new = await identity.sign_up(), new_address()
        actor = await identity.actor(view)

        await change(identity, actor, new)
        assert (await user_of(identity, view)).email == view.user.email
        await confirm(identity, token_in((await identity.letters(new))[-1].body))

        user = await user_of(identity, view)
        assert (user.email, user.email_verified_at is not None) == (new, True)
        assert [letter.subject for letter in await identity.letters(view.user.email)] == [
            "The address of your account was changed"
        ]
        assert new not in (await identity.letters(view.user.email))[0].body, "which may be a stranger's"
        assert (await identity.login(new)).user.id == view.user.id
        assert "user.email_changed" in await audited(identity, view.user.id)

    async def test_letters_to_the_former_address_are_void(self, identity: Identity) -> None:
        view, new = await identity.sign_up(), new_address()
        welcome = await welcome_token(identity, view.user.email)
        async with identity.units(PLATFORM) as uow:
            await identity.auth.passwords.forgot(uow, email=view.user.email)
        reset = token_in((await identity.letters(view.user.email))[-1].body)
        await change(identity, await identity.actor(view), new)
        await confirm(identity, token_in((await identity.letters(new))[-1].body))

        with pytest.raises(ResetTokenInvalid):
            await identity.auth.passwords.reset(token=reset, new_password="another password")
        with pytest.raises(EmailTokenInvalid):
            await confirm(identity, welcome)

    async def test_a_new_password_voids_a_change_that_waits(self, identity: Identity) -> None:
        """Whoever was in the account must not take it over after its owner is back."""
        view, new = await identity.sign_up(), new_address()
        await change(identity, await identity.actor(view), new)
        token = token_in((await identity.letters(new))[-1].body)

        await identity.auth.passwords.change(
            await identity.actor(view), current=PASSWORD, new="another password", trace=None
        )

        with pytest.raises(EmailTokenInvalid):
            await confirm(identity, token)

    async def test_an_address_that_somebody_has_is_not_told_but_its_owner_is(self, identity: Identity) -> None:
        view, other = await identity.sign_up(), await identity.sign_up()

        await change(identity, await identity.actor(view), other.user.email.upper())

        (letter,) = await identity.letters(other.user.email)
        assert letter.subject == "This address has an account already"
        assert "token" not in letter.body

    async def test_of_two_who_want_one_address_one_gets_it(self, identity: Identity) -> None:
        new = new_address()
        views = [await identity.sign_up() for _ in range(2)]
        for view in views:
            await change(identity, await identity.actor(view), new)
        tokens = [token_in(letter.body) for letter in await identity.letters(new)]

        outcomes = await asyncio.gather(*(confirm(identity, token) for token in tokens), return_exceptions=True)

        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, EmailTaken) for outcome in outcomes) == 1
        assert len(await identity.rows(select(User.id).where(User.email == new))) == 1

    async def test_an_address_gets_one_letter_a_minute(self, identity: Identity) -> None:
        view, new = await identity.sign_up(), new_address()
        actor = await identity.actor(view)
        await change(identity, actor, new)
        identity.clock.offset = timedelta(seconds=50)
        await change(identity, actor, new)
        assert len(await identity.letters(new)) == 1
        identity.clock.offset = timedelta(seconds=61)
        await change(identity, actor, new)

        first, second = [token_in(letter.body) for letter in await identity.letters(new)]
        with pytest.raises(EmailTokenInvalid):
            await confirm(identity, first)
        await confirm(identity, second)
        assert (await user_of(identity, view)).email == new

    async def test_a_slip_is_put_right_at_once(self, identity: Identity) -> None:
        """Whoever owns the address that was typed by mistake must not get the account."""
        view, first, second = await identity.sign_up(), new_address(), new_address()
        actor = await identity.actor(view)
        await change(identity, actor, first)
        await change(identity, actor, second)

        with pytest.raises(EmailTokenInvalid):
            await confirm(identity, token_in((await identity.letters(first))[-1].body))
        await confirm(identity, token_in((await identity.letters(second))[-1].body))
        assert (await user_of(identity, view)).email == second

    async def test_who_has_not_just_proved_who_they_are_may_not(self, identity: Identity) -> None:
        view = await identity.sign_up()
        actor = await identity.actor(view)
        identity.clock.offset = RECENT + timedelta(seconds=1)

        with pytest.raises(StepUpRequired):
            await change(identity, actor, new_address())
        with pytest.raises(StepUpRequired):
            async with identity.units(PLATFORM) as uow:
                await identity.auth.addresses.remove(uow, actor)

    async def test_a_password_is_asked_of_whoever_has_none_alone(self, identity: Identity) -> None:
        view = await identity.sign_up()
        actor = await identity.actor(view)

        with pytest.raises(PasswordPresent):
            await change(identity, actor, new_address(), "another password")
        await execute(identity, update(User).where(User.id == view.user.id).values(hashed_password=None))
        with pytest.raises(InvalidInput):
            await change(identity, actor, new_address())

    async def test_a_first_password_is_told_and_audited(self, identity: Identity) -> None:
        view = await identity.sign_up()
        actor = await identity.actor(view)
        await execute(identity, update(User).where(User.id == view.user.id).values(hashed_password=None))
        identity.ears.events.clear()

        await change(identity, actor, new_address(), "another password")

        assert "password.set" in await audited(identity, view.user.id)
        subjects = [letter.subject for letter in await identity.letters(view.user.email)]
        assert subjects == ["Your account has a password"]
        events = [event for event in identity.ears.events if event.tenant_id == actor.tenant_id]
        assert [event.payload["change"] for event in events if event.name == AccountChanged.event] == [
            "password_changed"
        ]
        assert [event.payload["title"] for event in events if event.name == "notification:new"] == [
            "Your account has a password"
        ]

    async def test_the_only_address_stays(self, identity: Identity) -> None:
        view = await identity.sign_up()
        async with identity.units(PLATFORM) as uow:
            with pytest.raises(LastWayIn):
                await identity.auth.addresses.remove(uow, await identity.actor(view))


class TestInsisting:
    """REQUIRE_VERIFIED_EMAIL: what the platform may ask of an address before it lets people do things."""

    async def test_only_a_proven_account_passes(self, identity: Identity) -> None:
        view = await identity.sign_up()
        actor = await identity.actor(view)
        async with identity.units(PLATFORM) as uow:
            await Verification(required=False).require(uow, actor)
            with pytest.raises(EmailUnverified):
                await Verification(required=True).require(uow, actor)

        await confirm(identity, await welcome_token(identity, view.user.email))

        async with identity.units(PLATFORM) as uow:
            await Verification(required=True).require(uow, actor)
            await require_proven(uow, actor)
