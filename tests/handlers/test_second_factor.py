"""The second factor over REST, field by field, from setting it up to switching it off."""

from datetime import timedelta
from typing import Any

import pytest

from tests.handlers.second_factors import code_of, switch_on
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded


async def post(person: Person, path: str, body: object) -> tuple[int, Any]:
    """Post without a token."""
    return await request(person.http, "POST", address(person.url, f"auth/{path}"), json=body)


async def test_the_whole_way(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    owner = await company()
    login = {"email": owner.email, "password": owner.password}
    off = {"enabled": False, "confirmed_at": None, "recovery_codes_left": 0}
    assert (await owner.get("auth/2fa"))[1]["data"] == off

    status, answer = await owner.post("auth/2fa/enrol")
    assert status == 200
    assert set(answer["data"]) == {"secret", "provisioning_uri", "qr_svg"}
    secret = answer["data"]["secret"]
    status, answer = await owner.post("auth/2fa/confirm", {"code": "000000"})
    assert (status, answer["error"]["code"]) == (400, "WRONG_CODE")
    status, answer = await owner.post("auth/2fa/confirm", {"code": code_of(secret, orchestrator)})
    assert status == 200
    codes = answer["data"]["recovery_codes"]
    assert len(codes) == 10

    status, answer = await post(owner, "login", login)
    assert status == 200
    assert set(answer["data"]) == {"status", "challenge_token", "expires_in", "methods"}
    assert (answer["data"]["status"], answer["data"]["expires_in"]) == ("2fa_required", 300)
    token = answer["data"]["challenge_token"]
    # The confirming code is used up; the app's next one is good by now.
    body = {"challenge_token": token, "code": code_of(secret, orchestrator, later_s=30)}
    status, answer = await post(owner, "verify-2fa", body)
    assert status == 200
    assert set(answer["data"]) == set(owner.registration)
    _, answer = await post(owner, "login", login)
    body = {"challenge_token": answer["data"]["challenge_token"], "code": codes[0]}
    assert (await post(owner, "2fa/verify", body))[0] == 200
    status, answer = await post(owner, "verify-2fa", body)
    assert (status, answer["error"]["code"]) == (401, "CHALLENGE_REFUSED")
    assert (await owner.get("auth/2fa"))[1]["data"]["recovery_codes_left"] == 9

    status, answer = await owner.post("auth/2fa/recovery-codes")
    assert (status, len(answer["data"]["recovery_codes"])) == (200, 10)
    assert (await owner.post("auth/2fa/disable"))[0] == 200
    assert (await owner.get("auth/2fa"))[1]["data"] == off
    assert "access_token" in (await post(owner, "login", login))[1]["data"]


async def test_secrets_are_kept_out_of_caches(company: RegisterCompany) -> None:
    owner = await company()
    headers = {"Authorization": f"Bearer {owner.token}"}
    async with owner.http.post(address(owner.url, "auth/2fa/enrol"), headers=headers) as response:
        assert response.headers["Cache-Control"] == "no-store"


async def test_dangerous_things_ask_for_a_proof(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    owner = await company()
    secret, _ = await switch_on(owner, orchestrator)
    orchestrator.clock.offset += timedelta(minutes=11)
    try:
        status, answer = await owner.post("auth/2fa/disable")
        assert (status, answer["error"]["code"]) == (403, "STEP_UP_REQUIRED")
        status, answer = await owner.post("auth/step-up", {"password": owner.password})
        assert (status, answer["errors"][0]["field"]) == (422, "body -> code")
        status, answer = await owner.post("auth/step-up", {"code": "000000"})
        assert (status, answer["error"]["code"]) == (400, "WRONG_CODE")
        assert await owner.post("auth/step-up", {"code": code_of(secret, orchestrator)}) == (
            200,
            {"status": "success", "message": "Confirmed"},
        )
        assert (await owner.post("auth/2fa/disable"))[0] == 200
    finally:
        orchestrator.clock.offset -= timedelta(minutes=11)


async def test_the_password_proves_who_has_no_second_factor(company: RegisterCompany) -> None:
    owner = await company()
    status, answer = await owner.post("auth/step-up", {"password": "wrong password"})
    assert (status, answer["error"]["code"]) == (400, "WRONG_PASSWORD")
    status, answer = await owner.post("auth/step-up", {})
    assert (status, answer["errors"][0]["field"]) == (422, "body -> password")
    assert (await owner.post("auth/step-up", {"password": owner.password}))[0] == 200


async def test_what_is_no_code_is_refused(company: RegisterCompany) -> None:
    owner = await company()
    for body in ({}, {"code": ""}, {"code": "1" * 65}, {"code": 123456}, {"code": "\0"}):
        assert (await owner.post("auth/2fa/confirm", body))[0] == 422
    for token in ("", "x", owner.token, "x" * 4096):
        status, answer = await post(owner, "verify-2fa", {"challenge_token": token, "code": "123456"})
        assert (status, answer["error"]["code"]) == (401, "CHALLENGE_REFUSED")
    status, answer = await owner.post("auth/2fa/disable")
    assert (status, answer["error"]["code"]) == (409, "CONFLICT")
