"""Signing in on two instances at once: what must happen once happens once, and what ended has ended on both."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pyotp
import pytest
from aiohttp import ClientSession, TCPConnector

from core.phones import mask_phone
from server.database import plain_url
from services.permissions import KeyScope
from tests.e2e.conftest import own_fleet
from tests.support.identity import WELCOMES, token_in
from tests.support.keys import keys_of, make_key
from tests.support.listeners import Listener
from tests.support.people import Answer, Person, address, company_factory, request
from tests.support.phones import new_phone
from tests.support.processes import Fleet
from tests.support.relay import relay_to
from tests.support.stores import Stores

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
async def crowd() -> AsyncIterator[ClientSession]:
    """A client that opens as many connections as it likes."""
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture(scope="module")
async def ships(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """What all these tests share, for each of them makes people of its own."""
    async with own_fleet(stores, tmp_path_factory.mktemp("races")) as ships:
        assert await (await ships.run("migrate")).ended() == 0
        yield ships


@pytest.fixture(scope="module")
async def urls(ships: Fleet) -> list[str]:
    """The addresses of two instances on one database and one Redis."""
    return await serve_twice(ships)


async def serve_twice(ships: Fleet, *, rate_auth_per_account: str = "10/minute") -> list[str]:
    started = await asyncio.gather(*(ships.run("serve", RATE_AUTH_PER_ACCOUNT=rate_auth_per_account) for _ in range(2)))
    return [(await process.ready()).url for process in started]


async def asked(ships: Fleet, statement: str, *values: object) -> list[Any]:
    """Look into the database, past every wall."""
    connection = await asyncpg.connect(plain_url(ships.environment["DATABASE_URL"]))
    try:
        return [row[0] for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


async def letter_token(ships: Fleet, email: str, *, welcome: bool = False) -> str:
    """Return the token of a letter that still waits, for no worker runs here; by default not that of signing up."""
    letters = "SELECT body FROM outbound_mails WHERE recipient = $1 AND (subject = ANY($2)) = $3"
    (body,) = await asked(ships, letters, email, list(WELCOMES), welcome)
    return token_in(body)


async def spread(urls: list[str], http: ClientSession, path: str, bodies: Sequence[object]) -> list[Answer]:
    """Post all bodies at once, by turns to each instance."""
    sent = zip(itertools.cycle(urls), bodies, strict=False)
    return await asyncio.gather(*(request(http, "POST", address(url, path), json=body) for url, body in sent))


async def challenges(person: Person, urls: list[str], count: int) -> list[str]:
    body = {"email": person.email, "password": person.password}
    answers = await spread(urls, person.http, "auth/login", [body] * count)
    return [answer["data"]["challenge_token"] for _, answer in answers]


async def test_fifty_refreshes_at_once_keep_a_session(urls: list[str], crowd: ClientSession) -> None:
    owner = await company_factory(crowd, urls[0])()
    body = {"refresh_token": owner.refresh_token}

    answers = await spread(urls, crowd, "auth/refresh", [body] * 50)

    assert {status for status, _ in answers} == {200}
    latest = []
    for _, answer in answers:
        # Of those that were issued at once all but the newest two are stale by now, and showing one would end it all.
        person = replace(owner, token=answer["data"]["access_token"])
        latest.append((await person.get("auth/me"))[0])
    assert set(latest) == {200}


async def test_one_stale_refresh_among_fifty_ends_the_session(
    urls: list[str], ships: Fleet, crowd: ClientSession
) -> None:
    owner = await company_factory(crowd, urls[0])()
    stale = newest = owner.refresh_token
    for url in (*urls, *urls):
        _, answer = await request(crowd, "POST", address(url, "auth/refresh"), json={"refresh_token": newest})
        newest = answer["data"]["refresh_token"]

    bodies = [{"refresh_token": stale if number == 25 else newest} for number in range(50)]
    answers = await spread(urls, crowd, "auth/refresh", bodies)

    assert answers[25][0] == 401
    # Whoever came before it was let go on, and is out now all the same.
    issued = [answer["data"] for status, answer in answers if status == 200]
    for data in ({"refresh_token": newest, "access_token": owner.token}, *issued):
        for url in urls:
            body = {"refresh_token": data["refresh_token"]}
            assert (await request(crowd, "POST", address(url, "auth/refresh"), json=body))[0] == 401
            assert (await replace(owner, url=url, token=data["access_token"]).get("auth/me"))[0] == 401
    reuse = "SELECT count(*) FROM audit_entries WHERE action = 'session.reuse_detected' AND tenant_id = $1"
    assert await asked(ships, reuse, owner.tenant_id) == [1]


async def test_who_is_signed_out_on_one_instance_is_out_on_both(urls: list[str], crowd: ClientSession) -> None:
    owner = await company_factory(crowd, urls[0])()
    elsewhere = replace(owner, url=urls[1])
    assert (await elsewhere.get("auth/me"))[0] == 200

    assert (await owner.post("auth/logout"))[0] == 200

    assert (await owner.get("auth/me"))[0] == 401, "at once, where it was said"
    async with asyncio.timeout(1):
        while (await elsewhere.get("auth/me"))[0] != 401:
            await asyncio.sleep(0.005)


async def test_two_hundred_wrong_passwords_on_two_instances_stop_at_one_limit(
    urls: list[str], crowd: ClientSession
) -> None:
    owner = await company_factory(crowd, urls[0])()
    bodies = [{"email": owner.email, "password": f"guess number {number}"} for number in range(200)]

    statuses = [status for status, _ in await spread(urls, crowd, "auth/login", bodies)]

    # Signing up a moment ago was an attempt at this account, too.
    assert (statuses.count(401), statuses.count(429)) == (9, 191)


async def test_of_fifty_wrong_codes_at_once_five_are_looked_at(ships: Fleet, crowd: ClientSession) -> None:
    # Without the limit of attempts, which would let no more than ten come so far.
    urls = await serve_twice(ships, rate_auth_per_account="off")
    phone = new_phone()
    _, sent = await request(crowd, "POST", address(urls[0], "auth/send-code"), json={"phone": phone})
    right = int(sent["dev_code"])
    bodies = [{"phone": phone, "code": f"{(right + step) % 10**6:06d}"} for step in range(1, 51)]

    statuses = {status for status, _ in await spread(urls, crowd, "auth/verify", bodies)}

    assert statuses == {400}
    looked_at = "SELECT count(*) FROM audit_entries WHERE action = 'phone_code.tried' AND subject_id = $1"
    assert await asked(ships, looked_at, mask_phone(phone)) == [5]
    body = {"phone": phone, "code": f"{right:06d}"}
    assert (await request(crowd, "POST", address(urls[1], "auth/verify"), json=body))[0] == 400


async def test_while_redis_is_away_two_instances_keep_one_limit(
    cluster: Fleet, stores: Stores, crowd: ClientSession
) -> None:
    assert await (await cluster.run("migrate")).ended() == 0
    async with relay_to(stores.redis_url) as (relay, redis_url):
        started = [await (await cluster.run("serve", REDIS_URL=redis_url)).ready() for _ in range(2)]
        urls = [process.url for process in started]
        owner = await company_factory(crowd, urls[0])()
        phones = [{"phone": new_phone()} for _ in range(8)]
        await relay.cut()

        bodies = [{"email": owner.email, "password": f"guess number {number}"} for number in range(200)]
        statuses = [status for status, _ in await spread(urls, crowd, "auth/login", bodies)]
        asked = [status for status, _ in await spread(urls, crowd, "/api/auth/check-phone", phones)]
        known = await request(crowd, "POST", address(urls[1], "auth/login"), json=bodies[0])
        other = await company_factory(crowd, urls[1])()

        assert (statuses.count(401), statuses.count(429)) == (10, 190)
        assert (asked.count(200), asked.count(429)) == (5, 3)
        assert known[0] == 429
        assert (await replace(other, url=urls[0]).get("auth/me"))[0] == 200, "nobody else is kept out"
        await relay.restore()
        async with asyncio.timeout(20):
            while (await request(crowd, "GET", address(urls[0], "/ready")))[0] != 200:
                await asyncio.sleep(0.05)


async def test_a_phones_code_bears_five_guesses_and_opens_once_on_two_instances(
    urls: list[str], crowd: ClientSession
) -> None:
    guessed, opened = new_phone(), new_phone()
    codes = {}
    for phone in (guessed, opened):
        _, sent = await request(crowd, "POST", address(urls[0], "auth/send-code"), json={"phone": phone})
        codes[phone] = sent["dev_code"]
    wrong = [{"phone": guessed, "code": f"{(int(codes[guessed]) + step) % 10**6:06d}"} for step in range(1, 10)]

    refused = await spread(urls, crowd, "auth/verify", wrong)
    last = await request(
        crowd, "POST", address(urls[1], "auth/verify"), json={"phone": guessed, "code": codes[guessed]}
    )
    right = await spread(urls, crowd, "auth/verify", [{"phone": opened, "code": codes[opened]}] * 5)

    assert [status for status, _ in (*refused, last)] == [400] * 10, "the limit of ten attempts plays no part yet"
    assert sorted(status for status, _ in right) == [200, 400, 400, 400, 400]


async def test_a_letter_confirms_once_and_one_way_to_sign_in_stays_on_two_instances(
    urls: list[str], ships: Fleet, crowd: ClientSession
) -> None:
    owner = await company_factory(crowd, urls[0])()
    elsewhere, phone = replace(owner, url=urls[1]), new_phone()
    token = await letter_token(ships, owner.email, welcome=True)

    confirmed = await spread(urls, crowd, "auth/verify-email", [{"token": token}] * 10)

    assert sorted(status for status, _ in confirmed) == [200] + [400] * 9
    _, sent = await request(crowd, "POST", address(urls[0], "auth/send-code"), json={"phone": phone})
    form = {"phone": phone, "code": sent["dev_code"]}
    added = await asyncio.gather(
        *(person.post("auth/change-phone", form) for person in (owner, elsewhere, owner, elsewhere))
    )
    assert sorted(status for status, _ in added) == [200, 400, 400, 400]
    removed = await asyncio.gather(owner.delete("auth/phone"), elsewhere.delete("auth/email"))
    assert sorted(status for status, _ in removed) == [200, 409]
    left = (await owner.get("auth/me"))[1]["data"]
    assert bool(left["email"]) != bool(left["phone"])


async def test_a_recovery_code_and_a_code_of_the_app_work_once_on_two_instances(
    urls: list[str], crowd: ClientSession
) -> None:
    owner = await company_factory(crowd, urls[0])()
    secret = (await owner.post("auth/2fa/enrol"))[1]["data"]["secret"]
    app = pyotp.TOTP(secret)
    # Confirmed by the code of the step before, so that the app's current one is still good.
    earlier = datetime.now(UTC) - timedelta(seconds=30)
    _, answer = await owner.post("auth/2fa/confirm", {"code": app.at(earlier)})
    recovery = answer["data"]["recovery_codes"][0]
    waiting = await challenges(owner, urls, 9)

    for code, tokens in ((recovery, waiting[:5]), (app.now(), waiting[5:])):
        bodies = [{"challenge_token": token, "code": code} for token in tokens]
        statuses = [status for status, _ in await spread(urls, crowd, "auth/verify-2fa", bodies)]
        assert statuses.count(200) == 1
        assert set(statuses) <= {200, 400, 429}


async def test_two_owners_who_demote_each_other_leave_one(urls: list[str], ships: Fleet, crowd: ClientSession) -> None:
    for _ in range(5):
        company = company_factory(crowd, urls[0])
        first, second = await company(), await company()
        users = f"tenants/{first.tenant_id}/users"
        assert (await first.post(f"{users}/invite", {"email": second.email, "role": "member"}))[0] == 201
        body = {"user_id": str(second.user_id), "former_role": "owner"}
        assert (await first.post(f"tenants/{first.tenant_id}/transfer-ownership", body))[0] == 200
        elsewhere = replace(second, url=urls[1])

        answers = await asyncio.gather(
            first.patch(f"{users}/{second.user_id}", {"role": "member"}),
            elsewhere.patch(f"{users}/{first.user_id}", {"role": "member"}),
        )

        assert sorted(status for status, _ in answers) in ([200, 403], [200, 409])
        owners = "SELECT count(*) FROM user_tenants WHERE tenant_id = $1 AND role = 'owner'"
        assert await asked(ships, owners, first.tenant_id) == [1]


async def test_an_invitation_accepted_by_a_crowd_joins_once(
    urls: list[str], ships: Fleet, crowd: ClientSession
) -> None:
    host = await company_factory(crowd, urls[0])()
    email = f"guest-{uuid4().hex}@example.org"
    await host.post(f"tenants/{host.tenant_id}/users/invite", {"email": email, "role": "admin"})
    token = await letter_token(ships, email)

    body = {"full_name": "Nina Newcomer", "password": "correct horse"}
    statuses = [status for status, _ in await spread(urls, crowd, f"invitations/{token}/accept", [body] * 10)]

    assert sorted(statuses) == [200, *[409] * 9]
    assert await asked(ships, "SELECT count(*) FROM users WHERE email = $1", email) == [1]
    places = "SELECT count(*) FROM user_tenants WHERE tenant_id = $1"
    assert await asked(ships, places, host.tenant_id) == [2]


async def test_a_reset_token_brought_by_a_crowd_works_once(urls: list[str], ships: Fleet, crowd: ClientSession) -> None:
    owner = await company_factory(crowd, urls[0])()
    await spread(urls, crowd, "auth/forgot-password", [{"email": owner.email}] * 10)
    token = await letter_token(ships, owner.email)
    passwords = [f"new password {number}" for number in range(10)]

    bodies = [{"token": token, "new_password": password} for password in passwords]
    statuses = [status for status, _ in await spread(urls, crowd, "auth/reset-password", bodies)]

    assert sorted(statuses) == [200, *[400] * 9]
    chosen = passwords[statuses.index(200)]
    for url, password, status in ((urls[0], chosen, 200), (urls[1], chosen, 200), (urls[0], owner.password, 401)):
        login = {"email": owner.email, "password": password}
        assert (await request(crowd, "POST", address(url, "auth/login"), json=login))[0] == status


async def test_fifty_uses_of_a_key_and_its_end_in_their_midst(urls: list[str], crowd: ClientSession) -> None:
    owner = await company_factory(crowd, urls[0])()
    made = await make_key(owner, KeyScope.JOBS_READ)
    machines = [replace(made.machine, url=url) for url in urls]
    assert [(await machine.get("provisioning/jobs"))[0] for machine in machines] == [200, 200]
    listeners = [await Listener().connect(url, made.text, "/provisioning") for url in urls]
    uses = asyncio.gather(*(machines[turn % 2].get("provisioning/jobs") for turn in range(50)))

    await asyncio.gather(uses, made.revoke())

    assert {status for status, _ in uses.result()} <= {200, 401}
    status, answer = await machines[0].get("provisioning/jobs")
    assert (status, answer["error"]["code"]) == (401, "API_KEY_REVOKED"), "at once, where it was said"
    async with asyncio.timeout(1):
        while (await machines[1].get("provisioning/jobs"))[0] != 401:
            await asyncio.sleep(0.005)
    for listener in listeners:
        await listener.until(lambda: not listener.client.connected, 1)  # noqa: B023 - waited for within the turn
        assert [told["code"] for told in listener.of("auth:revoked")] == ["API_KEY_REVOKED"]


async def test_keys_made_on_two_instances_stop_at_one_limit(urls: list[str], crowd: ClientSession) -> None:
    owner = await company_factory(crowd, urls[0])()
    elsewhere = replace(owner, url=urls[1])
    body = {"name": "1C", "scopes": ["jobs:read"]}

    answers = await asyncio.gather(*((owner, elsewhere)[turn % 2].post(keys_of(owner), body) for turn in range(60)))

    statuses = [status for status, _ in answers]
    assert (statuses.count(201), statuses.count(409)) == (50, 10)
    assert len({answer["data"]["key"] for status, answer in answers if status == 201}) == 50
