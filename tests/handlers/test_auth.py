"""Sign-up and sign-in over REST, field by field (contract.md 1.5, 1.7, 2.2)."""

import asyncio
import json
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import jwt
import pytest
from aiohttp import ClientSession

from tests.support.identity import letter_in, token_in
from tests.support.people import Answer, RegisterCompany, address, request
from tests.support.running import Orchestrator

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded

USER_KEYS = {
    "id", "email", "email_verified", "phone", "full_name", "is_active", "is_superuser", "default_tenant_id",
    "created_at", "updated_at",
}  # fmt: skip
TENANT_KEYS = {"id", "name", "slug", "status", "erpnext_site_url", "created_at", "updated_at"}


def form(**changes: Any) -> dict[str, Any]:
    unique = uuid4().hex[:12]
    return {
        "email": f"rest-{unique}@example.org",
        "password": "correct horse",
        "full_name": "Rita Rest",
        "company_name": f"Rest {unique}",
        **changes,
    }


@pytest.fixture
def post(http: ClientSession, orchestrator: Orchestrator) -> Any:
    """Post JSON to a path below /api/v1/auth without a token."""

    async def send(path: str, body: object, **options: Any) -> Answer:
        return await request(http, "POST", address(orchestrator.url, f"auth/{path}"), json=body, **options)

    return send


def is_utc(text: str) -> bool:
    return text.endswith("Z") and datetime.fromisoformat(text).tzinfo is not None


def refused(answer: Any, text: str, code: str) -> bool:
    """Tell whether a body is the one error body with this text and code."""
    return (
        answer["status"] == "error"
        and answer["data"] is None
        and answer["message"] == answer["detail"] == answer["error"]["message"] == text
        and answer["error"]["code"] == code
    )


def assert_signed_in(answer: Any, body: dict[str, Any]) -> None:
    """Check the whole answer of a sign-in by the only owner of one tenant."""
    assert (set(answer), answer["status"], answer["error"]) == ({"status", "data", "error"}, "success", None)
    data = answer["data"]
    assert set(data) == {"access_token", "refresh_token", "token_type", "user", "tenants", "current_tenant"}
    assert data["token_type"] == "bearer"
    user, tenant = data["user"], data["current_tenant"]
    assert set(user) == USER_KEYS
    assert (user["email"], user["full_name"]) == (body["email"], body["full_name"])
    assert (user["is_active"], user["is_superuser"]) == (True, False)
    assert user["default_tenant_id"] == tenant["id"]
    assert set(tenant) == TENANT_KEYS
    assert tenant["name"] == body["company_name"]
    assert tenant["slug"] == body["company_name"].lower().replace(" ", "-")
    assert all(is_utc(item[key]) for item in (user, tenant) for key in ("created_at", "updated_at"))
    assert data["tenants"] == [
        {"tenant_id": tenant["id"], "tenant_name": tenant["name"], "role": "owner", "is_default": True}
    ]
    assert UUID(user["id"]) != UUID(tenant["id"])


@pytest.mark.parametrize("path", ["register", "signup"])
async def test_registration_answers_a_session(post: Any, path: str) -> None:
    body = form()

    status, answer = await post(path, body)

    assert status == 201
    assert_signed_in(answer, body)
    assert answer["data"]["current_tenant"]["status"] == "provisioning"
    assert answer["data"]["current_tenant"]["erpnext_site_url"] is None


async def test_login_answers_the_same(post: Any) -> None:
    body = form()
    await post("register", body)

    status, answer = await post("login", {"email": body["email"].upper(), "password": body["password"], "more": 1})

    assert status == 200
    assert_signed_in(answer, body)


async def test_a_taken_address_is_a_conflict(post: Any) -> None:
    body = form()
    await post("register", body)

    status, answer = await post("register", form(email=body["email"].title()))

    assert status == 409
    assert refused(answer, "User with this email already exists", "ALREADY_EXISTS")


@pytest.mark.parametrize(
    ("change", "field", "kind"),
    [
        ({"email": None}, "body -> email", "string_type"),
        ({"email": "not an address"}, "body -> email", "value_error"),
        ({"password": "7 chars"}, "body -> password", "string_too_short"),
        ({"password": "x" * 1025}, "body -> password", "string_too_long"),
        ({"full_name": "  "}, "body -> full_name", "string_too_short"),
        ({"company_name": "x" * 256}, "body -> company_name", "string_too_long"),
        ({"company_name": ["x"]}, "body -> company_name", "string_type"),
        ({"email": "iv\u0430n@example.org"}, "body -> email", "value_error"),
        ({"email": "iv\u200ban@example.org"}, "body -> email", "value_error"),
        ({"email": "x" * 300 + "@example.org"}, "body -> email", "value_error"),
        ({"email": "y" * 100_000 + "@example.org"}, "body -> email", "value_error"),
        ({"full_name": "Bell\x07"}, "body -> full_name", "value_error"),
        ({"full_name": "Two\nlines"}, "body -> full_name", "value_error"),
        ({"company_name": "abc\u202etxt.exe"}, "body -> company_name", "value_error"),
        ({"full_name": "nul\x00"}, "body", "json_invalid"),
    ],
    ids=lambda value: ascii(value)[:60],
)
async def test_a_bad_form_names_its_fields(post: Any, change: dict[str, Any], field: str, kind: str) -> None:
    status, answer = await post("register", form(**change))

    assert status == 422
    assert refused(answer, "Validation error", "VALIDATION_ERROR")
    assert [(error["field"], error["type"]) for error in answer["errors"]] == [(field, kind)]
    assert all(error["message"] for error in answer["errors"])


async def test_another_form_of_an_address_is_the_same_account(post: Any) -> None:
    body = form()
    await post("register", body)
    wide = "".join(chr(ord(char) + 0xFEE0) if char.isalnum() else char for char in body["email"].partition("@")[0])
    email = f"{wide}@example.org"

    status, answer = await post("register", form(email=email))
    assert (status, answer["error"]["code"]) == (409, "ALREADY_EXISTS")
    status, answer = await post("login", {"email": email, "password": body["password"]})
    assert (status, answer["data"]["user"]["email"]) == (200, body["email"])


async def test_names_of_every_script_are_taken_as_they_are(post: Any) -> None:
    name = "Zoë Ågren-Ünal 山田 \u0645\u06cc\u200c\u0646 👩‍💻"
    status, answer = await post("register", form(full_name=name))
    assert (status, answer["data"]["user"]["full_name"]) == (201, name)


async def test_a_form_of_neither_family_names_what_the_first_lacks(post: Any) -> None:
    status, answer = await post("register", {"code": "123456"})

    assert status == 422
    assert "body -> email" in [error["field"] for error in answer["errors"]]


async def test_spaces_belong_to_a_password_and_not_to_a_name(post: Any) -> None:
    body = form(password="  spaces  ", full_name="  Rita Rest ")
    status, answer = await post("register", body)
    assert (status, answer["data"]["user"]["full_name"]) == (201, "Rita Rest")

    assert (await post("login", {"email": body["email"], "password": "  spaces  "}))[0] == 200
    assert (await post("login", {"email": body["email"], "password": "spaces"}))[0] == 401


async def test_a_refused_login_tells_nothing(post: Any) -> None:
    body = form()
    await post("register", body)

    for email in (body["email"], f"nobody-{uuid4().hex}@example.org"):
        status, answer = await post("login", {"email": email, "password": "wrong password"})
        assert status == 401
        assert refused(answer, "Invalid email or password", "AUTH_ERROR")


async def test_refresh_rotates_and_a_replay_ends_the_session(post: Any, company: RegisterCompany) -> None:
    owner = await company()

    status, answer = await post("refresh", {"refresh_token": owner.refresh_token})

    assert status == 200
    assert set(answer["data"]) == {"access_token", "refresh_token", "token_type"}
    assert answer["data"]["refresh_token"] != owner.refresh_token
    newest = answer["data"]["refresh_token"]
    # Two exchanges on, the first token is neither the newest nor the one before: the grace does not cover it.
    newest = (await post("refresh", {"refresh_token": newest}))[1]["data"]["refresh_token"]
    status, answer = await post("refresh", {"refresh_token": owner.refresh_token})
    assert status == 401
    assert refused(answer, "Invalid refresh token", "TOKEN_REVOKED")
    status, answer = await post("refresh", {"refresh_token": newest})
    assert (status, answer["error"]["code"]) == (401, "TOKEN_REVOKED"), "the end must be kept though the answer was 401"
    status, answer = await owner.get("auth/me")
    assert (status, answer["error"]["code"]) == (401, "TOKEN_REVOKED")


async def test_what_is_no_refresh_token_is_refused(post: Any, company: RegisterCompany) -> None:
    owner = await company()

    for token in ("x", "", owner.token):
        status, answer = await post("refresh", {"refresh_token": token})
        assert status == 401
        assert refused(answer, "Invalid refresh token", "AUTH_ERROR")
    assert (await post("refresh", {}))[0] == 422


async def test_me_is_flat_and_nested(company: RegisterCompany) -> None:
    owner = await company()

    status, answer = await owner.get("auth/me")

    assert status == 200
    data = answer["data"]
    assert set(data) == USER_KEYS | {"user", "tenants", "current_tenant"}
    assert data["user"] == {key: data[key] for key in USER_KEYS} == owner.registration["user"]
    assert data["tenants"] == owner.registration["tenants"]
    assert set(data["current_tenant"]) == TENANT_KEYS
    assert data["current_tenant"]["id"] == str(owner.tenant_id)


async def test_switching_answers_tokens_and_the_tenant(company: RegisterCompany, post: Any) -> None:
    owner, other = await company(), await company()
    await other.post(f"tenants/{other.tenant_id}/users/invite", {"email": owner.email, "role": "ADMIN"})

    status, answer = await owner.post("auth/switch-tenant", {"tenant_id": str(other.tenant_id)})

    assert status == 200
    assert set(answer["data"]) == {"access_token", "refresh_token", "token_type", "tenant"}
    assert set(answer["data"]["tenant"]) == TENANT_KEYS
    assert answer["data"]["tenant"]["id"] == str(other.tenant_id)
    claims = jwt.decode(answer["data"]["access_token"], options={"verify_signature": False})
    assert (claims["tenant_id"], claims["tenant"], claims["role"]) == (str(other.tenant_id),) * 2 + ("admin",)
    _, answer = await post("refresh", {"refresh_token": answer["data"]["refresh_token"]})
    owner.token = answer["data"]["access_token"]
    _, answer = await owner.get("auth/me")
    assert answer["data"]["current_tenant"]["id"] == answer["data"]["default_tenant_id"] == str(other.tenant_id)
    assert [place["is_default"] for place in answer["data"]["tenants"]] == [False, True]


async def test_switching_to_a_foreign_tenant_is_forbidden(company: RegisterCompany) -> None:
    owner, other = await company(), await company()

    for tenant_id in (other.tenant_id, uuid4()):
        status, answer = await owner.post("auth/switch-tenant", {"tenant_id": str(tenant_id)})
        assert status == 403
        assert refused(answer, "You don't have access to this tenant", "PERMISSION_DENIED")
    assert (await owner.post("auth/switch-tenant", {"tenant_id": "acme"}))[0] == 422


async def test_logout_says_so_and_voids_the_tokens(company: RegisterCompany, post: Any) -> None:
    owner = await company()

    assert await owner.post("auth/logout") == (
        200,
        {"status": "success", "message": "Logged out successfully"},
    )

    status, answer = await owner.get("auth/me")
    assert status == 401
    assert refused(answer, "Could not validate credentials", "TOKEN_REVOKED")
    assert (await post("refresh", {"refresh_token": owner.refresh_token}))[0] == 401


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "Not authenticated"),
        ("Basic dXNlcjpwYXNz", "Not authenticated"),
        ("Bearer", "Not authenticated"),
        ("Bearer x.y.z", "Could not validate credentials"),
    ],
    ids=["none", "another scheme", "no token", "no JWT"],
)
async def test_without_a_good_token_nobody_is_known(
    http: ClientSession, orchestrator: Orchestrator, header: str | None, text: str
) -> None:
    url = address(orchestrator.url, "auth/me")
    headers = {"Authorization": header} if header else {}
    async with http.get(url, headers=headers) as response:
        answer = await response.json()
        challenge = response.headers["WWW-Authenticate"]

    assert (response.status, challenge) == (401, "Bearer")
    assert refused(answer, text, "AUTH_ERROR")


async def test_a_refresh_token_opens_no_door(company: RegisterCompany) -> None:
    owner = await company()
    owner.token = owner.refresh_token

    status, answer = await owner.get("auth/me")

    assert status == 401
    assert refused(answer, "Could not validate credentials", "AUTH_ERROR")


async def test_a_forgotten_password_is_reset_by_mail(
    post: Any, company: RegisterCompany, orchestrator: Orchestrator
) -> None:
    owner = await company()
    outbox = orchestrator.settings.data_dir / "outbox"
    sent = await post("forgot-password", {"email": owner.email.upper()})
    assert sent == await post("forgot-password", {"email": f"nobody-{uuid4().hex}@example.org"})
    assert sent == (
        200,
        {"status": "success", "message": "If this email is registered, a password reset link has been sent"},
    )
    token = token_in(await letter_in(outbox, owner.email))

    status, answer = await post("reset-password", {"token": token, "new_password": "7 chars"})
    assert (status, answer["errors"][0]["field"]) == (422, "body -> new_password")
    done = await post("reset-password", {"token": token, "new_password": "another password"})
    assert done == (200, {"status": "success", "message": "Password has been reset successfully"})

    for used in (token, "x" * 43, ""):
        status, answer = await post("reset-password", {"token": used, "new_password": "another password"})
        assert status == 400
        assert refused(answer, "Invalid or expired reset token", "AUTH_ERROR")
    assert (await owner.get("auth/me"))[0] == 401
    assert (await post("login", {"email": owner.email, "password": owner.password}))[0] == 401
    assert (await post("login", {"email": owner.email, "password": "another password"}))[0] == 200
    assert "was just changed" in await letter_in(outbox, owner.email, count=2)


async def test_a_new_person_is_written_to_in_their_language(post: Any, orchestrator: Orchestrator) -> None:
    body = form()
    await post("register", body, headers={"Accept-Language": "ru-RU,ru;q=0.9,en;q=0.8"})

    await post("forgot-password", {"email": body["email"]})

    text = await letter_in(orchestrator.settings.data_dir / "outbox", body["email"])
    assert "Здравствуйте, Rita Rest!" in text


async def send_bytes(orchestrator: Orchestrator, lines: list[bytes], body: bytes = b"") -> bytes:
    """Send a request that no client library would send and return the answer's first line."""
    parts = urlsplit(orchestrator.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = [*lines, b"Host: localhost", b"Connection: close", b"Content-Length: %d" % len(body), b"", body]
    writer.write(b"\r\n".join(head))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n")[0]


async def test_headers_that_are_no_text_do_no_harm(orchestrator: Orchestrator, post: Any) -> None:
    body = form()
    await post("register", body)
    login = json.dumps({"email": body["email"], "password": body["password"]}).encode()

    agent = b"User-Agent: \xff\xfe" + b"x" * 500
    assert b"200" in await send_bytes(orchestrator, [b"POST /api/v1/auth/login HTTP/1.1", agent], login)
    token = b"Authorization: Bearer \xff\xfe"
    assert b"401" in await send_bytes(orchestrator, [b"GET /api/v1/auth/me HTTP/1.1", token])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe"], ids=str)
async def test_what_is_no_json_object_is_refused(http: ClientSession, orchestrator: Orchestrator, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for path in ("register", "login", "refresh", "forgot-password", "reset-password"):
        url = address(orchestrator.url, f"auth/{path}")
        async with http.post(url, data=body, headers=headers) as response:
            answer = await response.json()
        assert response.status == 422
        assert refused(answer, "Validation error", "VALIDATION_ERROR")


async def test_a_shared_secret_publishes_no_key(http: ClientSession, orchestrator: Orchestrator) -> None:
    async with http.get(f"{orchestrator.url}/.well-known/jwks.json") as response:
        assert (response.status, await response.json()) == (200, {"keys": []})
        assert response.headers["Cache-Control"] == "public, max-age=300"
