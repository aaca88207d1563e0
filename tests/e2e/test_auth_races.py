"""Signing in on two instances at once: what must happen once happens once, and what ended has ended on both."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest
from aiohttp import ClientSession, TCPConnector

from services.permissions import KeyScope
from tests.support.identity import letter_in, token_in
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


@pytest.fixture
async def urls(cluster: Fleet) -> list[str]:
    """The addresses of two instances on one database and one Redis."""
    assert await (await cluster.run("migrate")).ended() == 0
    first = await (await cluster.run("serve")).ready()
    second = await (await cluster.run("serve")).ready()
    return [first.url, second.url]


async def spread(urls: list[str], http: ClientSession, path: str, bodies: list[dict[str, Any]]) -> list[Answer]:
    """Post all bodies at once, by turns to each instance."""
    sent = zip(itertools.cycle(urls), bodies, strict=False)
    return await asyncio.gather(*(request(http, "POST", address(url, path), json=body) for url, body in sent))


async def challenges(person: Person, urls: list[str], count: int) -> list[str]:
    body = {"email": person.email, "password": person.password}
    answers = await spread(urls, person.http, "auth/login", [body] * count)
    return [answer["data"]["challenge_token"] for _, answer in answers]


async def test_fifty_refreshes_keep_a_session_and_a_stale_one_ends_it(urls: list[str], crowd: ClientSession) -> None:
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

    assert (statuses.count(401), statuses.count(429)) == (10, 190)


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
    urls: list[str], crowd: ClientSession, cluster: Fleet, tmp_path: Path
) -> None:
    await cluster.run("worker")
    owner = await company_factory(crowd, urls[0])()
    elsewhere, phone = replace(owner, url=urls[1]), new_phone()
    token = token_in(await letter_in(tmp_path / "data" / "outbox", owner.email, welcome=True))

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
