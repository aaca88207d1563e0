"""Tenants, members and invitations over REST, field by field (contract.md 1.5, 1.7, 3.2)."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientSession

from tests.namespaces.instances import beside
from tests.support.identity import letter_in, token_in
from tests.support.people import Answer, Person, RegisterCompany, address, company_factory, request
from tests.support.running import Orchestrator

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded

DETAIL_KEYS = {
    "id", "name", "slug", "status", "erpnext_site_url", "created_at", "updated_at", "settings", "role", "is_default",
}  # fmt: skip
NO_ACCESS = "You don't have access to this tenant"


def unique_email() -> str:
    return f"guest-{uuid4().hex}@example.org"


def message(text: str) -> dict[str, Any]:
    return {"status": "success", "message": text}


async def invite(host: Person, email: str, role: str = "user") -> Answer:
    return await host.post(f"tenants/{host.tenant_id}/users/invite", {"email": email, "role": role})


async def joined(company: RegisterCompany, host: Person, role: str = "user") -> Person:
    """Return somebody added to the tenant of `host`, signed in to it."""
    guest = await company()
    assert (await invite(host, guest.email, role))[0] == 201
    _, answer = await guest.post("auth/switch-tenant", {"tenant_id": str(host.tenant_id)})
    guest.token = answer["data"]["access_token"]
    return guest


@pytest.mark.parametrize("path", ["tenants", "tenants/"])
async def test_tenants_are_listed_with_the_callers_place(company: RegisterCompany, path: str) -> None:
    owner = await company()

    status, answer = await owner.get(path)

    assert status == 200
    assert set(answer) == {"status", "data", "error", "pagination"}
    assert answer["pagination"] == {"total": 1, "page": 1, "size": 20, "pages": 1}
    (tenant,) = answer["data"]
    assert set(tenant) == DETAIL_KEYS
    assert (tenant["id"], tenant["role"], tenant["is_default"]) == (str(owner.tenant_id), "owner", True)
    assert tenant["settings"] == {}


async def test_pages_are_clamped(company: RegisterCompany) -> None:
    owner = await company()

    _, answer = await owner.get("tenants?page=0&size=999")
    assert answer["pagination"] == {"total": 1, "page": 1, "size": 100, "pages": 1}
    _, answer = await owner.get("tenants?page=2&size=1")
    assert (answer["data"], answer["pagination"]) == ([], {"total": 1, "page": 2, "size": 1, "pages": 1})
    assert (await owner.get("tenants?page=x"))[0] == 422


async def test_the_current_tenant_carries_its_subscription(company: RegisterCompany) -> None:
    owner = await company()

    status, answer = await owner.get("tenants/current")

    assert status == 200
    data = answer["data"]
    assert set(data) == DETAIL_KEYS | {"subscription", "limits"}
    assert data["id"] == data["subscription"]["tenant_id"] == str(owner.tenant_id)
    assert (data["subscription"]["status"], data["subscription"]["plan"]["slug"]) == ("trial", "trial")
    assert data["limits"] == data["subscription"]["plan"]["limits"]


async def test_one_tenant_and_its_status(company: RegisterCompany) -> None:
    owner = await company()

    status, answer = await owner.get(f"tenants/{owner.tenant_id}")
    assert (status, set(answer["data"])) == (200, DETAIL_KEYS)
    status, answer = await owner.get(f"tenants/{owner.tenant_id}/status")
    assert status == 200
    assert set(answer["data"]) == {"tenant_id", "status", "erpnext_site_url", "updated_at"}
    assert answer["data"]["tenant_id"] == str(owner.tenant_id)
    assert answer["data"]["status"] in ("provisioning", "active")


async def test_settings_are_replaced_and_null_means_none(company: RegisterCompany) -> None:
    owner = await company()
    path = f"tenants/{owner.tenant_id}"

    nested = {"a": 1, "b": {"c": [1.5, None]}}
    steps: list[tuple[dict[str, Any], tuple[str, Any]]] = [
        ({"name": " Renamed ", "settings": nested}, ("Renamed", nested)),
        ({"settings": {"d": "é"}}, ("Renamed", {"d": "é"})),
        ({"name": None}, ("Renamed", {"d": "é"})),
        ({}, ("Renamed", {"d": "é"})),
        ({"name": None, "settings": None}, ("Renamed", {})),
    ]
    for body, expected in steps:
        status, answer = await owner.patch(path, body)
        assert (status, set(answer["data"])) == (200, DETAIL_KEYS)
        assert (answer["data"]["name"], answer["data"]["settings"]) == expected
        _, answer = await owner.get(path)
        assert (answer["data"]["name"], answer["data"]["settings"]) == expected


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"deeper": value}
    return value


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "body -> name"),
        ({"name": "x" * 256}, "body -> name"),
        ({"name": 1}, "body -> name"),
        ({"name": "a\x00b"}, "body"),
        ({"settings": []}, "body -> settings"),
        ({"settings": {"big": 1e300}}, "body -> settings"),
        ({"settings": {"big": [2**63]}}, "body -> settings"),
        ({"settings": {"text": "x" * 70_000}}, "body -> settings"),
        ({"settings": {"a\x00b": 1}}, "body"),
        ({"settings": deep(20)}, "body -> settings"),
        ({"settings": deep(500)}, "body"),
    ],
    ids=["empty", "long", "number", "nul", "list", "huge", "64 bits", "large", "nul key", "deep", "very deep"],
)
async def test_what_cannot_be_kept_is_refused(company: RegisterCompany, body: dict[str, Any], field: str) -> None:
    owner = await company()

    status, answer = await owner.patch(f"tenants/{owner.tenant_id}", body)

    assert status == 422
    assert [error["field"] for error in answer["errors"]] == [field]
    _, answer = await owner.get(f"tenants/{owner.tenant_id}")
    assert answer["data"]["settings"] == {}


async def test_settings_at_the_limits_are_kept(company: RegisterCompany) -> None:
    owner = await company()
    settings = {"deep": deep(13), "numbers": [2**53, -(2**53), 0.1, -1e-7], "text": "x" * 60_000}

    status, answer = await owner.patch(f"tenants/{owner.tenant_id}", {"settings": settings})
    assert (status, answer["data"]["settings"]) == (200, settings)
    status, answer = await owner.get("tenants/current")
    assert (status, answer["data"]["settings"]) == (200, settings)


async def test_a_foreign_tenant_and_none_answer_alike(company: RegisterCompany) -> None:
    owner, other = await company(), await company()
    user_id = other.user_id

    for tenant_id in (other.tenant_id, uuid4()):
        path = f"tenants/{tenant_id}"
        answers = [
            await owner.get(path),
            await owner.get(f"{path}/status"),
            await owner.patch(path, {"name": "Stolen"}),
            await owner.get(f"{path}/users"),
            await owner.post(f"{path}/users/invite", {"email": unique_email()}),
            await owner.patch(f"{path}/users/{user_id}", {"role": "user"}),
            await owner.delete(f"{path}/users/{user_id}"),
            await owner.get(f"{path}/invitations"),
            await owner.delete(f"{path}/invitations/{uuid4()}"),
        ]
        assert {(status, answer["detail"], answer["error"]["code"]) for status, answer in answers} == {
            (403, NO_ACCESS, "PERMISSION_DENIED")
        }
    assert (await owner.get("tenants/not-a-uuid"))[0] == 422


async def test_members_are_shown_with_every_required_field(company: RegisterCompany) -> None:
    owner = await company()
    guest = await joined(company, owner, "Member")

    status, answer = await owner.get(f"tenants/{owner.tenant_id}/users")

    assert (status, answer["pagination"]["total"]) == (200, 2)
    newest, oldest = answer["data"]
    assert set(newest) == {"user_id", "email", "full_name", "role", "is_default", "joined_at"}
    assert (newest["user_id"], newest["email"], newest["role"]) == (str(guest.user_id), guest.email, "member")
    assert (oldest["user_id"], oldest["role"], oldest["is_default"]) == (str(owner.user_id), "owner", True)
    assert newest["joined_at"] > oldest["joined_at"]
    assert newest["joined_at"].endswith("Z")


async def test_inviting_answers_a_message_and_what_came_of_it(company: RegisterCompany) -> None:
    owner, known, email = await company(), await company(), unique_email()

    status, answer = await invite(owner, email, "ADMIN")
    assert status == 201
    assert set(answer) == {"status", "message", "data"}
    assert answer["message"] == f"User {email} invited successfully"
    assert (answer["data"]["user_id"], answer["data"]["role"]) == (None, "admin")
    assert UUID(answer["data"]["invitation_id"]).version == 4

    status, answer = await owner.post(f"tenants/{owner.tenant_id}/users/invite", {"email": known.email})
    assert status == 201
    assert answer["data"] == {"user_id": str(known.user_id), "role": "user", "invitation_id": None}

    status, answer = await invite(owner, known.email)
    assert (status, answer["error"]["code"]) == (409, "ALREADY_EXISTS")
    assert answer["detail"] == f"User {known.email} in this tenant already exists"


async def test_a_tenant_invites_so_many_and_strangers_use_up_nothing(
    orchestrator: Orchestrator, http: ClientSession
) -> None:
    async with beside(orchestrator, rate_invites_per_tenant="3/hour") as strict:
        company = company_factory(http, strict.url)
        owner, stranger = await company(), await company()
        path = f"tenants/{owner.tenant_id}/users/invite"
        assert [(await stranger.post(path, {"email": unique_email()}))[0] for _ in range(4)] == [403] * 4
        email = unique_email()
        assert [(await owner.post(path, {"email": email}))[0] for _ in range(3)] == [201] * 3

        status, answer = await owner.post(path, {"email": unique_email()})

        assert (status, answer["error"]["code"]) == (429, "RATE_LIMITED")
        assert (await invite(stranger, unique_email()))[0] == 201, "each tenant has its own"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"email": "x@example.org", "role": "owner"}, 400),
        ({"email": "x@example.org", "role": "Subscriber"}, 400),
        ({"email": "x@example.org", "role": "buyer"}, 422),
        ({"email": "x@example.org", "role": "king"}, 422),
        ({"email": "x@example.org", "role": None}, 422),
        ({"email": "x"}, 422),
        ({"role": "user"}, 422),
    ],
    ids=["owner", "owner by another name", "a customer", "unknown role", "no role", "no address", "address missing"],
)
async def test_a_bad_invitation_is_refused(company: RegisterCompany, body: dict[str, Any], status: int) -> None:
    owner = await company()

    answered, answer = await owner.post(f"tenants/{owner.tenant_id}/users/invite", body)

    assert answered == status
    if status == 400:
        assert (answer["detail"], answer["error"]["code"]) == ("Owner role cannot be granted", "TENANT_ERROR")
    if body.get("role") == "buyer":
        assert answer["error"]["code"] == "ROLE_NOT_GRANTABLE"
    _, answer = await owner.get(f"tenants/{owner.tenant_id}/invitations")
    assert answer["data"] == []


async def test_roles_and_removal_keep_their_texts(company: RegisterCompany) -> None:
    owner = await company()
    guest = await joined(company, owner, "admin")
    users = f"tenants/{owner.tenant_id}/users"

    async def refusal(who: Person, method: str, user_id: UUID, body: object = None) -> tuple[int, str]:
        status, answer = await who.request(method, f"{users}/{user_id}", json=body)
        return status, answer["detail"]

    only_owner = "This action requires one of the following roles: owner"
    assert await refusal(guest, "PATCH", owner.user_id, {"role": "user"}) == (403, only_owner)
    assert await refusal(owner, "PATCH", owner.user_id, {"role": "user"}) == (400, "Cannot change owner role")
    assert await refusal(owner, "PATCH", guest.user_id, {"role": "OWNER"}) == (400, "Owner role cannot be granted")
    assert await refusal(owner, "PATCH", guest.user_id, {"role": "Buyer"}) == (422, "A buyer gets no place in a tenant")
    assert await refusal(owner, "PATCH", uuid4(), {"role": "user"}) == (404, "User in this tenant not found")
    assert await refusal(guest, "DELETE", owner.user_id) == (400, "Cannot remove owner from tenant")
    assert await refusal(guest, "DELETE", guest.user_id) == (400, "Cannot remove yourself from tenant")
    assert await refusal(owner, "DELETE", uuid4()) == (404, "User in this tenant not found")

    answer = await owner.patch(f"{users}/{guest.user_id}", {"role": "User"})
    assert answer == (200, message("User role updated successfully"))
    owners_and_admins = "This action requires one of the following roles: owner, admin"
    assert (await guest.get(users))[1]["detail"] == owners_and_admins
    answer = await owner.delete(f"{users}/{guest.user_id}")
    assert answer == (200, message("User removed from tenant successfully"))
    status, body = await guest.get("tenants/current")
    assert (status, body["detail"]) == (403, NO_ACCESS), "the removed user's token is void at once"


async def test_a_new_person_accepts_an_invitation(
    company: RegisterCompany, http: ClientSession, orchestrator: Orchestrator
) -> None:
    owner, email = await company(), unique_email()
    await invite(owner, email, "admin")
    token = token_in(await letter_in(orchestrator.settings.data_dir / "outbox", email))
    offer_url = address(orchestrator.url, f"invitations/{token}")
    url = f"{offer_url}/accept"

    status, answer = await request(http, "GET", offer_url)
    offer = {
        "tenant_name": owner.registration["current_tenant"]["name"],
        "inviter_name": "Olga Owner",
        "email": email,
        "state": "pending",
    }
    assert (status, answer["data"]) == (200, offer)
    status, answer = await request(http, "POST", url)
    assert (status, [error["field"] for error in answer["errors"]]) == (422, ["body -> full_name", "body -> password"])
    body = {"full_name": "Nina Newcomer", "password": "correct horse"}
    status, answer = await request(http, "POST", url, json=body)

    assert status == 200
    data = answer["data"]
    assert set(data) == {"access_token", "refresh_token", "token_type", "user", "tenants", "current_tenant"}
    assert (data["user"]["email"], data["current_tenant"]["id"]) == (email, str(owner.tenant_id))
    assert data["tenants"] == [
        {
            "tenant_id": str(owner.tenant_id),
            "tenant_name": data["current_tenant"]["name"],
            "role": "admin",
            "is_default": True,
        }
    ]
    headers = {"Authorization": f"Bearer {data['access_token']}"}
    status, answer = await request(http, "GET", address(orchestrator.url, "auth/me"), headers=headers)
    assert (status, answer["data"]["email"]) == (200, email)

    status, answer = await request(http, "POST", url, json=body)
    assert (status, answer["error"]["code"]) == (409, "CONFLICT")
    assert (await request(http, "GET", offer_url))[1]["data"] == {**offer, "state": "accepted"}
    _, answer = await owner.get(f"tenants/{owner.tenant_id}/invitations")
    (shown,) = answer["data"]
    assert set(shown) == {
        "id", "email", "role", "state", "invited_by", "created_at", "expires_at", "accepted_at",
    }  # fmt: skip
    assert (shown["email"], shown["role"], shown["state"]) == (email, "admin", "accepted")
    assert (shown["invited_by"], shown["accepted_at"] is not None) == (str(owner.user_id), True)


async def test_somebody_signed_in_accepts_with_a_token_and_no_body(
    company: RegisterCompany, http: ClientSession, orchestrator: Orchestrator
) -> None:
    owner, email = await company(), unique_email()
    await invite(owner, email)
    token = token_in(await letter_in(orchestrator.settings.data_dir / "outbox", email))
    form = {"email": email, "password": "correct horse", "full_name": "Guest", "company_name": f"Guest {uuid4().hex}"}
    _, answer = await request(http, "POST", address(orchestrator.url, "auth/register"), json=form)
    stranger = await company()

    status, refusal = await stranger.post(f"invitations/{token}/accept")
    assert (status, refusal["detail"]) == (403, "This invitation was sent to another e-mail address")
    headers = {"Authorization": f"bearer  {answer['data']['access_token']}"}
    url = address(orchestrator.url, f"invitations/{token}/accept")
    status, answer = await request(http, "POST", url, headers=headers)

    assert (status, answer["data"]["current_tenant"]["id"]) == (200, str(owner.tenant_id))
    assert len(answer["data"]["tenants"]) == 2
    headers = {"Authorization": "Bearer nonsense"}
    status, answer = await request(http, "POST", url, headers=headers)
    assert (status, answer["detail"]) == (401, "Could not validate credentials")


async def test_a_revoked_or_unknown_invitation_opens_nothing(
    company: RegisterCompany, http: ClientSession, orchestrator: Orchestrator
) -> None:
    owner, email = await company(), unique_email()
    _, answer = await invite(owner, email)
    invitation = f"tenants/{owner.tenant_id}/invitations/{answer['data']['invitation_id']}"
    token = token_in(await letter_in(orchestrator.settings.data_dir / "outbox", email))

    assert await owner.delete(invitation) == (200, message("Invitation revoked successfully"))
    status, answer = await owner.delete(invitation)
    assert (status, answer["detail"]) == (409, "Invitation is no longer open")
    status, answer = await owner.delete(f"tenants/{owner.tenant_id}/invitations/{uuid4()}")
    assert (status, answer["detail"]) == (404, "Invitation not found")

    body = {"full_name": "Nina", "password": "correct horse"}
    for given, expected in ((token, 409), ("x" * 43, 404), ("%FF%FE", 404), ("%00", 422)):
        url = f"{orchestrator.url}/api/v1/invitations/{given}/accept"
        status, answer = await request(http, "POST", url, json=body)
        assert status == expected, given
        status, answer = await request(http, "GET", url.removesuffix("/accept"))
        assert status == (200 if given == token else expected), given


async def test_every_route_asks_for_a_token(http: ClientSession, orchestrator: Orchestrator) -> None:
    some = uuid4()
    for method, path in (
        ("GET", "tenants"),
        ("GET", "tenants/current"),
        ("GET", f"tenants/{some}"),
        ("PATCH", f"tenants/{some}"),
        ("GET", f"tenants/{some}/status"),
        ("GET", f"tenants/{some}/users"),
        ("POST", f"tenants/{some}/users/invite"),
        ("PATCH", f"tenants/{some}/users/{some}"),
        ("DELETE", f"tenants/{some}/users/{some}"),
        ("GET", f"tenants/{some}/invitations"),
        ("DELETE", f"tenants/{some}/invitations/{some}"),
    ):
        status, answer = await request(http, method, address(orchestrator.url, path))
        assert (status, answer["detail"]) == (401, "Not authenticated"), path
