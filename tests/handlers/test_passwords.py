"""Passwords over REST: changed by whoever knows the one that is, tried a few times only, refused when breached."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers import auth
from handlers.context import CONTEXT, GUARDING, Context, RateRules
from handlers.rest import serve
from providers.limiter import WindowRateLimiter
from server.middlewares import answer_errors, identify, locate
from server.readiness import StoreReadiness
from services.attempts import AttemptCounts
from services.registry import Services
from tests.support.identity import PASSWORD, PLATFORM, Identity, build_identity, token_in
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator
from tests.support.stores import free_port

NEW = "another password"


async def sign_in(person: Person, password: str) -> tuple[int, Any]:
    body = {"email": person.email, "password": password}
    return await request(person.http, "POST", address(person.url, "auth/login"), json=body)


async def change(person: Person, current: str, new: str = NEW) -> tuple[int, Any]:
    return await person.post("auth/change-password", {"current_password": current, "new_password": new})


async def test_a_changed_password_ends_the_other_sessions(company: RegisterCompany) -> None:
    owner = await company()
    _, answer = await sign_in(owner, owner.password)
    phone = {"Authorization": f"Bearer {answer['data']['access_token']}"}

    assert await change(owner, owner.password) == (
        200,
        {"status": "success", "message": "Password has been changed successfully"},
    )

    assert (await owner.get("auth/me"))[0] == 200
    assert (await request(owner.http, "GET", address(owner.url, "auth/me"), headers=phone))[0] == 401
    assert (await sign_in(owner, owner.password))[0] == 401
    assert (await sign_in(owner, NEW))[0] == 200
    _, answer = await owner.get("notifications")
    assert "Your password was changed" in [item["title"] for item in answer["data"]]


async def test_the_old_password_is_asked_for(company: RegisterCompany) -> None:
    owner = await company()

    status, answer = await change(owner, "wrong password")

    assert (status, answer["error"]["code"]) == (400, "WRONG_PASSWORD")
    status, answer = await change(owner, owner.password, "7 chars")
    assert (status, answer["errors"][0]["field"]) == (422, "body -> new_password")
    assert (await sign_in(owner, owner.password))[0] == 200


async def test_of_two_changes_at_once_one_counts(company: RegisterCompany) -> None:
    owner = await company()
    chosen = [f"password number {number}" for number in range(5)]

    answers = await asyncio.gather(*(change(owner, owner.password, new) for new in chosen))

    winners = [new for new, (status, _) in zip(chosen, answers, strict=True) if status == 200]
    assert len(winners) == 1
    assert {status for status, _ in answers} == {200, 400}
    assert (await sign_in(owner, winners[0]))[0] == 200


@pytest.fixture(params=["with Redis, if there is one", "Redis away"])
async def limited(
    request: pytest.FixtureRequest, orchestrator: Orchestrator, http: ClientSession, tmp_path: Any
) -> AsyncIterator[tuple[TestClient[web.Request, web.Application], Identity]]:
    """The door of sign-ins with a limit of ten attempts at one account, on services whose checks are counted."""
    identity = build_identity(orchestrator.house.engine, orchestrator.services, tmp_path)
    away = request.param == "Redis away"
    redis = f"redis://127.0.0.1:{free_port()}/0" if away else orchestrator.settings.redis_url.get_secret_value()
    limiter = WindowRateLimiter(redis, backstop=AttemptCounts(identity.units), guarding=GUARDING)
    services = Services(**{**_fields(orchestrator.services), "auth": identity.auth})
    app = web.Application(middlewares=[identify, locate(()), answer_errors])
    app[CONTEXT] = Context(
        uow=identity.units,
        services=services,
        recognition=orchestrator.house.recognition,
        limiter=limiter,
        rules=RateRules(auth_per_ip="", auth_per_account="10/hour", sso_per_user="", webhooks_per_ip="", user_total=""),
        readiness=StoreReadiness({}),
        environment="test",
        version="0",
        public_url=orchestrator.url,
        origins=frozenset(),
        request_timeout_s=30,
        http=http,
    )
    for endpoint in auth.router.endpoints:
        app.router.add_route(endpoint.method, endpoint.path, serve(endpoint))
    async with TestClient(TestServer(app)) as client:
        yield client, identity
    await limiter.aclose()
    identity.hasher.close()


def _fields(services: Services) -> dict[str, Any]:
    return {name: getattr(services, name) for name in services.__slots__}


async def test_what_the_database_takes_for_one_address_has_one_count(engine: AsyncEngine) -> None:
    """Every letter there is, and words in which letters change their neighbours."""
    letters = text("SELECT chr(n) FROM generate_series(1, 1114111) n WHERE n NOT BETWEEN 55296 AND 57343")
    lowered = text("SELECT word, lower(word) FROM unnest(CAST(:words AS text[])) word WHERE lower(word) <> word")
    async with engine.connect() as connection:
        words = [*(await connection.scalars(letters)), "admİni@example.org", "ΧΡΉΣΤΟΣ@παράδειγμα.ελ"]
        pairs = (await connection.execute(lowered, {"words": words})).all()
    assert len(pairs) > 1000
    assert [word for word, same in pairs if auth.account_key(word) != auth.account_key(same)] == []


async def test_two_hundred_wrong_passwords_at_once_stop_at_the_limit(
    limited: tuple[TestClient[web.Request, web.Application], Identity],
) -> None:
    door, identity = limited
    view = await identity.sign_up()

    async def guess(number: int) -> int:
        # Whatever way the address is written, it is the same account.
        email = view.user.email.upper() if number % 2 else view.user.email
        body = {"email": email, "password": f"guess number {number}"}
        async with door.post("/api/v1/auth/login", json=body) as response:
            if response.status == 429:
                assert 1 <= int(response.headers["Retry-After"]) <= 3601
            return response.status

    statuses = await asyncio.gather(*(guess(number) for number in range(200)))

    assert (statuses.count(401), statuses.count(429)) == (10, 190)
    assert len(identity.hasher.checks) == 10, "no more than that was compared"
    async with door.post("/api/v1/auth/login", json={"email": f"x-{uuid4()}@example.org", "password": "x"}) as other:
        assert other.status == 401, "another account has its own count, also one that does not exist"


async def test_a_letters_token_lets_the_owner_in_whom_a_stranger_keeps_out(
    limited: tuple[TestClient[web.Request, web.Application], Identity],
) -> None:
    door, identity = limited
    email = (await identity.sign_up()).user.email

    async def login(password: str) -> int:
        async with door.post("/api/v1/auth/login", json={"email": email, "password": password}) as response:
            return response.status

    async def reset(token: str) -> int:
        body = {"token": token, "new_password": NEW}
        async with door.post("/api/v1/auth/reset-password", json=body) as response:
            return response.status

    await asyncio.gather(*(login(f"guess number {number}") for number in range(30)))
    assert await login(PASSWORD) == 429
    async with identity.units(PLATFORM) as uow:
        await identity.auth.passwords.forgot(uow, email=email)
    (letter,) = await identity.letters(email)
    assert await reset("no token of a letter") == 400
    assert await login(PASSWORD) == 429, "only whoever has the letter clears the count"

    assert await reset(token_in(letter.body)) == 200

    assert await login(NEW) == 200
    guesses = await asyncio.gather(*(login(f"guess number {number}") for number in range(30)))
    assert (guesses.count(401), guesses.count(429)) == (9, 21), "the limit holds from then on"
