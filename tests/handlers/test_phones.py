"""Sign-in by phone over REST, as the released clients of both families write and read it (contract.md 2.3, 2.5)."""

import asyncio
from http.cookies import SimpleCookie
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientSession

from handlers import messengers, phone_codes, phones
from handlers.rest import Access
from tests.handlers.test_auth import refused
from tests.namespaces.instances import beside
from tests.support.people import Answer, RegisterCompany, request
from tests.support.phones import new_phone
from tests.support.running import Orchestrator

# The cluster has the same database and the same code here, and nothing of it in Redis.
pytestmark = pytest.mark.embedded

PASSWORD = "correct horse"


class Client:
    """A client without a token; paths are whole."""

    def __init__(self, http: ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def post(self, path: str, body: object, **options: Any) -> Answer:
        return await request(self._http, "POST", f"{self._url}{path}", json=body, **options)

    async def get(self, path: str, token: str) -> Answer:
        headers = {"Authorization": f"Bearer {token}"}
        return await request(self._http, "GET", f"{self._url}{path}", headers=headers)

    async def code(self, phone: str) -> str:
        """Return a code for a phone, which development answers with."""
        status, answer = await self.post("/api/auth/send-code", {"phone": phone})
        assert status == 200, answer
        return str(answer["dev_code"])

    async def register_full(self, number: str, **changes: Any) -> Answer:
        """Sign up; a change to `...` leaves a field out."""
        body = {
            "phone": number,
            "code": await self.code(number),
            "password": PASSWORD,
            "first_name": "Анна",
            "last_name": "Иванова",
            "employment_type": "self_employed",
            **changes,
        }
        return await self.post("/api/auth/register-full", {name: item for name, item in body.items() if item != ...})


@pytest.fixture
def client(http: ClientSession, orchestrator: Orchestrator) -> Client:
    return Client(http, orchestrator.url)


async def test_the_third_ancestors_story_from_the_first_question_to_the_profile(client: Client) -> None:
    phone = new_phone()
    assert await client.post("/api/auth/check-phone", {"phone": phone}) == (200, {"exists": False})
    status, sent = await client.post("/api/auth/send-code", {"phone": phone, "provider": "telegram"})
    code = sent["dev_code"]
    assert (status, sent) == (200, {"message": "Code sent (Check console)", "dev_code": code})
    assert len(code) == 6

    status, registered = await client.register_full(phone)

    assert status == 200
    assert set(registered) == {
        "access_token", "refresh_token", "token_type", "user_id", "tenant_id", "is_new_user",
    }  # fmt: skip
    assert (registered["token_type"], registered["is_new_user"]) == ("bearer", True)
    assert await client.post("/api/auth/check-phone", {"phone": phone}) == (200, {"exists": True})
    status, login = await client.post("/api/auth/login-password", {"phone": phone, "password": PASSWORD})
    assert status == 200
    assert (login["user_id"], login["tenant_id"]) == (registered["user_id"], registered["tenant_id"])
    assert (login["token_type"], login["is_new_user"]) == ("bearer", False)
    assert await client.get("/api/auth/me", login["access_token"]) == (
        200,
        {
            "id": registered["user_id"],
            "phone": phone,
            "email": None,
            "email_verified": False,
            "first_name": "Анна",
            "last_name": "Иванова",
            "employment_type": "self_employed",
            "role": "owner",
            "is_superuser": False,
            "tenant_id": registered["tenant_id"],
        },
    )


async def test_the_profile_is_changed_and_the_session_renewed_and_ended(client: Client) -> None:
    _, registered = await client.register_full(new_phone())
    bearer = {"Authorization": f"Bearer {registered['access_token']}"}
    status, profile = await client.post("/api/auth/set-profile", {"employment_type": "ooo"}, headers=bearer)
    assert (status, profile["employment_type"], profile["first_name"]) == (200, "ooo", "Анна")

    status, tokens = await client.post("/api/auth/refresh", {"refresh_token": registered["refresh_token"]})
    assert status == 200
    assert set(tokens) == {"access_token", "refresh_token", "token_type"}
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert await client.post("/api/auth/logout", None, headers=bearer) == (200, {"message": "Logged out"})

    assert (await client.get("/api/auth/me", tokens["access_token"]))[0] == 401


async def test_the_second_ancestors_story(client: Client) -> None:
    phone = new_phone()
    status, sent = await client.post("/api/v1/auth/send-code", {"phone": phone})
    assert (status, sent) == (
        200,
        {"status": "ok", "message": "OTP sent", "sent": True, "ttl": 300, "dev_code": sent["dev_code"]},
    )
    status, registered = await client.post("/api/v1/auth/register", {"phone": phone, "code": sent["dev_code"]})
    assert status == 200
    assert set(registered) == {"token", "refresh_token", "tenant_id", "user_id"}
    status, me = await client.get("/api/v1/auth/me", registered["token"])
    # The model of the first ancestor's client demands texts.
    assert (status, me["data"]["email"], me["data"]["full_name"]) == (200, "", "")
    assert me["data"]["current_tenant"]["id"] == registered["tenant_id"]

    _, sent = await client.post("/api/v1/auth/send-code", {"phone": phone, "provider": "max"})
    body = {"phone": phone, "code": sent["dev_code"], "provider": "max"}
    status, verified = await client.post("/api/v1/auth/verify", body)

    assert status == 200
    assert {"access_token", "refresh_token", "tenant_id", "user_id"} <= set(verified)
    assert (verified["tenant_id"], verified["user_id"]) == (registered["tenant_id"], registered["user_id"])
    status, answer = await client.post("/api/v1/auth/register", {"phone": phone, "code": await client.code(phone)})
    assert status == 400
    assert refused(answer, "User with this phone already exists", "ALREADY_EXISTS")


@pytest.mark.parametrize("base", ["/api/v1/auth", "/api/auth"])
@pytest.mark.parametrize("dash", ["-", "_"])
@pytest.mark.parametrize("channel", ["telegram", "max"])
async def test_confirming_a_code_answers_the_tenant_in_both_spellings(
    client: Client, base: str, dash: str, channel: str
) -> None:
    identifier = new_phone()
    body = {"channel": channel, "identifier": identifier.replace("+7", "8")}
    status, sent = await client.post(f"{base}/request{dash}code", body)
    assert (status, sent) == (200, {"sent": True, "dev_code": sent["dev_code"]})

    status, confirmed = await client.post(f"{base}/confirm{dash}code", {**body, "code": sent["dev_code"]})

    assert (status, confirmed) == (200, {"confirmed": True, "tenant_id": confirmed["tenant_id"]})
    assert UUID(confirmed["tenant_id"]).version == 4
    status, answer = await client.post(f"{base}/confirm{dash}code", {**body, "code": sent["dev_code"]})
    assert status == 400
    assert refused(answer, "Invalid or expired code", "INVALID_CODE")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/auth/send_code", {"phone": "+79161234567"}),
        ("/api/auth/send_code", {"phone": "+79161234567"}),
        ("/api/auth/check_phone", {"phone": "+79161234567"}),
    ],
)
async def test_the_other_spellings_lead_to_the_same(client: Client, path: str, body: dict[str, str]) -> None:
    assert (await client.post(path, body))[0] == 200


async def test_one_phone_however_it_is_written(client: Client) -> None:
    digits = new_phone()[2:]
    spaced = f"+7 {digits[:3]} {digits[3:6]}-{digits[6:8]}-{digits[8:]}"
    assert (await client.register_full(f"8{digits}"))[0] == 200

    for written in (f"8{digits}", f"7{digits}", f"+7{digits}", spaced, f"8 ({digits[:3]}) {digits[3:]}"):
        assert await client.post("/api/auth/check-phone", {"phone": written}) == (200, {"exists": True})
    body = {"phone": f"7{digits}", "password": PASSWORD}
    assert (await client.post("/api/auth/login-password", body))[0] == 200
    status, answer = await client.register_full(spaced)
    assert status == 400
    assert refused(answer, "User with this phone already exists", "ALREADY_EXISTS")


async def test_sending_a_code_tells_nothing_of_who_has_the_phone(client: Client) -> None:
    known, unknown = new_phone(), new_phone()
    await client.register_full(known)
    for path in ("/api/auth/send-code", "/api/v1/auth/send-code"):
        answers = []
        for phone in (known, unknown):
            status, answer = await client.post(path, {"phone": phone})
            answers.append((status, {**answer, "dev_code": ""}))
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        (None, "Неверный код подтверждения"),
        ("ru", "Неверный код подтверждения"),
        ("en", "Wrong confirmation code"),
    ],
)
async def test_a_wrong_or_missing_code_registers_nobody(client: Client, language: str | None, text: str) -> None:
    phone = new_phone()
    code = await client.code(phone)
    headers = {"Accept-Language": language} if language else {}
    for given in ({"code": f"{(int(code) + 1) % 10**6:06d}"}, {"code": None}, {}):
        body = {
            "phone": phone, "password": PASSWORD, "first_name": "A", "last_name": "B", "employment_type": "ip", **given,
        }  # fmt: skip
        status, answer = await client.post("/api/auth/register-full", body, headers=headers)
        assert status == 400
        assert refused(answer, text, "INVALID_CODE")
    assert await client.post("/api/auth/check-phone", {"phone": phone}) == (200, {"exists": False})


async def test_a_refused_login_does_not_tell_why(client: Client) -> None:
    phone = new_phone()
    await client.register_full(phone)
    for stranger in (phone, new_phone()):
        status, answer = await client.post("/api/auth/login-password", {"phone": stranger, "password": "wrong horse"})
        assert status == 401
        assert refused(answer, "Неверный телефон или пароль", "AUTH_ERROR")


async def test_a_password_is_reset_by_a_code(client: Client) -> None:
    phone = new_phone()
    body = {"phone": phone, "code": await client.code(phone), "new_password": "another horse"}
    status, answer = await client.post("/api/auth/reset-password", {**body, "code": "x"})
    assert status == 400
    assert refused(answer, "Неверный код подтверждения", "INVALID_CODE")
    status, answer = await client.post("/api/auth/reset-password", body)
    assert status == 404
    assert refused(answer, "User not found", "NOT_FOUND")
    assert (await client.post("/api/v1/auth/verify", body))[0] == 200
    body["code"] = await client.code(phone)

    assert await client.post("/api/auth/reset-password", body) == (
        200,
        {"message": "Password has been reset successfully"},
    )

    login = {"phone": phone, "password": "another horse"}
    assert (await client.post("/api/auth/login-password", login))[0] == 200


async def test_a_code_lets_the_owner_in_whom_a_stranger_keeps_out(
    http: ClientSession, orchestrator: Orchestrator
) -> None:
    async with beside(orchestrator, rate_auth_per_account="10/hour") as strict:
        client, phone = Client(http, strict.url), new_phone()
        assert (await client.register_full(phone))[0] == 200
        wrong, right = ({"phone": phone, "password": password} for password in ("wrong horse", "another horse"))
        tried = await asyncio.gather(*(client.post("/api/auth/login-password", wrong) for _ in range(30)))
        assert [status for status, _ in tried].count(429) == 21, "signing up was one attempt"
        body = {"phone": phone, "code": await client.code(phone), "new_password": "another horse"}

        assert (await client.post("/api/auth/reset-password", body))[0] == 200

        assert (await client.post("/api/auth/login-password", right))[0] == 200


async def test_codes_tried_at_a_reset_are_limited(http: ClientSession, orchestrator: Orchestrator) -> None:
    async with beside(orchestrator, rate_auth_per_account="10/hour") as strict:
        client = Client(http, strict.url)
        body = {"phone": new_phone(), "code": "000000", "new_password": "another horse"}
        tried = await asyncio.gather(*(client.post("/api/auth/reset-password", body) for _ in range(30)))
        assert [status for status, _ in tried].count(429) == 20


async def test_other_refusals_of_the_second_ancestor(client: Client) -> None:
    phone = new_phone()
    for path in ("verify", "register"):
        status, answer = await client.post(f"/api/v1/auth/{path}", {"phone": phone, "code": "000000"})
        assert status == 400
        assert refused(answer, "Invalid OTP", "INVALID_CODE")
    status, answer = await client.post("/api/v1/auth/send-code", {"phone": phone, "provider": "vk"})
    assert status == 400
    assert refused(answer, "Provider vk is not active", "CHANNEL_INACTIVE")


async def test_the_cookie_is_the_ancestors_and_stays_on_this_site(
    http: ClientSession, orchestrator: Orchestrator, client: Client
) -> None:
    phone = new_phone()
    await client.register_full(phone)
    body = {"phone": phone, "password": PASSWORD}
    async with http.post(f"{orchestrator.url}/api/auth/login-password", json=body) as response:
        token = (await response.json())["access_token"]
        cookie: Any = SimpleCookie(response.headers["Set-Cookie"])["access_token"]
    assert cookie.value == f"Bearer {token}"
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["max-age"]) == (True, "Lax", "/", "")
    assert cookie["secure"] == "", "development has no TLS"


async def test_in_production_every_cookie_asks_for_tls(
    http: ClientSession, orchestrator: Orchestrator, client: Client
) -> None:
    phone = new_phone()
    _, registered = await client.register_full(phone)
    async with beside(orchestrator, environment="production") as production:
        for path, body in (
            ("login-password", {"phone": phone, "password": PASSWORD}),
            ("refresh", {"refresh_token": registered["refresh_token"]}),
        ):
            async with http.post(f"{production.url}/api/auth/{path}", json=body) as response:
                assert response.status == 200
                cookie: Any = SimpleCookie(response.headers["Set-Cookie"])["access_token"]
            assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax"), path


async def test_signing_out_takes_the_cookie_back(
    http: ClientSession, orchestrator: Orchestrator, client: Client
) -> None:
    _, registered = await client.register_full(new_phone())
    headers = {"Authorization": f"Bearer {registered['access_token']}"}
    async with http.post(f"{orchestrator.url}/api/auth/logout", headers=headers) as response:
        cookie: Any = SimpleCookie(response.headers["Set-Cookie"])["access_token"]
    assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", "/")


@pytest.mark.parametrize(
    ("phone", "reason"),
    [
        ("", "not_written_as_a_phone"),
        ("hello", "not_written_as_a_phone"),
        ("+٧٩٩٩١٢٣٤٥٦٧", "not_written_as_a_phone"),
        ("telegram:@anna", "not_written_as_a_phone"),
        ("+7 999", "no_such_number"),
        ("112", "no_such_number"),
        ("8 800 555 35 35", "not_personal"),
        ("+7999123456" + " " * 40 + "7", "too_long"),
    ],
)
async def test_what_is_no_phone_is_refused_everywhere(client: Client, phone: str, reason: str) -> None:
    wrong = {"phone": phone, "code": "123456", "password": PASSWORD, "channel": "max", "identifier": phone}
    wrong |= {"first_name": "A", "last_name": "B", "employment_type": "ip"}
    for path in ("auth/check-phone", "auth/send-code", "auth/login-password", "auth/register-full"):
        status, answer = await client.post(f"/api/{path}", wrong)
        assert status == 422
        assert refused(answer, "This is not a valid phone number", "PHONE_INVALID")
        assert answer["error"]["details"] == {"reason": reason}
        assert [(item["field"], item["type"]) for item in answer["errors"]] == [("body -> phone", "phone_invalid")]
    for path in ("request-code", "confirm-code", "send-code", "verify", "register"):
        status, answer = await client.post(f"/api/v1/auth/{path}", wrong)
        assert (status, answer["error"]["code"]) == (422, "PHONE_INVALID")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"phone": "+7916\x001234567"}, "body"),
        ({"phone": "1" * 65}, "body -> phone"),
        ({"phone": 79161234567}, "body -> phone"),
        ({"phone": ...}, "body -> phone"),
        ({"password": "7 chars"}, "body -> password"),
        ({"first_name": " "}, "body -> first_name"),
        ({"last_name": "x" * 101}, "body -> last_name"),
        ({"employment_type": "pirate"}, "body -> employment_type"),
        ({"code": "x" * 65}, "body -> code"),
    ],
    ids=str,
)
async def test_a_bad_form_names_its_field(client: Client, change: dict[str, Any], field: str) -> None:
    status, answer = await client.register_full(new_phone(), **change)

    assert status == 422
    assert [item["field"] for item in answer["errors"]] == [field]


@pytest.mark.parametrize("code", ["12345", "1234567", "12345a", "１２３４５６", 123456])
async def test_a_code_to_confirm_has_six_digits(client: Client, code: object) -> None:
    body = {"channel": "telegram", "identifier": new_phone(), "code": code}
    status, answer = await client.post("/api/v1/auth/confirm-code", body)
    assert (status, [item["field"] for item in answer["errors"]]) == (422, ["body -> code"])
    body["channel"] = "pigeon"
    status, answer = await client.post("/api/v1/auth/request-code", body)
    assert (status, [item["field"] for item in answer["errors"]]) == (422, ["body -> channel"])


async def test_a_form_with_an_address_is_the_first_ancestors(client: Client) -> None:
    unique = uuid4().hex[:12]
    body = {"email": f"both-{unique}@example.org", "phone": "no phone", "password": PASSWORD}
    body |= {"full_name": "Both", "company_name": f"Both {unique}"}
    status, answer = await client.post("/api/v1/auth/register", body)
    assert (status, answer["status"]) == (201, "success")


async def test_whoever_signed_up_by_mail_has_a_profile_too(company: RegisterCompany) -> None:
    owner = await company()
    status, profile = await owner.get("/api/auth/me")
    assert (status, profile["id"], profile["phone"], profile["role"]) == (200, str(owner.user_id), None, "owner")


async def test_a_webhook_without_a_bot_is_closed(client: Client) -> None:
    for messenger in ("telegram", "max", "anything"):
        headers = {"X-Telegram-Bot-Api-Secret-Token": "", "X-Max-Bot-Api-Secret": ""}
        status, answer = await client.post(f"/api/v1/messengers/{messenger}/webhook", {}, headers=headers)
        assert (status, answer["error"]["code"]) == (404, "NOT_FOUND")


def test_whatever_strangers_may_ask_is_limited() -> None:
    open_doors = {
        endpoint.path: endpoint.rule
        for endpoint in (*phones.router.endpoints, *phone_codes.router.endpoints)
        if endpoint.access is Access.PUBLIC
    }
    # Guessing a signed token is hopeless, and a whole office refreshes from one address.
    assert [path for path, rule in open_doors.items() if rule is None] == ["/api/auth/refresh"]
    assert {rule for path, rule in open_doors.items() if "send" in path or "request" in path} == {"phone_codes_per_ip"}
    assert [endpoint.rule for endpoint in messengers.router.endpoints] == [None]
