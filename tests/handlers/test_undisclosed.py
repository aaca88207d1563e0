"""Where ACCOUNTS_DISCLOSED is off, nothing tells who has an account, and everybody gets in all the same."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pyotp
import pytest
from aiohttp import ClientSession
from sqlalchemy import func, select

from core.tokens import token_hash
from models.mail import OutboundMail
from models.tenants import Membership, Tenant
from models.users import PendingRegistration, User
from services.unit_of_work import PlatformScope
from tests.handlers.test_enumeration import NAMED, Asker, Seen, code_for, count_hashes
from tests.namespaces.instances import beside
from tests.support.identity import letter_in, token_in
from tests.support.people import Answer, Person, RegisterCompany, address, company_factory, request
from tests.support.phones import new_phone
from tests.support.running import Orchestrator

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded

SCOPE = PlatformScope("a test looks at everything")
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
async def silent(orchestrator: Orchestrator) -> AsyncIterator[Orchestrator]:
    """A server that tells nobody who has an account."""
    async with beside(orchestrator, accounts_disclosed=False) as other:
        yield other


@pytest.fixture
def hashed(silent: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return count_hashes(silent, monkeypatch)


@pytest.fixture
def asker(http: ClientSession, silent: Orchestrator, hashed: Counter[str]) -> Asker:
    return Asker(http, silent, hashed)


def new_email() -> str:
    return f"someone-{uuid4().hex[:12]}@example.org"


def form_of(email: str) -> dict[str, str]:
    return {"email": email, "password": PASSWORD, "full_name": "Nina New", "company_name": f"Company {uuid4().hex}"}


async def letters_to(silent: Orchestrator, email: str) -> list[OutboundMail]:
    """Return what somebody was written, oldest first."""
    async with silent.units(SCOPE) as uow:
        mine = select(OutboundMail).where(func.lower(OutboundMail.recipient) == email.lower())
        return list(await uow.session.scalars(mine.order_by(OutboundMail.created_at)))


async def letter(silent: Orchestrator, email: str, *, count: int = 1) -> str:
    """Return the text of the `count`-th letter that somebody has got, but for the one of signing up elsewhere."""
    return await letter_in(silent.settings.data_dir / "outbox", email, count=count)


async def sent_token(silent: Orchestrator, email: str) -> str:
    return token_in(await letter(silent, email))


async def finish(http: ClientSession, silent: Orchestrator, token: str) -> Answer:
    return await request(http, "POST", address(silent.url, "auth/register/confirm"), json={"token": token})


async def rows(silent: Orchestrator, statement: Any) -> list[Any]:
    async with silent.units(SCOPE) as uow:
        return list(await uow.session.scalars(statement))


class TestSigningUp:
    async def test_known_and_unknown_are_answered_alike_for_the_same_work(
        self, asker: Asker, company: RegisterCompany
    ) -> None:
        owner = await company()

        known = await asker.ask("/api/v1/auth/register", form_of(owner.email.upper()))
        unknown = await asker.ask("/api/v1/auth/register", form_of(new_email()))

        assert known == unknown
        assert (known[0], known[3]) == (202, 1), "the status, and how many hashes were computed"
        assert set(known[2]) == {"status", "message"}

    async def test_the_same_rows_are_written_for_both(
        self, asker: Asker, silent: Orchestrator, company: RegisterCompany
    ) -> None:
        owner, stranger = await company(), new_email()
        before = len(await letters_to(silent, owner.email))

        for email in (owner.email, stranger):
            await asker.ask("/api/v1/auth/register", form_of(email))

        written = [len(await letters_to(silent, owner.email)) - before, len(await letters_to(silent, stranger))]
        assert written == [1, 1]
        for email in (owner.email, stranger):
            (waiting,) = await rows(silent, select(PendingRegistration).where(PendingRegistration.email == email))
            assert waiting.hashed_password.startswith("$argon2id$")

    async def test_the_letter_of_the_known_says_so_and_carries_no_token(
        self, asker: Asker, silent: Orchestrator, company: RegisterCompany
    ) -> None:
        owner = await company()
        await asker.ask("/api/v1/auth/register", form_of(owner.email))

        assert (await letters_to(silent, owner.email))[-1].subject == "You have an account already"
        assert not re.search(r"[\w-]{43}", await letter(silent, owner.email))
        async with silent.units(SCOPE) as uow:
            user = (await uow.session.scalars(select(User).where(User.id == owner.user_id))).one()
        assert user.full_name != "Nina New", "nothing of the account was changed"

    async def test_the_letter_of_the_unknown_finishes_the_registration_once(
        self, asker: Asker, http: ClientSession, silent: Orchestrator, company: RegisterCompany
    ) -> None:
        email = new_email()
        await asker.ask("/api/v1/auth/register", form_of(email))
        assert await rows(silent, select(User).where(User.has_email(email))) == [], "there is no account yet"
        token = await sent_token(silent, email)
        assert f"{silent.url}/finish-registration?token={token}" in await letter(silent, email)

        status, answer = await finish(http, silent, token)
        again = await finish(http, silent, token)

        assert status == 201
        assert set(answer["data"]) >= {
            "access_token",
            "refresh_token",
            "token_type",
            "user",
            "tenants",
            "current_tenant",
        }
        assert (answer["data"]["user"]["email"], answer["data"]["user"]["email_verified"]) == (email, True)
        assert answer["data"]["tenants"][0]["role"] == "owner"
        assert (again[0], again[1]["error"]["code"]) == (400, "AUTH_ERROR")
        signed_in = await request(
            http, "POST", address(silent.url, "auth/login"), json={"email": email, "password": PASSWORD}
        )
        assert signed_in[0] == 200, "the password is the one of the form"
        assert len(await letters_to(silent, email)) == 1, "an address that a letter has proved needs no other letter"

    async def test_two_that_use_one_token_at_once_make_one_account(
        self, asker: Asker, http: ClientSession, silent: Orchestrator, orchestrator: Orchestrator
    ) -> None:
        email = new_email()
        form = form_of(email)
        await asker.ask("/api/v1/auth/register", form)
        token = await sent_token(silent, email)

        # A server that tells takes the letter too, and knows nothing of what the other one has in hand.
        answers = await asyncio.gather(*(finish(http, door, token) for door in (silent, orchestrator) * 3))

        assert sorted(status for status, _ in answers) == [201, 400, 400, 400, 400, 400]
        assert len(await rows(silent, select(User).where(User.has_email(email)))) == 1
        assert len(await rows(silent, select(Tenant).where(Tenant.name == form["company_name"]))) == 1

    async def test_of_two_letters_to_one_address_the_second_finds_the_account(
        self, asker: Asker, http: ClientSession, silent: Orchestrator
    ) -> None:
        email = new_email()
        for _ in range(2):
            await asker.ask("/api/v1/auth/register", form_of(email))
        tokens = [token_in(await letter(silent, email, count=count)) for count in (1, 2)]

        answers = await asyncio.gather(*(finish(http, silent, token) for token in tokens))

        # Who reads the letters to an address may know whose it is.
        assert sorted(status for status, _ in answers) == [201, 409]
        assert len(await rows(silent, select(User).where(User.has_email(email)))) == 1

    async def test_a_token_is_stored_as_a_hash_and_too_old_after_a_day(
        self, asker: Asker, http: ClientSession, silent: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        email = new_email()
        await asker.ask("/api/v1/auth/register", form_of(email))
        token = await sent_token(silent, email)
        mine = select(PendingRegistration).where(PendingRegistration.email == email)
        (waiting,) = await rows(silent, mine)
        assert waiting.token_hash == token_hash(token) != token

        monkeypatch.setattr(silent.clock, "offset", timedelta(days=1, seconds=1))
        status, answer = await finish(http, silent, token)
        await silent.services.auth.prune()

        assert (status, answer["error"]["code"]) == (400, "AUTH_ERROR")
        assert await rows(silent, mine) == []

    @pytest.mark.parametrize("token", ["x" * 43, "", "ключ", "a b"])
    async def test_a_token_that_nobody_was_sent_opens_nothing(
        self, http: ClientSession, silent: Orchestrator, token: str
    ) -> None:
        status, answer = await finish(http, silent, token)
        assert (status, answer["error"]["code"]) == (400, "AUTH_ERROR")

    async def test_one_address_is_not_written_to_again_and_again(
        self, http: ClientSession, orchestrator: Orchestrator, company: RegisterCompany
    ) -> None:
        owner = await company()
        async with beside(orchestrator, accounts_disclosed=False, rate_auth_per_account="2/hour") as silent:
            url = address(silent.url, "auth/register")
            for email in (owner.email, new_email()):
                answers = [await request(http, "POST", url, json=form_of(email)) for _ in range(3)]
                assert [status for status, _ in answers] == [202, 202, 429]

    async def test_a_house_that_tells_takes_the_letters_of_one_that_did_not(
        self, asker: Asker, http: ClientSession, silent: Orchestrator, orchestrator: Orchestrator
    ) -> None:
        email = new_email()
        await asker.ask("/api/v1/auth/register", form_of(email))
        status, _ = await finish(http, orchestrator, await sent_token(silent, email))
        assert status == 201


class TestInviting:
    @pytest.fixture
    async def host(self, http: ClientSession, orchestrator: Orchestrator, silent: Orchestrator) -> Person:
        """An owner, at the server that tells nobody anything."""
        owner = await company_factory(http, orchestrator.url)()
        owner.url = silent.url
        return owner

    async def invite(self, host: Person, email: str) -> Answer:
        return await host.post(f"tenants/{host.tenant_id}/users/invite", {"email": email, "role": "member"})

    async def test_known_and_unknown_are_answered_alike(self, host: Person, company: RegisterCompany) -> None:
        guest, stranger = await company(), new_email()

        answers = [await self.invite(host, email) for email in (guest.email, stranger)]

        said = []
        for (status, answer), email in zip(answers, (guest.email, stranger), strict=True):
            assert answer["data"].pop("invitation_id") is not None
            said.append((status, answer, answer.pop("message") == f"User {email} invited successfully"))
        assert said[0] == said[1]
        assert said[0] == (201, {"status": "success", "data": {"user_id": None, "role": "member"}}, True)
        _, listed = await host.get(f"tenants/{host.tenant_id}/invitations")
        shown = [{**item, "id": "", "email": "", "created_at": "", "expires_at": ""} for item in listed["data"]]
        assert shown[0] == shown[1]

    async def test_nobody_is_a_member_before_the_letter_is_accepted(
        self, host: Person, silent: Orchestrator, company: RegisterCompany
    ) -> None:
        guest = await company()
        await self.invite(host, guest.email)
        place = select(Membership).where(Membership.user_id == guest.user_id, Membership.tenant_id == host.tenant_id)
        assert await rows(silent, place) == []

        guest.url = silent.url
        status, answer = await guest.post(f"invitations/{await sent_token(silent, guest.email)}/accept")

        assert status == 200, answer
        assert len(await rows(silent, place)) == 1
        assert [status for status, _ in [await self.invite(host, guest.email)]] == [409], "hosts see their members"


async def sign_up(asker: Asker, phone: str, form: dict[str, str]) -> Seen:
    """Sign up by a phone and the code that it was sent."""
    return await asker.ask("/api/auth/register-full", {**form, "phone": phone, "code": await code_for(asker, phone)})


class TestPhones:
    @pytest.fixture
    async def phone(self, asker: Asker) -> str:
        """The phone of somebody who has an account, and a password."""
        phone = new_phone()
        made = await sign_up(asker, phone, NAMED)
        assert (made[0], made[2]["is_new_user"]) == (200, True)
        return phone

    async def test_known_and_unknown_are_answered_alike(self, asker: Asker, phone: str) -> None:
        known = await asker.ask("/api/auth/check-phone", {"phone": phone})
        unknown = await asker.ask("/api/auth/check-phone", {"phone": new_phone()})
        assert known == unknown
        assert (known[0], known[2]) == (200, {"exists": False})

    async def test_both_get_in_by_what_the_answer_leads_to(self, asker: Asker, phone: str) -> None:
        stranger = new_phone()
        form = {**NAMED, "first_name": "Somebody", "password": "another password"}

        known = await asker.ask(
            "/api/auth/register-full", {**form, "phone": phone, "code": await code_for(asker, phone)}
        )
        unknown = await asker.ask(
            "/api/auth/register-full", {**form, "phone": stranger, "code": await code_for(asker, stranger)}
        )

        assert (known[0], unknown[0]) == (200, 200)
        assert (known[2]["is_new_user"], unknown[2]["is_new_user"]) == (False, True)
        assert known[3] == unknown[3] == 1
        signed_in = [
            (await asker.ask("/api/auth/login-password", {"phone": phone, "password": password}))[0]
            for password in (NAMED["password"], form["password"])
        ]
        assert signed_in == [200, 401], "who has an account keeps the password"

    async def test_without_the_code_nothing_is_told(self, asker: Asker, phone: str) -> None:
        for path in ("/api/auth/register-full", "/api/v1/auth/register"):
            bodies = [{**NAMED, "phone": number, "code": "000000"} for number in (phone, new_phone())]
            known, unknown = [await asker.ask(path, body) for body in bodies]
            assert known == unknown
            assert known[0] == 400

    async def test_a_second_factor_is_asked_for(self, asker: Asker, silent: Orchestrator, phone: str) -> None:
        signed_in = await asker.ask("/api/v1/auth/verify", {"phone": phone, "code": await code_for(asker, phone)})
        headers = {"Authorization": f"Bearer {signed_in[2]['access_token']}"}
        _, enrolled = await request(asker._http, "POST", address(silent.url, "auth/2fa/enrol"), headers=headers)
        code = pyotp.TOTP(enrolled["data"]["secret"]).at(silent.clock.now())
        status, _ = await request(
            asker._http, "POST", address(silent.url, "auth/2fa/confirm"), headers=headers, json={"code": code}
        )
        assert status == 200

        answer = await asker.ask(
            "/api/auth/register-full", {**NAMED, "phone": phone, "code": await code_for(asker, phone)}
        )
        assert (answer[0], answer[2]["status"]) == (200, "2fa_required")
