"""The second factor: what switches it on and off, whom it lets in, and that each code works once, whoever races."""

import asyncio
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from sqlalchemy import func, select, update

from core.errors import InvalidInput, RateLimited
from core.otp import CodeHasher
from core.sealing import Sealer
from models.audit import AuditEntry
from models.second_factors import FAILURES_KEPT, MAX_ATTEMPTS, MAX_FAILURES, RecoveryCode, SecondFactor, SignInChallenge
from models.users import User
from services.auth.challenges import LIFETIME
from services.auth.errors import (
    ChallengeRefused,
    CredentialsRefused,
    RefreshRefused,
    SecondFactorAbsent,
    SecondFactorPresent,
    TokenRevoked,
    WrongCode,
    WrongPassword,
)
from services.auth.second_factor import SecondFactors
from services.auth.views import SessionView
from services.step_up import RECENT, StepUpRequired, require_recent_authentication
from tests.services.auth.second_factors import Enrolled, answer, challenge, enrolled
from tests.services.auth.support import execute
from tests.support.identity import DEVICE, PASSWORD, PLATFORM, Identity


async def audited(identity: Identity, person: Enrolled) -> list[str]:
    return await identity.rows(
        select(AuditEntry.action)
        .where(AuditEntry.subject_id == str(person.actor.user_id), AuditEntry.subject_type == "user")
        .order_by(AuditEntry.id)
    )


async def codes_left(identity: Identity, person: Enrolled) -> int:
    async with identity.units(PLATFORM) as uow:
        return (await identity.auth.second_factors.show(uow, person.actor)).recovery_codes_left


class TestSettingUp:
    async def test_it_counts_once_a_code_has_come_back(self, identity: Identity) -> None:
        view = await identity.sign_up()
        actor = await identity.actor(view)
        async with identity.units(PLATFORM) as uow:
            enrolment = await identity.auth.second_factors.enrol(uow, actor)
            shown = await identity.auth.second_factors.show(uow, actor)
        assert (shown.enabled, shown.confirmed_at, shown.recovery_codes_left) == (False, None, 0)
        await identity.login(view.user.email)

        with pytest.raises(WrongCode):
            await identity.auth.second_factors.confirm(actor, code="000000")
        code = pyotp.TOTP(enrolment.secret).at(identity.clock.now())
        codes = await identity.auth.second_factors.confirm(actor, code=code)

        assert len(set(codes.recovery_codes)) == 10
        async with identity.units(PLATFORM) as uow:
            shown = await identity.auth.second_factors.show(uow, actor)
        assert (shown.enabled, shown.recovery_codes_left) == (True, 10)

    async def test_the_app_gets_the_secret_as_text_address_and_picture(self, identity: Identity) -> None:
        view = await identity.sign_up()
        async with identity.units(PLATFORM) as uow:
            enrolment = await identity.auth.second_factors.enrol(uow, await identity.actor(view))

        address = urlsplit(enrolment.provisioning_uri)
        assert (address.scheme, address.netloc) == ("otpauth", "totp")
        assert parse_qs(address.query)["secret"] == [enrolment.secret]
        assert parse_qs(address.query)["issuer"] == ["ERPMax"]
        assert (enrolment.qr_svg[:5], enrolment.qr_svg.strip()[-6:]) == ("<svg ", "</svg>")

    async def test_the_secret_is_encrypted_and_codes_are_hashed(self, identity: Identity) -> None:
        person = await enrolled(identity)
        factor = await identity.one(select(SecondFactor).where(SecondFactor.user_id == person.actor.user_id))
        digests = await identity.rows(select(RecoveryCode.digest).where(RecoveryCode.user_id == person.actor.user_id))

        assert person.secret not in factor.secret
        assert not set(person.recovery_codes) & set(digests)

    async def test_every_other_session_ends_and_the_owner_is_told(self, identity: Identity) -> None:
        view = await identity.sign_up()
        phone = await identity.login(view.user.email)
        actor = await identity.actor(view)
        async with identity.units(PLATFORM) as uow:
            secret = (await identity.auth.second_factors.enrol(uow, actor)).secret
        await identity.auth.second_factors.confirm(actor, code=pyotp.TOTP(secret).at(identity.clock.now()))

        assert (await identity.actor(view)).user_id == view.user.id
        with pytest.raises(TokenRevoked):
            await identity.actor(phone)
        assert "Two-factor authentication is on" in [mail.subject for mail in await identity.letters(view.user.email)]

    async def test_a_second_one_is_refused(self, identity: Identity) -> None:
        person = await enrolled(identity)
        async with identity.units(PLATFORM) as uow:
            with pytest.raises(SecondFactorPresent):
                await identity.auth.second_factors.enrol(uow, person.actor)
        with pytest.raises(SecondFactorPresent):
            await identity.auth.second_factors.confirm(person.actor, code=person.code(identity))

    async def test_a_secret_that_was_not_confirmed_is_replaced(self, identity: Identity) -> None:
        actor = await identity.actor(await identity.sign_up())
        secrets = []
        for _ in range(2):
            async with identity.units(PLATFORM) as uow:
                secrets.append((await identity.auth.second_factors.enrol(uow, actor)).secret)

        with pytest.raises(WrongCode):
            await identity.auth.second_factors.confirm(actor, code=pyotp.TOTP(secrets[0]).at(identity.clock.now()))
        await identity.auth.second_factors.confirm(actor, code=pyotp.TOTP(secrets[1]).at(identity.clock.now()))

    async def test_without_having_begun_there_is_nothing_to_confirm(self, identity: Identity) -> None:
        actor = await identity.actor(await identity.sign_up())
        with pytest.raises(SecondFactorAbsent):
            await identity.auth.second_factors.confirm(actor, code="123456")
        async with identity.units(PLATFORM) as uow:
            for deed in (identity.auth.second_factors.disable, identity.auth.second_factors.renew_codes):
                with pytest.raises(SecondFactorAbsent):
                    await deed(uow, actor)


class TestSigningIn:
    async def test_a_code_of_the_app_finishes_it(self, identity: Identity) -> None:
        person = await enrolled(identity)
        asked = await challenge(identity, person)

        assert (asked.status, asked.expires_in, asked.methods) == ("2fa_required", 300, ("totp", "recovery_code"))
        view = await answer(identity, asked, person.code(identity))

        assert (await identity.actor(view)).user_id == person.actor.user_id
        with pytest.raises(ChallengeRefused):
            await answer(identity, asked, person.code(identity, step=1))

    async def test_a_wrong_password_asks_for_no_code(self, identity: Identity) -> None:
        person = await enrolled(identity)
        with pytest.raises(Exception, match="Invalid email or password"):
            await challenge(identity, person, "wrong password")

    async def test_the_token_of_a_challenge_opens_nothing_else(self, identity: Identity) -> None:
        token = (await challenge(identity, await enrolled(identity))).challenge_token
        with pytest.raises(CredentialsRefused):
            await identity.actor(token)
        with pytest.raises(RefreshRefused):
            await identity.auth.sessions.refresh(refresh_token=token)

    async def test_other_tokens_answer_no_challenge(self, identity: Identity) -> None:
        person = await enrolled(identity)
        for token in ("", "x", "\udcff", person.view.access_token, person.view.refresh_token):
            with pytest.raises(ChallengeRefused):
                await identity.auth.challenges.answer(challenge_token=token, code="123456", device=DEVICE)

    async def test_it_has_to_be_answered_soon(self, identity: Identity) -> None:
        person = await enrolled(identity)
        asked = await challenge(identity, person)
        identity.clock.offset += LIFETIME
        with pytest.raises(ChallengeRefused):
            await answer(identity, asked, person.code(identity))

    async def test_a_code_was_good_for_one_sign_in(self, identity: Identity) -> None:
        """RFC 6238, 5.2: whoever looks over a shoulder comes too late."""
        person = await enrolled(identity)
        code = person.code(identity)
        await answer(identity, await challenge(identity, person), code)
        with pytest.raises(WrongCode):
            await answer(identity, await challenge(identity, person), code)

    async def test_a_recovery_code_takes_its_place_once(self, identity: Identity) -> None:
        person = await enrolled(identity)
        code = person.recovery_codes[3]
        await answer(identity, await challenge(identity, person), code.upper().replace("-", " "))

        with pytest.raises(WrongCode):
            await answer(identity, await challenge(identity, person), code)
        assert await codes_left(identity, person) == 9
        letter = (await identity.letters(person.view.user.email))[-1]
        assert "Codes left: 9" in letter.body

    async def test_somebody_elses_codes_do_not_help(self, identity: Identity) -> None:
        person, other = await enrolled(identity), await enrolled(identity)
        for code in (other.recovery_codes[0], other.code(identity)):
            with pytest.raises(WrongCode):
                await answer(identity, await challenge(identity, person), code)

    async def test_a_new_password_voids_sign_ins_that_wait(self, identity: Identity) -> None:
        person = await enrolled(identity)
        asked = await challenge(identity, person)
        await identity.auth.passwords.change(person.actor, current=PASSWORD, new="another password")
        with pytest.raises(ChallengeRefused):
            await answer(identity, asked, person.code(identity))

    async def test_who_was_switched_off_meanwhile_stays_out(self, identity: Identity) -> None:
        person = await enrolled(identity)
        asked = await challenge(identity, person)
        await execute(identity, update(User).where(User.id == person.actor.user_id).values(is_active=False))
        with pytest.raises(ChallengeRefused):
            await answer(identity, asked, person.code(identity))

    async def test_challenges_that_nobody_answered_are_cleared_away(self, identity: Identity) -> None:
        person = await enrolled(identity)
        for _ in range(3):
            await challenge(identity, person)
        identity.clock.offset += LIFETIME
        await challenge(identity, person)
        mine = SignInChallenge.user_id == person.actor.user_id
        assert await identity.rows(select(func.count()).select_from(SignInChallenge).where(mine)) == [1]


class TestRaces:
    async def test_a_recovery_code_shown_twenty_times_at_once_works_once(self, identity: Identity) -> None:
        person = await enrolled(identity)
        code = person.recovery_codes[0]
        asked = [await challenge(identity, person) for _ in range(20)]

        outcomes = await asyncio.gather(*(answer(identity, one, code) for one in asked), return_exceptions=True)

        assert sum(isinstance(outcome, SessionView) for outcome in outcomes) == 1
        assert all(isinstance(outcome, SessionView | WrongCode | RateLimited) for outcome in outcomes)
        assert await codes_left(identity, person) == 9

    async def test_a_code_of_the_app_shown_ten_times_at_once_works_once(self, identity: Identity) -> None:
        person = await enrolled(identity)
        code = person.code(identity)
        asked = [await challenge(identity, person) for _ in range(10)]

        outcomes = await asyncio.gather(*(answer(identity, one, code) for one in asked), return_exceptions=True)

        assert sum(isinstance(outcome, SessionView) for outcome in outcomes) == 1

    async def test_one_challenge_opens_one_session(self, identity: Identity) -> None:
        person = await enrolled(identity)
        asked = await challenge(identity, person)
        codes = [*person.recovery_codes[:4], person.code(identity)]

        outcomes = await asyncio.gather(*(answer(identity, asked, code) for code in codes), return_exceptions=True)

        assert sum(isinstance(outcome, SessionView) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, ChallengeRefused) for outcome in outcomes) == 4
        assert await codes_left(identity, person) >= 9, "who comes too late loses no code"

    async def test_of_fifty_wrong_codes_at_once_five_are_looked_at(self, identity: Identity) -> None:
        person = await enrolled(identity)
        asked = await challenge(identity, person)

        outcomes = await asyncio.gather(
            *(answer(identity, asked, f"{number:06}") for number in range(50)), return_exceptions=True
        )

        assert sum(isinstance(outcome, WrongCode) for outcome in outcomes) == MAX_ATTEMPTS
        assert sum(isinstance(outcome, ChallengeRefused) for outcome in outcomes) == 50 - MAX_ATTEMPTS
        assert (await audited(identity, person)).count("second_factor.refused") == MAX_ATTEMPTS
        with pytest.raises(ChallengeRefused):
            await answer(identity, asked, person.code(identity))

    async def test_many_sign_ins_give_no_more_guesses(self, identity: Identity) -> None:
        person = await enrolled(identity)
        asked = [await challenge(identity, person) for _ in range(10)]

        outcomes = await asyncio.gather(
            *(answer(identity, one, f"{number:06}") for number in range(4) for one in asked), return_exceptions=True
        )

        assert sum(isinstance(outcome, WrongCode) for outcome in outcomes) == MAX_FAILURES
        limited = [outcome for outcome in outcomes if isinstance(outcome, RateLimited)]
        assert len(limited) == 40 - MAX_FAILURES
        assert {outcome.retry_after_s for outcome in limited} <= set(range(880, 902))
        with pytest.raises(RateLimited):
            await answer(identity, await challenge(identity, person), person.code(identity))
        identity.clock.offset += FAILURES_KEPT
        await answer(identity, await challenge(identity, person), person.code(identity))


class TestStepUp:
    async def test_signing_in_counts_for_a_while(self, identity: Identity) -> None:
        actor = await identity.actor(await identity.sign_up())
        async with identity.units(PLATFORM) as uow:
            await require_recent_authentication(uow, actor)

        identity.clock.offset += RECENT + timedelta(seconds=1)

        async with identity.units(PLATFORM) as uow:
            with pytest.raises(StepUpRequired):
                await require_recent_authentication(uow, actor)
            with pytest.raises(StepUpRequired):
                await identity.auth.second_factors.enrol(uow, actor)
        with pytest.raises(WrongPassword):
            await identity.auth.challenges.step_up(actor, password="wrong", code=None)
        with pytest.raises(InvalidInput):
            await identity.auth.challenges.step_up(actor, password=None, code="123456")
        await identity.auth.challenges.step_up(actor, password=PASSWORD, code=None)
        async with identity.units(PLATFORM) as uow:
            await require_recent_authentication(uow, actor)

    async def test_who_has_a_second_factor_shows_it(self, identity: Identity) -> None:
        person = await enrolled(identity)
        identity.clock.offset += RECENT

        async with identity.units(PLATFORM) as uow:
            for deed in (identity.auth.second_factors.disable, identity.auth.second_factors.renew_codes):
                with pytest.raises(StepUpRequired):
                    await deed(uow, person.actor)
        with pytest.raises(InvalidInput):
            await identity.auth.challenges.step_up(person.actor, password=PASSWORD, code=None)
        with pytest.raises(WrongCode):
            await identity.auth.challenges.step_up(person.actor, password=PASSWORD, code="000000")
        await identity.auth.challenges.step_up(person.actor, password=None, code=person.code(identity))

        async with identity.units(PLATFORM) as uow:
            renewed = await identity.auth.second_factors.renew_codes(uow, person.actor)
        assert not set(renewed.recovery_codes) & set(person.recovery_codes)
        assert await codes_left(identity, person) == 10
        with pytest.raises(WrongCode):
            await answer(identity, await challenge(identity, person), person.recovery_codes[0])

    async def test_another_session_is_not_stepped_up(self, identity: Identity) -> None:
        view = await identity.sign_up()
        other = await identity.actor(await identity.login(view.user.email))
        identity.clock.offset += RECENT + timedelta(seconds=1)
        await identity.auth.challenges.step_up(await identity.actor(view), password=PASSWORD, code=None)
        async with identity.units(PLATFORM) as uow:
            with pytest.raises(StepUpRequired):
                await require_recent_authentication(uow, other)

    async def test_switched_off_it_is_asked_for_no_more(self, identity: Identity) -> None:
        person = await enrolled(identity)
        phone = await answer(identity, await challenge(identity, person), person.code(identity))

        async with identity.units(PLATFORM) as uow:
            await identity.auth.second_factors.disable(uow, person.actor)

        with pytest.raises(TokenRevoked):
            await identity.actor(phone)
        await identity.login(person.view.user.email)
        assert await codes_left(identity, person) == 0
        assert {"second_factor.enrolled", "second_factor.confirmed", "second_factor.disabled"} <= set(
            await audited(identity, person)
        )


async def test_a_new_server_secret_reads_what_the_former_one_wrote(identity: Identity) -> None:
    person = await enrolled(identity)
    former = identity.auth.second_factors
    moved = SecondFactors(
        units=identity.units,
        sealer=Sealer([b"n" * 32, b"k" * 32]),
        hashers=[CodeHasher("a new secret"), *former._hashers],
        notices=former._notices,
    )
    async with identity.units(PLATFORM) as uow:
        factor = await moved.confirmed(uow, person.actor.user_id)
        assert factor is not None
        assert await moved.judge(uow, factor, person.code(identity)) is None
        assert await moved.judge(uow, factor, person.recovery_codes[0]) is None
    with pytest.raises(WrongCode):
        await answer(identity, await challenge(identity, person), person.code(identity, step=1))
    newest = Sealer([b"n" * 32])
    factor = await identity.one(select(SecondFactor).where(SecondFactor.user_id == person.actor.user_id))
    assert newest.open(factor.secret, subject=f"second factor of {person.actor.user_id}") == person.secret
