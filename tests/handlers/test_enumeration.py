"""Who asks learns nothing of who has an account: the known and the unknown are answered alike, for the same work.

Times are compared by `bench.auth`. What tells all the same, because the released clients need it, is told no more where
ACCOUNTS_DISCLOSED is off (test_undisclosed.py).
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession

from handlers import accounts, auth
from tests.support.people import RegisterCompany
from tests.support.phones import new_phone
from tests.support.running import Orchestrator

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded

WRONG = "not the password of anybody"
# What differs between any two answers.
OWN = ("Date", "X-Request-ID")

Seen = tuple[int, dict[str, str], Any, int]


@pytest.fixture
def hashed(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return count_hashes(orchestrator, monkeypatch)


def count_hashes(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the hashes that a server computes, for checks and for new passwords alike."""
    hasher, count = orchestrator.services.auth.sessions._hasher, Counter[str]()
    run = hasher._ask

    async def counted(work: Any) -> Any:
        count["hashes"] += 1
        return await run(work)

    monkeypatch.setattr(hasher, "_ask", counted)
    return count


class Asker:
    """Sends requests as a stranger, and remembers all there is to see of their answers."""

    def __init__(self, http: ClientSession, orchestrator: Orchestrator, hashed: Counter[str]) -> None:
        self._http = http
        self._url = orchestrator.url
        self._hashed = hashed

    async def ask(self, path: str, body: object) -> Seen:
        before = self._hashed["hashes"]
        async with self._http.post(f"{self._url}{path}", json=body) as response:
            answer = await response.json()
            headers = {name: value for name, value in response.headers.items() if name not in OWN}
        if isinstance(answer, dict) and "dev_code" in answer:
            # Of six digits for everybody, and there only while no code leaves the house.
            assert len(answer.pop("dev_code")) == 6
        return response.status, headers, answer, self._hashed["hashes"] - before


@pytest.fixture
def asker(http: ClientSession, orchestrator: Orchestrator, hashed: Counter[str]) -> Asker:
    return Asker(http, orchestrator, hashed)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/api/v1/auth/login", {"password": WRONG}, (401, 1)),
        ("/api/v1/auth/forgot-password", {}, (200, 0)),
        ("/api/v1/auth/resend-verification", {}, (200, 0)),
        ("/api/v1/auth/register", {"password": "short", "full_name": "A", "company_name": "B"}, (422, 0)),
    ],
    ids=["login", "forgot", "resend", "register badly"],
)
async def test_an_address_tells_nothing(
    asker: Asker, company: RegisterCompany, path: str, body: dict[str, str], expected: tuple[int, int]
) -> None:
    owner = await company()

    known = await asker.ask(path, {**body, "email": owner.email})
    unknown = await asker.ask(path, {**body, "email": f"owner-{uuid4().hex[:12]}@example.org"})

    assert known == unknown
    assert (known[0], known[3]) == expected, "the status, and how many hashes were computed"


CODE = {"code": "not a code"}
NEW = {"new_password": "battery staple"}
NAMED = {"first_name": "A", "last_name": "B", "employment_type": "ip", "password": "battery staple"}


@pytest.mark.parametrize(
    ("path", "field", "body", "expected"),
    [
        ("/api/auth/login-password", "phone", {"password": WRONG}, (401, 1)),
        ("/api/auth/send-code", "phone", {}, (200, 0)),
        ("/api/v1/auth/send-code", "phone", {}, (200, 0)),
        ("/api/v1/auth/request-code", "identifier", {"channel": "telegram"}, (200, 0)),
        ("/api/v1/auth/verify", "phone", CODE, (400, 0)),
        ("/api/v1/auth/confirm-code", "identifier", {"channel": "telegram", "code": "000000"}, (400, 0)),
        ("/api/v1/auth/register", "phone", CODE, (400, 0)),
        ("/api/auth/register-full", "phone", {**CODE, **NAMED}, (400, 0)),
        ("/api/auth/reset-password", "phone", {**CODE, **NEW}, (400, 0)),
    ],
)
async def test_a_phone_tells_nothing(
    asker: Asker, path: str, field: str, body: dict[str, str], expected: tuple[int, int]
) -> None:
    phone = new_phone()
    made = await asker.ask("/api/auth/register-full", {**NAMED, "phone": phone, "code": await code_for(asker, phone)})
    assert made[0] == 200, made

    known = await asker.ask(path, {**body, field: phone})
    unknown = await asker.ask(path, {**body, field: new_phone()})

    assert known == unknown
    assert (known[0], known[3]) == expected, "the status, and how many hashes were computed"


async def code_for(asker: Asker, phone: str) -> str:
    async with asker._http.post(f"{asker._url}/api/auth/send-code", json={"phone": phone}) as response:
        return str((await response.json())["dev_code"])


async def test_a_letter_is_asked_for_as_long_whether_it_is_written_or_not(
    asker: Asker, company: RegisterCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the wait is there is seen here; how long anything really takes, `bench.auth` shows."""
    waited = []

    @asynccontextmanager
    async def waiting(seconds: float) -> AsyncIterator[None]:
        yield
        waited.append(seconds)

    for door in (auth, accounts):
        monkeypatch.setattr(door, "no_sooner_than", waiting)
    owner = await company()
    for email in (owner.email, f"nobody-{uuid4().hex}@example.org"):
        await asker.ask("/api/v1/auth/forgot-password", {"email": email})
        await asker.ask("/api/v1/auth/resend-verification", {"email": email})
    assert waited == [auth.LETTER_S] * 4


async def test_signing_up_tells_by_its_answer_alone_and_costs_the_same(asker: Asker, company: RegisterCompany) -> None:
    # The released client shows "User with this email already exists" (contract.md 1.5); its limit is what is left.
    owner = await company()
    form = {"password": "battery staple", "full_name": "A", "company_name": f"B {uuid4().hex}"}

    known = await asker.ask("/api/v1/auth/register", {**form, "email": owner.email})
    unknown = await asker.ask("/api/v1/auth/register", {**form, "email": f"new-{uuid4().hex}@example.org"})

    assert (known[0], unknown[0]) == (409, 201)
    assert known[3] == unknown[3] == 1


async def test_a_token_that_nobody_was_sent_tells_nothing(asker: Asker) -> None:
    first, second = [
        await asker.ask("/api/v1/auth/reset-password", {"token": token, **NEW}) for token in ("x" * 43, "y" * 43)
    ]
    assert first == second
    assert first[0] == 400
